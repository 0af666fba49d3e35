"""Tests of mmmamba/necks/fpn.py."""

import pytest
import torch
import torch.nn.functional as F
from golden import published_keys, relative_error
from mmengine.registry import MODELS

from mmmamba.necks import MobileMambaFPN

RETINANET = dict(num_outs=5, num_finer=1, add_extra_convs='on_input')
MASK_RCNN = dict(num_outs=5, num_finer=2)
SETTINGS = {
    'retinanet': RETINANET,
    'mask_rcnn': MASK_RCNN,
    'pooled': dict(num_outs=6, num_finer=1),
    'two extra convs': dict(
        num_outs=6, num_finer=1, add_extra_convs='on_input'
    ),
    'plain': dict(num_outs=3, num_finer=0),
    'three finer': dict(num_outs=6, num_finer=3),
}
CHANNELS = (6, 10, 8)


def make_neck(settings, channels=CHANNELS, out_channels=4):
    torch.manual_seed(0)
    neck = MobileMambaFPN(channels, out_channels, **settings)
    for parameter in neck.parameters():  # biases as well
        torch.nn.init.normal_(parameter, 0, 0.3)
    return neck


def make_inputs(height, width, channels=CHANNELS):
    """Maps of a ``height`` x ``width`` image, sizes halved rounding up."""
    rng = torch.Generator().manual_seed(0)
    height, width = -(-height // 16), -(-width // 16)
    maps = []
    for c in channels:
        maps.append(torch.randn(2, c, height, width, generator=rng))
        height, width = -(-height // 2), -(-width // 2)
    return maps


def reference(params, inputs, num_outs, num_finer, add_extra_convs=False):
    """The definition, from a state dict."""

    def conv(name, x, **kwargs):
        weight, bias = (params[f'{name}.conv.{n}'] for n in ('weight', 'bias'))
        if 'trans' in name:
            return F.conv_transpose2d(x, weight, bias, stride=2)
        return F.conv2d(
            x, weight, bias, padding=weight.shape[-1] // 2, **kwargs
        )

    merged = [None] * 3
    for i in (2, 1, 0):
        merged[i] = conv(f'lateral_convs.{i}', inputs[i])
        if i < 2:
            height, width = merged[i].shape[2:]
            above = merged[i + 1]
            rows = torch.arange(height) * above.shape[2] // height
            columns = torch.arange(width) * above.shape[3] // width
            merged[i] = merged[i] + above[:, :, rows][..., columns]
    outs = [conv(f'fpn_convs.{i}', x) for i, x in enumerate(merged)]

    x = merged[0]
    for i in range(num_finer):
        x = conv(f'extra_trans_convs.{i}', x)
        outs.insert(0, conv(f'extra_fpn_convs.{num_finer - 1 - i}', x))

    x = inputs[2]
    for i in range(num_outs - num_finer - 3):
        if add_extra_convs:
            x = conv(f'fpn_convs.{3 + i}', x, stride=2)
            outs.append(x)
        else:
            outs.append(outs[-1][..., ::2, ::2])
    return outs


@pytest.mark.parametrize('size', [(128, 192), (250, 333), (65, 97), (64, 64)])
@pytest.mark.parametrize('name', SETTINGS)
@torch.no_grad()
def test_equals_reference(name, size):
    settings = SETTINGS[name]
    neck = make_neck(settings)
    inputs = make_inputs(*size)
    outs = neck(inputs)
    expected = reference(neck.state_dict(), inputs, **settings)
    assert isinstance(outs, tuple)
    assert len(outs) == len(expected) == settings['num_outs']
    for out, ref in zip(outs, expected):
        assert relative_error(out, ref) <= 1e-6


@pytest.mark.parametrize(
    'settings, strides',
    [(RETINANET, [8, 16, 32, 64, 128]), (MASK_RCNN, [4, 8, 16, 32, 64])],
    ids=['retinanet', 'mask_rcnn'],
)
@torch.no_grad()
def test_strides(settings, strides):
    outs = make_neck(settings)(make_inputs(256, 384))
    expected = [(2, 4, 256 // s, 384 // s) for s in strides]
    assert [tuple(out.shape) for out in outs] == expected


@pytest.mark.parametrize(
    'settings, sizes',
    [
        (RETINANET, [(32, 42), (16, 21), (8, 11), (4, 6), (2, 3)]),
        (MASK_RCNN, [(64, 84), (32, 42), (16, 21), (8, 11), (4, 6)]),
    ],
    ids=['retinanet', 'mask_rcnn'],
)
@torch.no_grad()
def test_sizes_for_an_odd_image(settings, sizes):
    """Finer levels are twice the stride-16 map, which rounds up."""
    outs = make_neck(settings)(make_inputs(250, 333))
    assert [tuple(out.shape[2:]) for out in outs] == sizes


@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn'])
def test_published_names_and_shapes(name):
    neck = MobileMambaFPN([200, 376, 448], 256, **SETTINGS[name])
    keys = published_keys(f'{name}_b1')
    expected = {
        name.removeprefix('neck.'): tuple(shape)
        for name, shape in keys.items()
        if name.startswith('neck.')
    }
    found = {n: tuple(t.shape) for n, t in neck.state_dict().items()}
    assert found == expected


@torch.no_grad()
def test_coarser_levels_are_subsampled():
    """Max-pooling with kernel 1, so without a maximum."""
    outs = make_neck(SETTINGS['pooled'])(make_inputs(512, 704))
    assert outs[3].shape[2:] == (8, 11)
    assert torch.equal(outs[4], outs[3][..., ::2, ::2])
    assert torch.equal(outs[5], outs[3][..., ::4, ::4])


def test_every_parameter_gets_a_gradient():
    for settings in (RETINANET, MASK_RCNN):
        neck = make_neck(settings)
        sum(o.square().sum() for o in neck(make_inputs(65, 97))).backward()
        for name, parameter in neck.named_parameters():
            assert parameter.grad.any(), name


def test_initialization():
    neck = MobileMambaFPN(CHANNELS, 16, **MASK_RCNN)
    neck.init_weights()
    for name, parameter in neck.named_parameters():
        if name.endswith('bias'):
            assert not parameter.any(), name
    weight = neck.fpn_convs[0].conv.weight
    bound = (6 / (2 * 16 * 9)) ** 0.5  # Xavier uniform
    assert 0.9 * bound < weight.abs().max() <= bound


def test_registered():
    cfg = dict(type='MobileMambaFPN', in_channels=CHANNELS)
    assert isinstance(MODELS.build(cfg), MobileMambaFPN)


@pytest.mark.parametrize(
    'num_outs, num_finer, message',
    [
        (3, 1, 'num_outs=3 is less than the 3 inputs and the 1 finer'),
        (2, 0, 'num_outs=2 is less than the 3 inputs and the 0 finer'),
    ],
)
def test_too_few_outputs(num_outs, num_finer, message):
    with pytest.raises(ValueError, match=message):
        MobileMambaFPN(CHANNELS, num_outs=num_outs, num_finer=num_finer)


@pytest.mark.parametrize('value', ['on_output', 'on_lateral', True])
def test_unknown_extra_convs(value):
    message = f"add_extra_convs={value!r} must be False or 'on_input'"
    with pytest.raises(ValueError, match=message):
        MobileMambaFPN(CHANNELS, add_extra_convs=value)


@pytest.mark.parametrize('number', [2, 4])
def test_wrong_number_of_inputs(number):
    neck = make_neck(RETINANET)
    inputs = (make_inputs(128, 128) * 2)[:number]
    with pytest.raises(ValueError, match=f'3 .*{number}'):
        neck(inputs)
