"""Published checkpoints: every tensor has its place, and outputs are met."""

from pathlib import Path

import pytest
import torch
from golden import (
    load_golden,
    published_keys,
    published_state_dict,
    relative_error,
)
from mmcv.cnn import fuse_conv_bn
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

from mmmamba.checkpoint import to_published

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs'
CHECKPOINTS = {
    'retinanet_b1': 'det/retinanet_mobilemamba_b1.py',
    'mask_rcnn_b1': 'det/mask_rcnn_mobilemamba_b1.py',
    'ssdlite_b1_320': 'det/ssdlite_mobilemamba_b1_320.py',
    'ssdlite_b1_512': 'det/ssdlite_mobilemamba_b1_512.py',
    'deeplabv3_b4': 'seg/deeplabv3_mobilemamba_b4.py',
    'fpn_b4': 'seg/fpn_mobilemamba_b4.py',
    'pspnet_b4': 'seg/pspnet_mobilemamba_b4.py',
}


def build(name: str):
    cfg = Config.fromfile(CONFIGS / CHECKPOINTS[name])
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model).eval()


def load_published(model, name: str, folder: Path) -> None:
    """As a runner's ``load_from`` does, but strictly."""
    path = folder / 'published.pth'
    torch.save(dict(state_dict=published_state_dict(name), meta={}), path)
    load_checkpoint(model, str(path), strict=True)


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_tensors_map_one_to_one(name, tmp_path):
    with torch.device('meta'):
        ours = build(name).state_dict()

    def published(tensor):
        part, _, rest = tensor.partition('.')
        return f'{part}.{to_published(rest)}' if part == 'backbone' else tensor

    renamed = {published(n): list(t.shape) for n, t in ours.items()}
    assert len(renamed) == len(ours)
    assert renamed == published_keys(name)


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_tensors_arrive_unchanged(name, tmp_path):
    model = build(name)
    load_published(model, name, tmp_path)
    tensors = model.state_dict()
    for full_name, value in published_state_dict(name).items():
        part, _, rest = full_name.partition('.')
        if part != 'backbone':
            assert torch.equal(tensors.pop(full_name), value), full_name
    assert all(n.startswith('backbone.') for n in tensors)


@pytest.mark.parametrize('fuse', [False, True])
@pytest.mark.parametrize(
    'name, case', [('retinanet_b1', '128x160'), ('fpn_b4', '256x320')]
)
def test_outputs_are_the_published_ones(name, case, fuse, tmp_path):
    model = build(name)
    load_published(model, name, tmp_path)
    if fuse:
        model = fuse_conv_bn(model)
    images, golden = load_golden(f'{name}_{case}')
    with torch.no_grad():
        outs = model(images, mode='tensor')
    if name == 'retinanet_b1':
        scores, boxes = outs
        outs = {f'out{i}': x for i, x in enumerate([*scores, *boxes])}
        outs['out0_every8'] = outs['out0'][:, ::8]
    else:
        outs = dict(zip(golden, [outs]))
    compared = [key for key in golden if key in outs]
    assert len(compared) == (10 if name == 'retinanet_b1' else 1)
    for key in compared:
        assert relative_error(outs[key], golden[key]) <= 2e-5, key
