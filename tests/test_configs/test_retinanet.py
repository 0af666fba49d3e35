"""The RetinaNet recipe against the published one."""

from pathlib import Path

import pytest
import torch
from golden import load_golden, published_state_dict, relative_error
from mmcv.cnn import fuse_conv_bn
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from mmmamba.checkpoint import to_published

CONFIG = Path(__file__).parents[2] / 'configs/det/retinanet_mobilemamba_b1.py'


@pytest.fixture(scope='module')
def cfg():
    cfg = Config.fromfile(CONFIG)
    init_default_scope('mmdet')
    return cfg


@pytest.fixture
def model(cfg):
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('model.type', 'RetinaNet'),
        ('model.backbone.arch', 'b1'),
        ('model.backbone.norm_eval', True),
        ('model.neck.out_channels', 256),
        ('model.bbox_head.anchor_generator.strides', [8, 16, 32, 64, 128]),
        ('model.bbox_head.num_classes', 80),
        ('model.data_preprocessor.pad_size_divisor', 32),
        ('train_cfg.max_epochs', 12),
        ('train_dataloader.batch_size', 4),
        ('optim_wrapper.optimizer.type', 'AdamW'),
        ('optim_wrapper.optimizer.lr', 2e-4),
        ('optim_wrapper.optimizer.betas', (0.9, 0.999)),
        ('optim_wrapper.optimizer.weight_decay', 0.05),
        ('optim_wrapper.clip_grad', dict(max_norm=0.1, norm_type=2)),
        ('param_scheduler.0.type', 'LinearLR'),
        ('param_scheduler.0.start_factor', 1e-5),
        ('param_scheduler.0.end', 500),
        ('param_scheduler.0.by_epoch', False),
        ('param_scheduler.1.type', 'CosineAnnealingLR'),
        ('param_scheduler.1.begin', 6),
        ('param_scheduler.1.end', 12),
        ('param_scheduler.1.T_max', 6),
        ('param_scheduler.1.eta_min', 0),
        ('auto_scale_lr.base_batch_size', 16),
        ('auto_scale_lr.enable', False),
        ('train_pipeline.2.scale', (1333, 800)),
        ('train_pipeline.2.keep_ratio', True),
        ('test_pipeline.1.scale', (1333, 800)),
    ],
)
def test_recipe(cfg, key, value):
    node = cfg
    for part in key.split('.'):
        node = node[int(part)] if part.isdigit() else node[part]
    assert node == value


def test_weight_decay_spares_the_published_parameters(cfg, model):
    """The published rule: no decay where the published name has 'norm'."""
    names = {id(p): n for n, p in model.named_parameters()}
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    spared = {
        names[id(p)]
        for group in optimizer.param_groups
        for p in group['params']
        if group['weight_decay'] == 0
    }
    published = {
        n
        for n in names.values()
        if 'norm' in to_published(n.removeprefix('backbone.'))
    }
    assert spared == published
    # A weight and a bias in each of B1's seven blocks.
    assert len(spared) == 14


def test_parameters(model):
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == 27.05


@pytest.mark.parametrize('fuse', [False, True])
def test_published_checkpoint_gives_published_outputs(model, tmp_path, fuse):
    path = tmp_path / 'published.pth'
    weights = published_state_dict('retinanet_b1')
    torch.save(dict(state_dict=weights, meta={}), path)
    load_checkpoint(model, str(path), strict=True)
    if fuse:
        model = fuse_conv_bn(model)

    images, golden = load_golden('retinanet_b1_128x160')
    with torch.no_grad():
        scores, boxes = model(images)
    outs = {f'out{i}': x for i, x in enumerate([*scores, *boxes])}
    outs['out0_every8'] = outs['out0'][:, ::8]
    compared = [name for name in golden if name.startswith('out')]
    assert len(compared) == 10
    for name in compared:
        assert relative_error(outs[name], golden[name]) <= 2e-5, name
