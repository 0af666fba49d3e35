"""Models by name, and what fusing does to them."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import CheckpointError
from mmmamba.utils.analysis import analyze_complexity
from mmmamba.utils.analysis.models import (
    NamedModel,
    build_feature_map,
    build_model,
    fuse_model,
)
from mmmamba.utils.cli import UsageError

pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[3] / 'configs'
RESNET = 'mmpretrain:resnet18_8xb32_in1k@64'


@pytest.fixture
def others():
    """Skip a test of others' models where they are not installed."""
    pytest.importorskip('timm')
    pytest.importorskip('mmpretrain')


def test_name_and_size():
    assert build_model('mobilemamba:T2').shape == (192, 192)
    model = build_model('mobilemamba:t2@64x96')
    assert model.name == 'mobilemamba:t2@64x96'
    assert model.is_ours and not model.training
    maps = model(torch.rand(1, 3, *model.shape))
    assert [m.shape[2:] for m in maps] == [(4, 6), (2, 3), (1, 2)]


def test_a_config_is_a_whole_model():
    name = f'{CONFIGS}/cls/mobilemamba_t2.py'
    model = build_model(name)
    assert (model.name, model.shape) == ('mobilemamba_t2@192', (192, 192))
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1000)
    backbone = build_model(name, 'backbone')
    assert isinstance(backbone.model, MobileMamba)


@pytest.mark.parametrize('part', ['tensor', 'predict'])
@pytest.mark.parametrize(
    'config', ['mask_rcnn_mobilemamba_b1', 'ssdlite_mobilemamba_b1_320']
)
def test_detectors(config, part):
    pytest.importorskip('mmdet')
    model = build_model(f'{CONFIGS}/det/{config}.py@64', part)
    with torch.no_grad():
        out = model(torch.rand(2, 3, 64, 64))
    if part == 'predict':
        assert len(out) == 2 and hasattr(out[0], 'pred_instances')


def test_names_of_others(others):
    image = torch.rand(1, 3, 64, 64)
    # Of the two of timm, one has to know the size and one cannot be told.
    for name in 'timm:efficientvit_m0@64', 'timm:resnet10t@64', RESNET:
        model = build_model(name)
        assert model.name == name and not model.is_ours
        assert model(image).shape == (1, 1000)
        feature = build_model(name, 'backbone')(image)
        feature = feature[0] if isinstance(feature, tuple) else feature
        assert feature.dim() == 4
    assert build_model('timm:efficientvit_m0').shape == (224, 224)


@pytest.mark.parametrize(
    'name, hint',
    [
        ('t2', 'did you mean mobilemamba:t2'),
        ('mobilemamba:t3', 'did you mean t4, t2'),
        ('timm:efficentvit_m2@224', 'efficientvit_m2'),
        ('mmpretrain:resnet18', 'resnet18_8xb32_in1k'),
        ('torchvision:resnet18', "no source 'torchvision'"),
        ('resnet18', 'timm:NAME'),
        ('configs/none.py', 'there is no config configs/none.py'),
        ('mobilemamba:t2@big', 'no name of a model'),
    ],
)
def test_wrong_names(name, hint, others):
    with pytest.raises(UsageError, match=hint):
        build_model(name)


def test_timm_is_asked_for(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'timm', None)
    with pytest.raises(UsageError, match='pip install timm'):
        build_model('timm:resnet18')


# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name, left',
    [
        ('timm:efficientvit_m0@64', 0),  # their own re-parameterization
        ('timm:repvit_m0_9@64', 0),
        ('timm:mobilevitv2_050@64', 0),  # norms that hold the activation
        ('timm:resnetv2_18@64', None),  # norms before the convolutions
        (RESNET, 0),
        (f'{CONFIGS}/det/retinanet_mobilemamba_b1.py@64', None),
    ],
)
def test_fused_is_the_same(name, left, others):
    model = build_model(name)
    before = sum(isinstance(m, _BatchNorm) for m in model.modules())
    # It checks the outputs itself; the norms make sure there is a change.
    remaining = fuse_model(model)
    assert remaining < before
    if left is not None:
        assert remaining == left


class TwoReaders(nn.Module):
    """A convolution that a norm reads, and something else."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.conv(x)
        return x + self.norm(x)


class Twice(nn.Module):
    """A convolution with a norm for each of its uses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(2))

    def forward(self, x):
        return self.norms[1](self.conv(self.norms[0](self.conv(x))))


def test_fusing_keeps_what_it_may_not_fold():
    model = NamedModel(Twice(), 'twice', 'config', (16, 16), 'tensor').eval()
    assert fuse_model(model) == 2


def test_fusing_notices_a_change():
    model = NamedModel(TwoReaders(), 'two', 'config', (16, 16), 'tensor')
    with pytest.raises(UsageError, match='without --fuse'):
        fuse_model(model.eval())


def test_attention_is_counted():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.rand(1, 2, 7, 5))

        def forward(self, x):
            query = x.flatten(2)[:, :2, :12].reshape(1, 2, 3, 4)
            key = self.value[..., :4]
            return nn.functional.scaled_dot_product_attention(
                query, key, self.value
            )

    _, flops = analyze_complexity(Attention(), (4, 4))
    assert flops.total() == 2 * (3 * 4 * 7 + 3 * 7 * 5)


# ---------------------------------------------------------------------------


@pytest.mark.parametrize('stage', [1, 2, 3, None])
def test_feature_map_of_a_stage(stage):
    model = build_feature_map('mobilemamba:t2@64', stage)
    expected = MobileMamba('t2').eval()
    expected.load_state_dict(model.backbone.state_dict())
    image = torch.rand(1, 3, 64, 64)
    index = 2 if stage is None else stage - 1
    torch.testing.assert_close(model(image), expected(image)[index])
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    'name, stage, shape',
    [
        (f'{CONFIGS}/det/ssdlite_mobilemamba_b1_320.py', 2, (376, 2, 2)),
        ('timm:efficientvit_m0', 1, (64, 4, 4)),
        ('timm:mambaout_femto', 2, (96, 8, 8)),  # channels last inside
        ('timm:vit_tiny_patch16_224', None, (192, 4, 4)),
        ('mmpretrain:resnet18_8xb32_in1k', 1, (64, 16, 16)),
        ('mmpretrain:resnet18_8xb32_in1k', None, (512, 2, 2)),
    ],
)
def test_feature_maps_of_others(name, stage, shape, others):
    model = build_feature_map(name, stage, shape=(64, 64))
    assert model(torch.rand(1, 3, 64, 64)).shape[1:] == shape
    assert model.name.endswith('@64')


@pytest.mark.parametrize(
    'name', ['mobilemamba:t2', 'timm:efficientvit_m0', RESNET]
)
def test_no_such_stage(name, others):
    with pytest.raises(UsageError, match='has no stage 9'):
        build_feature_map(name, 9)


def test_feature_map_of_tokens_is_refused(others):
    model = build_feature_map(
        'mmpretrain:vit-base-p16_32xb128-mae_in1k', shape=(224, 224)
    )
    with pytest.raises(UsageError, match='no feature map'):
        model(torch.rand(1, 3, 224, 224))


def test_checkpoints(tmp_path, others):
    """Ours, of a backbone or a whole model; and of others."""
    path = tmp_path / 'weights.pth'
    source = MobileMamba('t2')
    whole = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    for tensors in source.state_dict(), whole:
        torch.save({'state_dict': tensors}, path)
        model = build_feature_map('mobilemamba:t2', 1, str(path))
        for name, tensor in source.state_dict().items():
            assert torch.equal(model.backbone.state_dict()[name], tensor)

    resnet = build_model(RESNET)
    torch.save(resnet.model.state_dict(), path)
    model = build_feature_map(RESNET, 2, str(path))
    assert torch.equal(
        model.backbone.conv1.weight, resnet.model.backbone.conv1.weight
    )
    with pytest.raises(CheckpointError, match='t2'):
        build_feature_map('mobilemamba:t2', 1, str(path))
    with pytest.raises(CheckpointError, match='weights.pth'):
        build_feature_map('timm:resnet10t', 1, str(path))
    with pytest.raises(UsageError, match='only timm and mmpretrain'):
        build_feature_map('mobilemamba:t2', 1, 'pretrained')
