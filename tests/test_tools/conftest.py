"""A small trained detector, and what it finds in a photo."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from test_deploy.test_export_layers import SMALL, lively

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/atss_mobilemamba_t2_bccd.py'
#: Where scores of the detector below are far from each other.
SCORE = 0.1


@pytest.fixture(scope='session')
def photo():
    """A real photo."""
    return ROOT / 'tests/data/blood_cells.jpg'


@pytest.fixture(scope='session')
def detector(tmp_path_factory):
    """A config with a small backbone, for 128 x 96, and its checkpoint."""
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'config.py'
    config.write_text(
        f'_base_ = {str(CONFIG)!r}\n'
        f'arch = dict(_delete_=True, **{SMALL!r})\n'
        'model = dict(backbone=dict(arch=arch))\n'
    )
    cfg = Config.fromfile(config)
    resize = cfg.test_dataloader.dataset.pipeline[1]
    resize.scale, resize.keep_ratio = (128, 96), True
    cfg.dump(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    lively(model)
    with torch.no_grad():
        model.bbox_head.atss_cls.weight.mul_(6)
    checkpoint = folder / 'model.pth'
    meta = dict(dataset_meta=cfg.metainfo.to_dict())
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    return config, checkpoint


@pytest.fixture(scope='session')
def inferred(detector, photo):
    """What ``DetInferencer`` finds in the photo, above :data:`SCORE`."""
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(
        *map(str, detector), device='cpu', show_progress=False
    )
    found = inferencer(str(photo), no_save_pred=True)['predictions'][0]
    number = (np.array(found['scores']) > SCORE).sum()
    assert number > 5
    return dict(
        boxes=np.array(found['bboxes'])[:number],
        scores=np.array(found['scores'])[:number],
        labels=found['labels'][:number],
    )
