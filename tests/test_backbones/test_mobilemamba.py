"""Tests of mmmamba/backbones."""

import copy
import importlib
import pickle
from functools import cache

import pytest
import torch
from golden import (
    load_golden,
    published_state_dict,
    randomize,
    relative_error,
)
from mmcv.cnn import fuse_conv_bn
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba import ops
from mmmamba.backbones import MobileMamba
from mmmamba.layers import MobileMambaBlock

GOLDEN = ['t2_192x192', 's6_224x160_dist', 'b1_250x333', 'b1_256x256']
TINY = dict(base='t2', channels=(32, 48, 64), depths=(1, 1, 1))


@cache
def fresh_model(arch: str) -> MobileMamba:
    """The model as built, in eval mode; not to be changed."""
    return MobileMamba(arch).eval()


@cache
def golden_model(arch: str) -> MobileMamba:
    """The model with the weights of the goldens; not to be changed."""
    model = MobileMamba(arch).eval()
    model.load_state_dict(published_state_dict(arch))
    return model


def make_tiny(arch: dict = {}, **kwargs) -> MobileMamba:
    """A small model in eval mode, in which every parameter matters."""
    torch.manual_seed(0)
    return randomize(MobileMamba({**TINY, **arch}, **kwargs)).eval()


def make_image(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def parts(model: MobileMamba) -> list[nn.Module]:
    """What ``frozen_stages`` counts: 0 is the stem."""
    return [model.stem, *model.stages]


# ---------------------------------------------------------------------------
# The computation
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize(
    'name',
    [
        pytest.param(
            name, marks=() if name.startswith('t2') else pytest.mark.slow
        )
        for name in GOLDEN
    ],
)
@pytest.mark.usefixtures('op_backend')
@torch.no_grad()
def test_golden(name, fused):
    model = golden_model(name.split('_')[0])
    if fused:
        model = fuse_conv_bn(copy.deepcopy(model))
        assert not norms(model)
    x, expected = load_golden(name)
    outs = model(x)
    assert len(outs) == 3
    for i, out in enumerate(outs):
        error = relative_error(out, expected[f'stage{i + 1}'])
        assert error <= 2e-5, f'stage {i + 1}'


@pytest.mark.parametrize(
    'arch, millions',
    [
        ('t2', 8.84),
        pytest.param('t4', 14.18, marks=pytest.mark.slow),
        pytest.param('s6', 15.04, marks=pytest.mark.slow),
        pytest.param('b1', 17.12, marks=pytest.mark.slow),
        pytest.param('b2', 17.12, marks=pytest.mark.slow),
        pytest.param('b4', 17.12, marks=pytest.mark.slow),
    ],
)
def test_number_of_parameters(arch, millions):
    """As published: with the fixed Haar filters and the 1000-class head."""
    model = fresh_model(arch)
    width = model.channels[-1]
    head = 2 * width + 1000 * width + 1000
    count = sum(p.numel() for p in model.parameters()) + head
    assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize('size', [(64, 64), (65, 97), (66, 127), (113, 80)])
@pytest.mark.parametrize(
    'arch',
    ['t2']
    + [
        pytest.param(arch, marks=pytest.mark.slow)
        for arch in MobileMamba.arch_zoo
        if arch != 't2'
    ],
)
@torch.no_grad()
def test_output_sizes(arch, size):
    model = fresh_model(arch)
    height, width = (-(-s // 16) for s in size)
    outs = model(make_image(1, 3, *size))
    assert isinstance(outs, tuple)
    for out, channels in zip(outs, model.channels):
        assert out.shape == (1, channels, height, width)
        assert out.isfinite().all()
        height, width = -(-height // 2), -(-width // 2)


@torch.no_grad()
def test_samples_are_independent():
    model = make_tiny()
    x = make_image(3, 3, 65, 97)
    alone = [model(sample[None]) for sample in x]
    for i, out in enumerate(model(x)):
        expected = torch.cat([outs[i] for outs in alone])
        assert relative_error(out, expected) <= 1e-5


@pytest.mark.parametrize(
    'out_indices, expected',
    [((0,), [0]), ((2,), [2]), ([0, 2], [0, 2]), (1, [1])],
)
@torch.no_grad()
def test_out_indices(out_indices, expected):
    x = make_image(1, 3, 64, 80)
    every = make_tiny()(x)
    model = make_tiny(out_indices=out_indices)
    outs = model(x)
    assert model.out_indices == tuple(expected)
    assert len(outs) == len(expected)
    for out, i in zip(outs, expected):
        assert torch.equal(out, every[i])


@pytest.mark.parametrize('in_channels', [1, 4])
@torch.no_grad()
def test_in_channels(in_channels):
    model = make_tiny(in_channels=in_channels)
    assert model(make_image(2, in_channels, 64, 64))[2].shape == (2, 64, 1, 1)


@torch.no_grad()
def test_channels_last():
    model = make_tiny(dict(directions=4))
    x = make_image(2, 3, 65, 97)
    expected = model(x)
    channels_last = torch.channels_last
    for m in (model, copy.deepcopy(model).to(memory_format=channels_last)):
        outs = m(x.to(memory_format=channels_last))
        for out, ref in zip(outs, expected):
            assert relative_error(out, ref) <= 1e-5


# ---------------------------------------------------------------------------
# Archs
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('arch', ['T2', 'S6', 'B4'])
def test_case_of_the_arch_does_not_matter(arch):
    expected = fresh_model(arch.lower()).arch
    assert MobileMamba(arch).arch == expected
    assert MobileMamba({**TINY, 'base': arch}).arch == {
        **expected,
        'channels': TINY['channels'],
        'depths': TINY['depths'],
    }


def test_dict_starts_from_b1_unless_told_otherwise():
    expected = {**MobileMamba.arch_zoo['b1'], 'channels': (16, 16, 16)}
    assert MobileMamba(dict(channels=(16, 16, 16))).arch == expected


def test_dict_completes_its_base():
    given = dict(base='s6', depths=[2, 1, 1])
    model = MobileMamba(given)
    zoo = MobileMamba.arch_zoo
    assert given == dict(base='s6', depths=[2, 1, 1])
    assert zoo['s6']['depths'] == (1, 2, 2)
    assert model.arch == {**zoo['s6'], 'depths': (2, 1, 1)}


def first_mixer(model):
    return model.stages[0].blocks[0].mixer


@pytest.mark.parametrize(
    'arch, found, expected',
    [
        (
            dict(channels=[16, 24, 40]),
            lambda m: [s.blocks[0].mixer.proj.out_channels for s in m.stages],
            [16, 24, 40],
        ),
        (
            dict(depths=(2, 1, 3)),
            lambda m: [len(s.blocks) for s in m.stages],
            [2, 1, 3],
        ),
        (
            dict(global_ratio=(0.5, 0.7, 0.3)),
            lambda m: [s.blocks[0].mixer.split[0] for s in m.stages],
            [16, 32, 16],
        ),
        (
            dict(global_ratio=(0.5,) * 3, local_ratio=(0, 0.25, 0.5)),
            lambda m: [s.blocks[0].mixer.split[1] for s in m.stages],
            [0, 12, 32],
        ),
        (
            dict(kernel_sizes=(3, 9, 1)),
            lambda m: [
                s.blocks[0].mixer.global_branch.wavelet.conv.kernel_size[0]
                for s in m.stages
            ],
            [3, 9, 1],
        ),
        (
            dict(kernel_sizes=(3, 9, 1), global_ratio=(0.5,) * 3),
            lambda m: [
                s.blocks[0].mixer.local_branch.parts[0][0].kernel_size[0]
                for s in m.stages
            ],
            [3, 9, 1],
        ),
        (
            dict(ssm_ratio=1.5),
            lambda m: first_mixer(m).global_branch.ssm.out_norm.weight.shape,
            (48,),
        ),
        (
            dict(d_state=4),
            lambda m: first_mixer(m).global_branch.ssm.A_log.shape,
            (128, 4),
        ),
        (
            dict(directions=1),
            lambda m: first_mixer(m).global_branch.ssm.x_proj_weight.shape,
            (1, 4, 64),
        ),
        (
            dict(directions=4),
            lambda m: first_mixer(m).global_branch.ssm.x_proj_weight.shape,
            (4, 4, 64),
        ),
        (
            dict(num_parts=3, global_ratio=(0.5,) * 3),
            lambda m: len(first_mixer(m).local_branch.parts),
            3,
        ),
        (
            dict(wavelet=False),
            lambda m: any('wavelet' in name for name in m.state_dict()),
            False,
        ),
    ],
    ids=lambda v: ' '.join(v) if isinstance(v, dict) else '',
)
def test_settings_of_a_dict(arch, found, expected):
    model = make_tiny(arch)
    assert found(model) == expected
    x = make_image(2, 3, 65, 97)
    outs = model.train()(x)
    sum(out.square().mean() for out in outs).backward()
    for out, width, size in zip(
        outs, model.channels, [(5, 7), (3, 4), (2, 2)]
    ):
        assert out.shape == (2, width, *size)
        assert out.isfinite().all()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    'arch, drop_path_rate, highest',
    [
        ('t2', None, 0.0),
        ('b1', None, 0.03),
        ('b1', 0.3, 0.3),
        ('b1', 0.0, 0.0),
        (dict(depths=(1, 3, 2), drop_path_rate=0.2), None, 0.2),
        (dict(depths=(1, 3, 2), drop_path_rate=0.2), 0.1, 0.1),
    ],
)
def test_drop_path_rises_linearly(arch, drop_path_rate, highest):
    model = MobileMamba(arch, drop_path_rate=drop_path_rate)
    rates = [b.drop_path.drop_prob for s in model.stages for b in s.blocks]
    last = sum(model.arch['depths']) - 1
    expected = [highest * i / last for i in range(last + 1)]
    assert rates == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('arch', ['x9', '', 'b3', None, 2, dict(base='x9')])
def test_unknown_arch(arch):
    message = r'unknown arch .*; choose one of t2, t4, s6, b1, b2, b4 or'
    with pytest.raises(ValueError, match=message):
        MobileMamba(arch)


def test_unknown_setting():
    message = 'unknown arch setting depth, widths; the settings are base, '
    with pytest.raises(ValueError, match=message):
        MobileMamba(dict(depth=(1, 1, 1), widths=(16, 16, 16), d_state=2))


@pytest.mark.parametrize(
    'setting, value, meaning',
    [
        ('channels', (32, 48), 'three widths of at least 16'),
        ('channels', (36, 48, 64), 'three widths'),
        ('channels', (8, 48, 64), 'at least 16'),
        ('channels', (32, 48, 64.0), 'three widths'),
        ('channels', 32, 'three widths'),
        ('channels', 'abc', 'three widths'),
        ('depths', (0, 1, 1), 'three numbers of blocks, at least 1'),
        ('depths', (1, 1, 1, 1), 'three numbers of blocks'),
        ('depths', (1.5, 1, 1), 'three numbers of blocks'),
        ('depths', 2, 'three numbers of blocks'),
        ('global_ratio', (0, 0.5, 0.5), r'three shares within \(0, 1\]'),
        ('global_ratio', (0.5, 0.5, 1.1), r'three shares within \(0, 1\]'),
        ('global_ratio', 0.5, r'three shares within \(0, 1\]'),
        ('local_ratio', (-0.1, 0, 0), r'three shares within \[0, 1\)'),
        ('local_ratio', (0, 0, 1), r'three shares within \[0, 1\)'),
        ('kernel_sizes', (4, 3, 3), 'three odd sizes'),
        ('kernel_sizes', (-3, 3, 3), 'three odd sizes'),
        ('kernel_sizes', (3.0, 3, 3), 'three odd sizes'),
        ('kernel_sizes', 3, 'three odd sizes'),
        ('drop_path_rate', 1, r'within \[0, 1\)'),
        ('drop_path_rate', -0.1, r'within \[0, 1\)'),
        ('drop_path_rate', '0.1', r'within \[0, 1\)'),
        ('ssm_ratio', 0, 'positive'),
        ('ssm_ratio', (2, 2, 2), 'positive'),
        ('d_state', 0, '1 to 256'),
        ('d_state', 257, '1 to 256'),
        ('d_state', 1.5, '1 to 256'),
        ('directions', 3, '1, 2 or 4'),
        ('directions', 'v2', '1, 2 or 4'),
        ('num_parts', 0, 'at least 1'),
        ('num_parts', 1.5, 'at least 1'),
        ('wavelet', 'yes', 'True or False'),
        ('wavelet', 1, 'True or False'),
    ],
)
def test_invalid_setting(setting, value, meaning):
    with pytest.raises(
        ValueError, match=f'arch setting {setting}=.* must be .*{meaning}'
    ):
        MobileMamba({**TINY, setting: value})


@pytest.mark.parametrize(
    'arch, message',
    [
        (dict(global_ratio=(0.1, 0.5, 0.5)), 'global_ratio=0.1 of 32 chan'),
        (dict(num_parts=7, global_ratio=(0.5,) * 3), 'num_parts'),
        (dict(ssm_ratio=0.01), 'ssm_ratio'),
    ],
)
def test_settings_that_leave_no_channel(arch, message):
    with pytest.raises(ValueError, match=message):
        MobileMamba({**TINY, **arch})


@pytest.mark.parametrize('rate', [-0.1, 1.0, 1.5])
def test_invalid_drop_path_rate(rate):
    """As an argument it is held to the bounds it has in an arch."""
    with pytest.raises(ValueError, match='drop_path_rate'):
        MobileMamba(TINY, drop_path_rate=rate)


# ---------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------


def test_init_weights_keeps_the_initialization():
    model = MobileMamba(TINY)
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_frozen_stages(frozen_stages):
    model = make_tiny(frozen_stages=frozen_stages)
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert model.training == mode
        for i, part in enumerate(parts(model)):
            frozen = i <= frozen_stages
            for name, parameter in part.named_parameters():
                fixed = frozen or name.endswith(('filter', 'inverse_filter'))
                assert parameter.requires_grad != fixed
            for module in part.modules():
                assert module.training == (mode and not frozen)


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 3])
def test_training_leaves_frozen_stages_alone(frozen_stages):
    model = make_tiny(frozen_stages=frozen_stages).train()
    before = copy.deepcopy(model)
    outs = model(make_image(2, 3, 96, 64))
    assert outs[-1].requires_grad == (frozen_stages < 3)
    if frozen_stages < 3:
        sum(out.square().mean() for out in outs).backward()
    for i, (part, old) in enumerate(zip(parts(model), parts(before))):
        frozen = i <= frozen_stages
        assert all(
            (p.grad is None) == (frozen or not p.requires_grad)
            for p in part.parameters()
        )
        for norm, old_norm in zip(norms(part), norms(old)):
            same = torch.equal(norm.running_mean, old_norm.running_mean)
            assert same == frozen


def test_train_freezes_what_was_unfrozen():
    model = make_tiny(frozen_stages=1)
    model.requires_grad_(True)
    model.train()
    assert not any(p.requires_grad for p in model.stages[0].parameters())


@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval(norm_eval):
    model = make_tiny(norm_eval=norm_eval).eval()
    model.train()
    assert norms(model)
    assert all(norm.training != norm_eval for norm in norms(model))
    assert all(b.drop_path.training for s in model.stages for b in s.blocks)
    assert all(norm.weight.requires_grad for norm in norms(model))
    assert not any(norm.training for norm in norms(model.eval()))


@pytest.mark.parametrize('frozen_stages', [-1, 1])
def test_activation_checkpointing(frozen_stages):
    """A block with gradients runs twice, and the gradients are the same."""
    calls, gradients, outputs = [], [], []
    for with_cp in (False, True):
        model = make_tiny(
            dict(depths=(1, 2, 2)),
            drop_path_rate=0.5,
            frozen_stages=frozen_stages,
            with_cp=with_cp,
        ).train()
        calls.append(0)

        def count(*args):
            calls[-1] += 1

        for module in model.modules():
            if isinstance(module, MobileMambaBlock):
                module.register_forward_pre_hook(count)
        torch.manual_seed(1)
        outs = model(make_image(4, 3, 96, 64))
        sum(out.square().mean() for out in outs).backward()
        outputs.append(outs)
        gradients.append(
            {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
        )
    assert calls == [5, 9 if frozen_stages == 1 else 10]
    for out, expected in zip(*reversed(outputs)):
        assert torch.equal(out, expected)
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    for name, grad in plain.items():
        assert grad.any(), name
        assert relative_error(checkpointed[name], grad) <= 1e-6, name


@torch.no_grad()
def test_activation_checkpointing_is_off_without_gradients():
    x = make_image(1, 3, 64, 64)
    for out, expected in zip(make_tiny(with_cp=True)(x), make_tiny()(x)):
        assert torch.equal(out, expected)


@pytest.mark.parametrize('directions', [2, 4])
def test_autocast(directions, op_backend, monkeypatch):
    """bfloat16 but for the scan, which computes in float32."""
    name = 'bidirectional_scan' if directions == 2 else 'selective_scan'
    scan = getattr(ops, name)
    scans = []

    def spy(*args, **kwargs):
        y = scan(*args, **kwargs)
        scans.append((args, kwargs, y))
        return y

    model = make_tiny(dict(d_state=2, directions=directions))
    x = make_image(2, 3, 128, 160)
    expected = model(x)
    monkeypatch.setattr(f'mmmamba.layers.ssm.{name}', spy)
    with torch.autocast('cpu', torch.bfloat16):
        outs = model(x)
    sum(out.float().square().mean() for out in outs).backward()
    for out, ref in zip(outs, expected):
        assert relative_error(out, ref) <= 0.05
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.isfinite().all(), name

    assert len(scans) == 3
    for args, kwargs, y in scans:
        x, projected, *parameters = args
        assert x.dtype == projected.dtype == torch.bfloat16  # autocast was on
        A = parameters[2 if directions == 2 else 0]
        assert A.dtype == torch.float32
        kwargs = {
            k: v.float() if isinstance(v, torch.Tensor) else v
            for k, v in kwargs.items()
        }
        full = scan(*(t.float() for t in args), **kwargs)
        assert torch.equal(y, full.to(y.dtype))


@torch.no_grad()
@pytest.mark.slow
def test_sync_bn():
    model = make_tiny(norm_cfg=dict(type='SyncBN', requires_grad=True))
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(model))
    plain = make_tiny()
    model.load_state_dict(plain.state_dict())
    x = make_image(1, 3, 64, 80)
    for out, expected in zip(model(x), plain(x)):
        assert relative_error(out, expected) <= 1e-6


# ---------------------------------------------------------------------------
# The model as a component
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
@pytest.mark.slow
def test_registered_in_every_toolbox(scope):
    pytest.importorskip(scope)
    registry = importlib.import_module(f'{scope}.registry')
    with DefaultScope.overwrite_default_scope(scope):
        model = registry.MODELS.build(
            dict(type='MobileMamba', arch='t2', out_indices=(2,))
        )
    assert isinstance(model, MobileMamba)
    assert model.out_indices == (2,)


@pytest.mark.parametrize(
    'duplicate',
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=['deepcopy', 'pickle'],
)
@torch.no_grad()
@pytest.mark.slow
def test_duplicates_are_models_of_their_own(duplicate):
    """Their loading of published names does not depend on the original."""
    original = MobileMamba('t2').eval()
    twin = duplicate(original)
    original.stages = original.stages[:1]
    twin.load_state_dict(published_state_dict('t2'))
    x, expected = load_golden('t2_192x192')
    assert relative_error(twin(x)[2], expected['stage3']) <= 2e-5


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@torch.no_grad()
@pytest.mark.slow
def test_jit_trace():
    model = make_tiny(dict(directions=4))
    x = make_image(2, 3, 65, 97)
    traced = torch.jit.trace(model, x[:1], check_trace=False)
    x = x[1:]
    for out, expected in zip(traced(x), model(x)):
        assert relative_error(out, expected) <= 1e-6


@pytest.mark.parametrize(
    'out_indices, shown',
    [
        ((3,), r'\(3,\)'),
        ([0, 3], r'\(0, 3\)'),
        ((-1,), r'\(-1,\)'),
        (-1, r'\(-1,\)'),
        ((), r'\(\)'),
    ],
)
def test_invalid_out_indices(out_indices, shown):
    with pytest.raises(
        ValueError, match=f'out_indices={shown} must name .* 3 stages, 0 to 2'
    ):
        MobileMamba(TINY, out_indices=out_indices)


@pytest.mark.parametrize('frozen_stages', [-2, 4, 1.5])
def test_invalid_frozen_stages(frozen_stages):
    with pytest.raises(
        ValueError, match=f'frozen_stages={frozen_stages} must be -1 .* to 3'
    ):
        MobileMamba(TINY, frozen_stages=frozen_stages)


@pytest.mark.parametrize('size', [(1, 1), (32, 288), (65, 63)])
def test_any_size(size):
    """Each map has half the size of the one before, rounded up."""
    outs = make_tiny().eval()(torch.rand(2, 3, *size))
    for out, stride in zip(outs, (16, 32, 64)):
        assert out.shape[2:] == tuple(-(-side // stride) for side in size)
        assert out.isfinite().all()


@pytest.mark.parametrize(
    'shape, message',
    [
        ((1, 3, 0, 64), 'images with pixels, got 0x64'),
        ((1, 3, 64, 0), 'images with pixels, got 64x0'),
        ((3, 64, 64), r'\(B, 3, H, W\), got a 3-D tensor of shape \(3, 64'),
        ((1, 1, 3, 64, 64), r'\(B, 3, H, W\), got a 5-D tensor of shape \(1'),
        ((1, 4, 64, 64), r'in_channels=3, got an input of 4 channels'),
        ((1, 64, 64, 3), r'in_channels=3, got an input of 64 channels'),
    ],
)
def test_invalid_input(shape, message):
    with pytest.raises(ValueError, match=message):
        make_tiny()(torch.zeros(shape))


def test_layer_wise_learning_rates():
    """The stem, each block, and the head, by mmpretrain's constructor."""
    optimizers = pytest.importorskip('mmpretrain.engine.optimizers')
    from mmpretrain.models import ImageClassifier

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = ImageClassifier(
            backbone=dict(
                type='MobileMamba',
                arch=dict(base='t2', channels=(16, 24, 32), depths=(1, 2, 1)),
                out_indices=(2,),
            ),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=2, in_channels=32),
        )
    constructor = optimizers.LearningRateDecayOptimWrapperConstructor(
        dict(optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1)),
        dict(layer_decay_rate=0.5),
    )
    groups = constructor(model).optimizer.param_groups
    rates = {group['param_name']: group['lr'] for group in groups}
    trained = [p for p in model.parameters() if p.requires_grad]
    assert len(rates) == len(trained)
    expected = {
        'backbone.stem.': 0.5**5,
        'backbone.stages.0.': 0.5**4,
        'backbone.stages.1.transition.': 0.5**3,
        'backbone.stages.1.blocks.0.': 0.5**3,
        'backbone.stages.1.blocks.1.': 0.5**2,
        'backbone.stages.2.': 0.5,
        'head.': 1.0,
    }
    for name, rate in rates.items():
        (prefix,) = filter(name.startswith, expected)
        assert rate == expected[prefix], name
