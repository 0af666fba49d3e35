"""Every config: it loads, its model builds and trains one step."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

CONFIGS = Path(__file__).parents[2] / 'configs'
DETECTION = [*CONFIGS.glob('det/*.py'), *CONFIGS.glob('demo/*.py')]


def build(path: Path):
    """The config's model, from scratch."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if 'init_cfg' in cfg.model.backbone:
        cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return cfg, model


@pytest.mark.parametrize('path', DETECTION, ids=lambda p: p.stem)
def test_detection_trains_one_step(path):
    from mmdet.testing import demo_mm_inputs

    cfg, model = build(path)
    data = demo_mm_inputs(
        2, [[3, 128, 160], [3, 96, 64]], num_items=[2, 1], num_classes=3
    )
    data = model.data_preprocessor(data, True)
    losses = model.train()(**data, mode='loss')
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)
    without_gradient = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert without_gradient == []


@pytest.mark.parametrize('path', DETECTION, ids=lambda p: p.stem)
def test_loaders_and_evaluators_read_the_same_files(path):
    cfg = Config.fromfile(path)
    for split in ('val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        evaluator = cfg[f'{split}_evaluator']
        assert evaluator.ann_file == dataset.data_root + dataset.ann_file


@pytest.mark.parametrize(
    ('arch', 'parameters'),
    [
        ('t2', 8.84),
        ('t4', 14.18),
        ('s6', 15.04),
        ('b1', 17.12),
        ('b2', 17.12),
        ('b4', 17.12),
    ],
)
def test_classifier_has_the_published_size(arch, parameters):
    cfg, model = build(CONFIGS / f'cls/mobilemamba_{arch}.py')
    assert cfg.default_scope == 'mmpretrain'
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == parameters
    logits = model.eval()(torch.zeros(1, 3, 64, 64))
    assert logits[0].shape[0] == 1 or logits.shape == (1, 1000)
