"""Detectors whose heads are for maps of other strides."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS

from mmmamba.backbones import MobileMamba
from mmmamba.necks import MobileMambaFPN
from mmmamba.openmmlab import strides as change

TINY = dict(base='t2', channels=(16, 24, 32), depths=(1, 1, 1))


class Head(torch.nn.Module):
    def __init__(self, strides):
        super().__init__()
        self.prior_generator = SimpleNamespace(strides=strides)


@MODELS.register_module(force=True)
class StrideDetector(BaseModule):
    """As mmdet's, as far as strides go."""

    def __init__(self, backbone, num_finer=1, strides=(), error=None):
        super().__init__()
        self.backbone = MODELS.build(backbone)
        channels = backbone['arch']['channels']
        self.neck = MobileMambaFPN(channels, 8, 5, num_finer=num_finer)
        self.bbox_head = Head(strides)
        self.roi_extractor = torch.nn.Identity()
        self.roi_extractor.featmap_strides = [s[0] for s in strides[:4]]
        self.error = error

    def extract_feat(self, inputs):
        assert not self.neck.training and not self.backbone.training
        if self.error:
            raise self.error
        return self.neck(self.backbone(inputs))


@pytest.fixture
def build(monkeypatch):
    """Build a detector; its warnings, and itself."""

    def build(strides, arch=TINY, **options):
        said = []
        monkeypatch.setattr(change, 'print_log', lambda m, **_: said.append(m))
        backbone = dict(type='MobileMamba', arch=arch, frozen_stages=0)
        pairs = [(s, s) for s in strides]
        cfg = dict(type='StrideDetector', backbone=backbone, strides=pairs)
        return said, MODELS.build(dict(cfg, **options))

    return build


def test_strides_that_are_halved(build):
    """For each kind of strides one warning."""
    said, model = build((4, 8, 16, 32, 64))
    head, extractor = said
    for name, given in (('bbox_head', '64, 128'), ('roi_extractor', '64')):
        (text,) = (s for s in said if s.startswith(name))
        assert f'gets maps of strides 8, 16, 32, {given}, so' in text
        assert 'num_finer=2' in text
    assert model.neck.training and model.backbone.stages.training
    assert not model.backbone.stem.training  # it is frozen


@pytest.mark.parametrize('strides', [(8, 16, 32, 64, 128), (8, 16, 27, 53)])
def test_strides_that_fit(build, strides):
    """But for rounding, as SSDLite's published ones do."""
    assert build(strides)[0] == []


def test_a_model_without_memory(build):
    """Where all tensors that are made are of the meta device."""
    with torch.device('meta'):
        build((8, 16, 32, 64, 128))


def test_what_is_not_looked_at(build):
    strides = (4, 8, 16, 32)
    assert build(strides, error=TypeError('another input'))[0] == []
    assert build(())[0] == []
    said, model = build(strides)
    said.clear()
    model.backbone = torch.nn.Identity()
    change.check_strides(model)
    model.backbone = MobileMamba(TINY, deploy=True)
    change.check_strides(model)
    assert said == []
