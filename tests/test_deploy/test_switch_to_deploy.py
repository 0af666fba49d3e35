"""Tests of mmmamba/deploy: the same outputs, and what is refused."""

import copy
import re
import warnings
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from golden import (
    load_golden,
    published_state_dict,
    randomize,
    relative_error,
)
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import CheckpointError
from mmmamba.deploy import FoldError, deploy_model
from mmmamba.ops.backend import backend_for

GOLDEN = ['t2_192x192', 's6_224x160_dist', 'b1_250x333', 'b1_256x256']
TINY = dict(base='t2', channels=(48, 64, 96), depths=(1, 2, 1))
SETTINGS = [
    dict(),
    dict(directions=1),
    dict(directions=4),
    dict(d_state=3),
    dict(directions=1, d_state=2),
    dict(num_parts=3),
    dict(wavelet=False),
    dict(kernel_sizes=(1, 9, 3)),
    dict(global_ratio=(1.0, 1.0, 1.0)),
    dict(local_ratio=(0.0, 0.0, 0.0)),
    dict(ssm_ratio=1.3),
    dict(channels=(16, 19, 33)),
]
# Channels or sizes by themselves, for all that is not covered by them.
SIZES = [(1, 65, 97), (2, 66, 127), (3, 64, 64), (1, 113, 80)]
# Less than the last stride: maps of one row, column or position.
SIZES += [(2, 32, 288), (1, 64, 7), (2, 1, 1)]


def make_tiny(arch: dict = {}, **kwargs) -> MobileMamba:
    """A small trained model in which every parameter matters."""
    torch.manual_seed(0)
    return randomize(MobileMamba({**TINY, **arch}, **kwargs)).eval()


def deployed(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    model.switch_to_deploy()
    return model


@cache
def tiny_pair() -> tuple[MobileMamba, MobileMamba]:
    """A small model and its deployed form; not to be changed."""
    model = make_tiny()
    return model, deployed(model)


@torch.no_grad()
def check(found, plain: MobileMamba, x: torch.Tensor, bound=5e-6) -> None:
    """Compare outputs with those of the plain model in float64."""
    exact = copy.deepcopy(plain).double()(x.double())
    assert isinstance(found, tuple)
    for out, expected in zip(found, exact, strict=True):
        assert out.dtype == x.dtype
        assert relative_error(out, expected) <= bound


# ---------------------------------------------------------------------------
# The computation
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('name', GOLDEN)
@pytest.mark.usefixtures('op_backend')
@torch.no_grad()
@pytest.mark.slow
def test_golden(name):
    arch = name.split('_')[0]
    model = MobileMamba(arch).eval()
    model.load_state_dict(published_state_dict(arch))
    model.switch_to_deploy()
    x, expected = load_golden(name)
    for i, out in enumerate(model(x)):
        error = relative_error(out, expected[f'stage{i + 1}'])
        assert error <= 2e-5, f'stage {i + 1}'


@pytest.mark.parametrize('arch', SETTINGS, ids=str)
@pytest.mark.usefixtures('op_backend')
@torch.no_grad()
@pytest.mark.slow
def test_every_setting(arch):
    model = make_tiny(arch)
    x = torch.randn(2, 3, 65, 97)
    check(deployed(model)(x), model, x)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.usefixtures('op_backend')
@torch.no_grad()
def test_sizes(size, channels_last):
    model, fast = tiny_pair()
    x = torch.randn(size[0], 3, *size[1:])
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    before = x.clone()
    outs = fast(x)
    check(outs, model, x)
    assert torch.equal(x, before)
    for out in outs:
        assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    'dtype, bound', [(torch.float64, 1e-13), (torch.bfloat16, 5e-2)]
)
@pytest.mark.usefixtures('op_backend')
@torch.no_grad()
def test_dtypes(dtype, bound):
    """The dtype of the switch, and one that is set after it."""
    plain, fast = tiny_pair()
    x = torch.randn(2, 3, 65, 97).to(dtype)
    model = copy.deepcopy(plain).to(dtype)
    check(deployed(model)(x), model, x, bound)
    if dtype == torch.bfloat16:
        check(copy.deepcopy(fast).to(dtype)(x), plain, x, bound)


@torch.no_grad()
def test_autocast():
    model, fast = tiny_pair()
    x = torch.randn(1, 3, 64, 80)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = fast(x)
    for out, expected in zip(found, model(x)):
        assert relative_error(out.float(), expected) <= 3e-2


@pytest.mark.parametrize('out_indices', [(0,), (1,), (0, 2)])
@torch.no_grad()
def test_out_indices(out_indices):
    model = make_tiny(out_indices=out_indices)
    x = torch.randn(1, 3, 64, 80)
    check(deployed(model)(x), model, x)


@torch.no_grad()
def test_in_channels_and_norms():
    """SyncBN, norms without parameters, and norms that mmcv has folded."""
    x = torch.randn(1, 4, 64, 80)
    model = make_tiny(in_channels=4, norm_cfg=dict(type='SyncBN'))
    check(deployed(model)(x), model, x)
    fused = fuse_conv_bn(copy.deepcopy(model))
    check(deployed(fused)(x), model, x)
    model = make_tiny(in_channels=4)
    for unit in model.stem:
        unit.bn.affine = False
        unit.bn.weight = unit.bn.bias = None
    check(deployed(model)(x), model, x)


def test_gradient_of_the_image():
    """Nothing is trained, but attribution maps remain possible."""
    gradients = []
    x = torch.randn(1, 3, 65, 97)
    for model in tiny_pair():
        image = x.clone().requires_grad_()
        sum(out.square().sum() for out in model(image)).backward()
        gradients.append(image.grad)
    assert relative_error(*gradients) <= 1e-5


def test_what_is_left():
    model, fast = tiny_pair()
    kinds = {type(module).__name__ for module in fast.modules()}
    assert not {k for k in kinds if 'Norm' in k or k == 'ConvBN'}
    assert not any(p.requires_grad for p in fast.parameters())
    count = [sum(p.numel() for p in m.parameters()) for m in (model, fast)]
    assert count[1] < count[0]


# ---------------------------------------------------------------------------
# Its life
# ---------------------------------------------------------------------------


def test_once_and_not_in_training():
    model = MobileMamba(TINY)
    with pytest.raises(RuntimeError, match=r'call \.eval\(\) first'):
        model.switch_to_deploy()
    model.eval().switch_to_deploy()
    with pytest.raises(RuntimeError, match='deployed already'):
        model.switch_to_deploy()
    with pytest.raises(RuntimeError, match='deployed already'):
        MobileMamba(TINY, deploy=True).switch_to_deploy()
    with pytest.raises(RuntimeError, match='cannot be trained'):
        model.train()
    with pytest.raises(RuntimeError, match='cannot be trained'):
        nn.Sequential(model).train()
    assert not model.eval().training


def test_other_norms_are_refused():
    """And the model stays what it is."""
    model = make_tiny(norm_cfg=dict(type='GN', num_groups=1))
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    with pytest.raises(FoldError, match='fold batch norms .* GroupNorm'):
        model.switch_to_deploy()
    assert not model.deploy
    for out, expected in zip(model(x), before):
        assert torch.equal(out, expected)
    model = make_tiny()
    model.stem[0].bn.running_mean = model.stem[0].bn.running_var = None
    with pytest.raises(FoldError, match='running statistics'):
        model.switch_to_deploy()


@torch.no_grad()
@pytest.mark.slow
def test_state_dict(tmp_path):
    fast = deployed(make_tiny())
    x = torch.randn(2, 3, 65, 97)
    torch.save(fast.state_dict(), tmp_path / 'fast.pth')
    torch.manual_seed(1)
    for twin in (
        MobileMamba(TINY, deploy=True),
        MODELS.build(
            dict(
                type='MobileMamba',
                arch=TINY,
                deploy=True,
                out_indices=(2,),
                init_cfg=dict(
                    type='Pretrained', checkpoint=str(tmp_path / 'fast.pth')
                ),
            )
        ),
    ):
        assert twin.deploy and not twin.training
        if twin.init_cfg:
            twin.init_weights()
        else:
            twin.load_state_dict(torch.load(tmp_path / 'fast.pth'))
        for out, expected in zip(twin(x)[::-1], fast(x)[::-1]):
            assert torch.equal(out, expected)
    twin = copy.deepcopy(fast)
    assert torch.equal(twin(x)[2], fast(x)[2])


def test_the_other_form_is_refused():
    plain, fast = tiny_pair()
    with pytest.raises(CheckpointError, match='deployed .* with deploy=True'):
        plain.load_state_dict(fast.state_dict())
    for given in (plain.state_dict(), published_state_dict('t2')):
        with pytest.raises(CheckpointError, match='without deploy=True'):
            fast.load_state_dict(given)
    whole = {f'backbone.{k}': v for k, v in fast.state_dict().items()}
    detector = nn.ModuleDict(dict(backbone=MobileMamba(TINY)))
    with pytest.raises(CheckpointError, match="under 'backbone.'"):
        detector.load_state_dict(whole)
    # Of the same form, but another arch.
    other = deployed(make_tiny(dict(channels=(48, 64, 80))))
    message = re.escape('channels (48, 64, 80), depths (1, 2, 1)')
    with pytest.raises(CheckpointError, match=message):
        fast.load_state_dict(other.state_dict())
    with pytest.raises(CheckpointError, match='no MobileMamba'):
        fast.load_state_dict({'conv1.weight': torch.zeros(1)})


# ---------------------------------------------------------------------------
# What PyTorch makes of it
# ---------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.slow
def test_compile():
    _, fast = tiny_pair()
    compiled = torch.compile(fast, fullgraph=True, backend='aot_eager')
    x = torch.randn(1, 3, 65, 97)
    for out, expected in zip(compiled(x), fast(x)):
        assert relative_error(out, expected) <= 1e-6


@torch.no_grad()
@pytest.mark.slow
def test_export():
    _, fast = tiny_pair()
    x = torch.randn(3, 3, 65, 97)
    batch = torch.export.Dim('batch', min=1, max=8)
    program = torch.export.export(fast, (x,), dynamic_shapes=({0: batch},))
    for images in (x, x[:2]):
        for out, expected in zip(program.module()(images), fast(images)):
            assert relative_error(out, expected) <= 1e-6


@torch.no_grad()
def test_parameters_that_change():
    """A network computes with the parameters that it has now."""
    fast = copy.deepcopy(tiny_pair()[1])
    x = torch.randn(1, 3, 65, 97)
    expected = fast(x)
    copied = copy.deepcopy(fast)
    zeros = {name: torch.zeros_like(p) for name, p in fast.named_parameters()}
    fast.load_state_dict(zeros, assign=True)
    assert all(out.count_nonzero() == 0 for out in fast(x))
    for out, ref in zip(copied(x), expected):
        assert torch.equal(out, ref)


@torch.no_grad()
def test_channels_last_keeps_the_order_of_the_kernels():
    """Or each call would copy the parameters back."""
    fast = copy.deepcopy(tiny_pair()[1])
    x = torch.randn(1, 3, 65, 97)
    expected = fast(x)
    fast = fast.to(memory_format=torch.channels_last)
    assert any(p.dim() == 4 for p in fast.parameters())
    assert all(p.is_contiguous() for p in fast.parameters())
    for out, ref in zip(fast(x), expected):
        assert torch.equal(out, ref)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@torch.no_grad()
@pytest.mark.slow
def test_jit_trace():
    _, fast = tiny_pair()
    x = torch.randn(2, 3, 65, 97)
    traced = torch.jit.trace(fast, x[:1], check_trace=False)
    for out, expected in zip(traced(x[1:]), fast(x[1:])):
        assert relative_error(out, expected) <= 1e-6


# ---------------------------------------------------------------------------
# Whole models
# ---------------------------------------------------------------------------


@torch.no_grad()
def test_whole_classifier():
    pytest.importorskip('mmpretrain')
    init_default_scope('mmpretrain')
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='MobileMamba', arch=TINY, out_indices=(2,)),
            neck=dict(type='mmpretrain.GlobalAveragePooling'),
            head=dict(
                type='mmpretrain.LeViTClsHead',
                num_classes=7,
                in_channels=96,
                distillation=False,
            ),
        )
    )
    with pytest.raises(RuntimeError, match=r'\.eval\(\)'):
        deploy_model(model)
    model = randomize(model).eval()
    x = torch.randn(2, 3, 64, 80)
    before = model(x)
    assert deploy_model(model) is model
    assert model.backbone.deploy and model.head.deploy
    assert not [m for m in model.modules() if 'Norm' in type(m).__name__]
    assert relative_error(model(x), before) <= 1e-5
    deploy_model(model)  # what is deployed is left alone


@torch.no_grad()
def test_levels_that_share_a_convolution_but_no_norm():
    """As those of RTMDet's head."""
    levels = nn.ModuleList(
        ConvModule(8, 8, 3, norm_cfg=dict(type='SyncBN')) for _ in range(3)
    )
    for level in levels:
        level.conv = levels[0].conv
        nn.init.uniform_(level.norm.running_mean, -0.2, 0.2)
        nn.init.uniform_(level.norm.running_var, 0.5, 1.5)
    x = torch.randn(2, 8, 9, 7)
    before = [level(x) for level in levels.eval()]
    deploy_model(levels)
    for level, expected in zip(levels, before):
        assert isinstance(level.norm, nn.Identity)
        assert relative_error(level(x), expected) <= 1e-6


class Shared(nn.Module):
    """A convolution that a norm follows here, and not there."""

    def __init__(self):
        super().__init__()
        self.first = ConvModule(8, 8, 3, norm_cfg=dict(type='BN'))
        self.second = ConvModule(8, 8, 3)
        self.second.conv = self.first.conv

    def forward(self, x):
        return self.second(self.first(x))


class Otherwise(nn.Module):
    """Layers that do not run in the order in which they are registered."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.conv1(self.conv2(self.norm(x)))


class Activated(nn.BatchNorm2d):
    """As those of timm, which do more than to norm."""

    def forward(self, x):
        return F.relu(super().forward(x))


def conv_module(*order, **norm):
    return ConvModule(8, 8, 3, norm_cfg=dict(type='BN', **norm), order=order)


def folding_in_each_call():
    module = conv_module('conv', 'norm', 'act')
    module.turn_on_efficient_conv_bn_eval()
    return module


MODELS_WITH_NORMS = dict(
    folding_in_each_call=(folding_in_each_call, 0),
    spectral=(
        lambda: nn.Sequential(
            nn.utils.spectral_norm(nn.Conv2d(8, 8, 1)), BN(8)
        ),
        1,
    ),
    pre_norm=(lambda: conv_module('norm', 'act', 'conv'), 1),
    norm_after_act=(lambda: conv_module('conv', 'act', 'norm'), 1),
    usual=(lambda: conv_module('conv', 'norm', 'act'), 0),
    no_affine=(lambda: conv_module('conv', 'norm', 'act', affine=False), 0),
    no_statistics=(
        lambda: conv_module('conv', 'norm', 'act', track_running_stats=False),
        1,
    ),
    sequential=(lambda: nn.Sequential(nn.Conv2d(8, 8, 1), BN(8)), 0),
    act_between=(
        lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), BN(8)),
        1,
    ),
    transposed=(
        lambda: nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 2), BN(8)
        ),
        1,
    ),
    activated=(lambda: nn.Sequential(nn.Conv2d(8, 8, 1), Activated(8)), 1),
    shared=(Shared, 0),
    otherwise=(Otherwise, 1),
)
BN = nn.BatchNorm2d


@pytest.mark.parametrize('name', MODELS_WITH_NORMS)
@torch.no_grad()
def test_norms_are_folded_where_they_follow_a_convolution(name):
    build, left = MODELS_WITH_NORMS[name]
    torch.manual_seed(0)
    model = build()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if getattr(module, 'running_mean', None) is not None:
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x = torch.randn(2, 8, 9, 7)
    expected = model.eval()(x)
    deploy_model(model)
    assert relative_error(model(x), expected) <= 1e-6
    assert sum(isinstance(m, _BatchNorm) for m in model.modules()) == left


def test_norms_in_training_mode_are_refused():
    model = ConvModule(8, 8, 3, norm_cfg=dict(type='BN')).eval()
    model.norm.train()
    with pytest.raises(RuntimeError, match=r'call \.eval\(\) first'):
        deploy_model(model)
    backbone = MobileMamba(TINY).eval()
    backbone.stem[0].norm.train()
    with pytest.raises(RuntimeError, match='in eval mode'):
        backbone.switch_to_deploy()
    assert not backbone.deploy


def test_a_warning_that_is_an_error_leaves_the_backbone_as_it_is(monkeypatch):
    from mmmamba.deploy import network

    monkeypatch.setattr(network, 'multiplies_fewer_bits', lambda *_: False)
    backbone = MobileMamba(TINY).eval()
    x = torch.randn(1, 3, 64, 64)
    before = backbone(x)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        with pytest.raises(UserWarning, match='int8 are slow here'):
            backbone.switch_to_deploy('int8')
    for out, expected in zip(backbone(x), before):
        assert torch.equal(out, expected)


def test_deployed_in_inference_mode():
    """Its parameters are as usual: they load, and images get gradients."""
    backbone = MobileMamba(TINY).eval()
    with torch.inference_mode():
        backbone.switch_to_deploy()
    assert not any(p.is_inference() for p in backbone.parameters())
    backbone.load_state_dict(backbone.state_dict())
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    backbone(x)[-1].sum().backward()
    assert x.grad.abs().sum() > 0


def test_derivatives_forwards():
    """Those of ``torch.func.jvp`` are right or refused, never zeros."""
    backbone = make_tiny()
    backbone.switch_to_deploy()
    x, v = torch.randn(2, 1, 3, 64, 64)

    def stem(x):
        return backbone.stem(x)

    _, tangents = torch.func.jvp(stem, (x,), (v,))
    x.requires_grad_()
    y = stem(x)
    g = torch.randn_like(y)
    y.backward(g)
    wanted = (x.grad * v).sum().item()
    assert (g * tangents).sum().item() == pytest.approx(wanted, rel=1e-3)
    if backend_for(x.device) != 'torch':  # the scan's gradient is compiled
        with pytest.raises(RuntimeError, match='functorch'):
            torch.func.jvp(backbone, (x.detach(),), (v,))
