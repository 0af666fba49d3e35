"""A detector trains on each device that is here, on a GPU as --amp does."""

import math

import pytest
import torch
from test_ops.support import ROOT

from mmmamba.utils.analysis.models import detection_samples

pytestmark = pytest.mark.slow
pytest.importorskip('mmdet', reason='mmdet is not installed')


def batch(device) -> dict:
    """Two images with a box of a class of its own each."""
    from mmengine.structures import InstanceData

    samples = detection_samples(2, (128, 128))
    for label, (sample, side) in enumerate(zip(samples, (40.0, 70.0))):
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[20.0, 30.0, 20 + side, 30 + side]]),
            labels=torch.tensor([label]),
        ).to(device)
    torch.manual_seed(0)
    images = torch.randint(0, 255, (2, 3, 128, 128), dtype=torch.uint8)
    return dict(inputs=list(images), data_samples=samples)


def test_retinanet(device, record_property):
    """Fifteen steps on one batch lower the loss of the published config."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.optim import AmpOptimWrapper, OptimWrapper

    register_all_modules()
    config = Config.fromfile(ROOT / 'configs/det/retinanet_mobilemamba_b1.py')
    channels = [32, 48, 64]
    config.model.backbone.update(
        arch=dict(base='b1', channels=channels, depths=(1, 1, 1)),
        init_cfg=None,
    )
    config.model.neck.in_channels = channels
    torch.manual_seed(0)
    model = MODELS.build(config.model).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    if device.type == 'cpu':  # mmengine has none for it
        wrapper = OptimWrapper(optimizer=optimizer)
    else:
        wrapper = AmpOptimWrapper(optimizer=optimizer)
    losses = [
        float(model.train_step(batch(device), wrapper)['loss'])
        for _ in range(15)
    ]
    record_property('losses', f'{losses[0]:.2f} to {losses[-1]:.2f}')
    assert all(map(math.isfinite, losses))
    assert losses[-1] < 0.8 * losses[0]
