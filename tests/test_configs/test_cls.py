"""Classification configs: the published recipe, and one step of each."""

import math
from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import (
    MODELS,
    PARAM_SCHEDULERS,
    init_default_scope,
)
from mmengine.runner import Runner
from mmpretrain.datasets.transforms import RandomResizedCrop
from mmpretrain.structures import DataSample

from mmmamba.backbones.arch import PRETRAIN_SIZES
from mmmamba.utils.cpu import replace_amp
from mmmamba.utils.image_size import set_image_size

CONFIGS = Path(__file__).parents[2] / 'configs'
PUBLISHED = [f'{a}{end}' for a in PRETRAIN_SIZES for end in ('', '_distill')]
ALL = sorted((CONFIGS / 'cls').glob('*.py')) + sorted(
    (CONFIGS / 'demo').glob('*cells*.py')
)
TEACHER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=1000, in_channels=64),
)


@lru_cache
def _load(file: Path) -> Config:
    return Config.fromfile(file)


def load(file: Path | str) -> Config:
    if isinstance(file, str):
        file = CONFIGS / f'cls/mobilemamba_{file}.py'
    return deepcopy(_load(file))


def build(cfg: Config, folder: Path):
    """The config's model, with a small teacher where there is one."""
    init_default_scope('mmpretrain')
    if cfg.model.type == 'DistilledClassifier':
        teacher = deepcopy(TEACHER)
        teacher['head']['num_classes'] = cfg.model.head.num_classes
        torch.save(MODELS.build(teacher).state_dict(), folder / 'teacher.pth')
        cfg.model.teacher_config = teacher
        cfg.model.teacher_ckpt = str(folder / 'teacher.pth')
    cfg.model.data_preprocessor = cfg.data_preprocessor
    return MODELS.build(cfg.model)


@pytest.mark.parametrize('file', ALL, ids=lambda file: file.stem)
@pytest.mark.slow
def test_builds_and_trains_a_step(file, tmp_path):
    """At 64 px; every parameter that is trained gets a gradient."""
    cfg = load(file)
    model = build(cfg, tmp_path)
    model.init_weights()
    replace_amp(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, 3, 64, 64), generator=rng)
    data = dict(
        inputs=list(images.to(torch.uint8)),
        data_samples=[DataSample().set_gt_label(i) for i in range(2)],
    )
    seen = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda g, n=name: seen.update({n: g}))
    log = model.train_step(data, wrapper)
    assert math.isfinite(log['loss'].detach())
    assert ('loss_distill' in log) == ('distill' in file.stem)
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(seen) == trained
    samples = model.eval().test_step(data)
    assert samples[0].pred_score.shape == (cfg.model.head.num_classes,)


@pytest.mark.parametrize(
    'name',
    [
        pytest.param(name, marks=() if name == 't2' else pytest.mark.slow)
        for name in PUBLISHED
    ],
)
def test_published_recipe(name):
    """Every number of shared facts on pretraining."""
    cfg = load(name)
    arch, distilled = name[:2], 'distill' in name
    size = PRETRAIN_SIZES[arch]
    assert cfg.model.backbone.arch == arch
    assert cfg.train_cfg.max_epochs == (1000 if distilled else 300)

    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr) == ('AdamW', 1.5e-3)
    assert optimizer.weight_decay == 0.05
    assert tuple(optimizer.betas) == (0.9, 0.999)
    assert cfg.optim_wrapper.clip_grad == dict(max_norm=5.0)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert cfg.auto_scale_lr.base_batch_size == 1024
    assert cfg.train_dataloader.batch_size * 8 == 1024
    average = cfg.custom_hooks[0]
    assert average.type == 'EMAHook'
    assert 1 - average.momentum == 0.9998

    steps = {s.type: s for s in cfg.train_dataloader.dataset.pipeline}
    assert list(steps) == [
        'LoadImageFromFile',
        'RandomResizedCrop',
        'RandomFlip',
        'RandAugment',
        'RandomErasing',
        'PackInputs',
    ]
    assert steps['RandomResizedCrop'].scale == size
    assert steps['RandomResizedCrop'].interpolation == 'bicubic'
    augment = steps['RandAugment']
    assert (augment.magnitude_level, augment.magnitude_std) == (9, 0.5)
    assert (augment.num_policies, augment.policies) == (2, 'timm_increasing')
    assert steps['RandomErasing'].erase_prob == 0.25
    assert steps['RandomErasing'].mode == 'rand'
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        _, resize, crop, _ = loader.dataset.pipeline
        assert resize.scale == math.floor(size / 0.875)
        assert resize.interpolation == 'bicubic'
        assert crop.crop_size == size
    augments = {a.type: a.alpha for a in cfg.model.train_cfg.augments}
    assert augments == dict(Mixup=0.8, CutMix=1.0)
    assert cfg.model.head.loss.label_smooth_val == 0.1
    assert not cfg.model.head.distillation
    assert cfg.test_evaluator.topk == (1, 5)


def test_the_published_teacher():
    """5 times the divergence at temperature 1 from images of 0 to 1."""
    cfg = load('t2_distill')
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    assert model.teacher.config['model_name'] == 'tresnet_v2_l'
    assert model.teacher.size == 224
    preprocessor = model.teacher.config['data_preprocessor']
    assert preprocessor['mean'] == [0] * 3
    assert preprocessor['std'] == [255] * 3
    assert model.distill_loss.loss_weight == 5
    assert model.distill_loss.temperature == 1


def test_weight_decay(tmp_path):
    """None for what has one dimension, as timm does it."""
    cfg = load('t2')
    model = build(cfg, tmp_path)
    replace_amp(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    decay = {
        id(p): group['weight_decay']
        for group in wrapper.optimizer.param_groups
        for p in group['params']
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected = 0.05 if parameter.ndim > 1 else 0
            assert decay[id(parameter)] == expected, name


def test_learning_rate_by_iteration():
    """Against the formula: 20 epochs up from lr/1000, then cosine."""
    cfg = load('t2')
    per_epoch, end = 5, 300
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1.5e-3)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler.setdefault('end', end)  # as the runner does
        arguments = dict(optimizer=optimizer, epoch_length=per_epoch)
        schedulers.append(
            PARAM_SCHEDULERS.build(scheduler, default_args=arguments)
        )
    warm = 20 * per_epoch
    for i in range(end * per_epoch):
        if i < warm:
            share = 1e-3 + (1 - 1e-3) * i / (warm - 1)
        else:
            done = (i - warm) / ((end - 20) * per_epoch)
            share = 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2
        rate = optimizer.param_groups[0]['lr']
        assert rate == pytest.approx(1.5e-3 * share, rel=0.02), i
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    assert rate == pytest.approx(1.5e-5, rel=0.01)


@pytest.mark.parametrize(
    ('size', 'ratio', 'expected'),
    [
        (288, None, (288, 329, 288)),
        (None, 1.0, (192, 192, 192)),
        (224, 0.95, (224, 235, 224)),
    ],
)
def test_image_size(size, ratio, expected):
    cfg = load('t2')
    set_image_size(cfg, size, ratio)
    train, test = (
        cfg[f'{split}_dataloader'].dataset.pipeline
        for split in ('train', 'test')
    )
    assert (train[1].scale, test[1].scale, test[2].crop_size) == expected


def test_image_size_of_joined_data_sets():
    cfg = load('t2')
    cfg.train_dataloader.dataset.pipeline[1].type = RandomResizedCrop
    loader = cfg.train_dataloader
    parts = [deepcopy(loader.dataset) for _ in range(2)]
    loader.dataset = dict(type='ConcatDataset', datasets=parts)
    set_image_size(cfg, 96, None)
    for part in loader.dataset.datasets:
        assert part.pipeline[1].scale == 96


@pytest.mark.parametrize(
    ('size', 'ratio', 'message'),
    [
        (32, None, '32 px is less than 64'),
        (None, 1.2, 'crop ratio of 1.2'),
        (None, 0.0, 'crop ratio of 0.0'),
    ],
)
def test_wrong_image_sizes(size, ratio, message):
    with pytest.raises(ValueError, match=message):
        set_image_size(load('t2'), size, ratio)


@pytest.mark.slow
def test_image_size_of_a_detector():
    cfg = Config.fromfile(CONFIGS / 'demo/retinanet_mobilemamba_t2_bccd.py')
    with pytest.raises(ValueError, match='classification configs'):
        set_image_size(cfg, 256)


@pytest.mark.slow
def test_a_step_of_the_real_pipeline(tmp_path):
    """The whole T2 recipe on ImageNet's layout, 1000 classes, 192 px."""
    rng = np.random.default_rng(0)
    image = rng.integers(256, size=(80, 100, 3), dtype=np.uint8)
    _, encoded = cv2.imencode('.jpg', image)
    for i in range(1000):
        folder = tmp_path / f'imagenet/train/n{i:08d}'
        folder.mkdir(parents=True)
        (folder / 'a.JPEG').write_bytes(encoded.tobytes())
    (tmp_path / 'imagenet/val').symlink_to('train')
    cfg = load('t2')
    replace_amp(cfg)
    for split in ('train', 'val', 'test'):
        loader = cfg[f'{split}_dataloader']
        loader.update(batch_size=4, num_workers=0)
        loader.dataset.data_root = str(tmp_path / 'imagenet')
        loader.dataset.indices = 4  # of the folder's 1000 images
    cfg.train_cfg.max_epochs = 1
    cfg.param_scheduler = None  # whose warm-up alone takes 20 epochs
    cfg.work_dir = str(tmp_path / 'work')
    cfg.experiment_name = 'real'
    runner = Runner.from_cfg(cfg)
    runner.train()
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    # Near that of guessing, log 1000 less a little for the smoothing.
    assert 5 < losses[0] < 9
    assert len(runner.train_dataloader.dataset.metainfo['classes']) == 1000
    assert (tmp_path / 'work/epoch_1.pth').is_file()
