"""Tests of the channels-last ops against the plain layers in float64."""

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from torch import Tensor, nn

from mmmamba.layers.multi_kernel_conv import MultiKernelDWConv
from mmmamba.layers.ssm import SSM
from mmmamba.layers.wavelet import WaveletConv
from mmmamba.ops import depthwise_conv, mixer_conv, scan_gate

# (batch, height, width): one pixel, one column, one row, odd and even sizes,
# and one that is wider than the kernels' blocks.
SIZES = [(1, 1, 1), (2, 5, 1), (1, 1, 6), (2, 3, 3), (1, 7, 14), (1, 6, 37)]
# Fewer than the lanes of any vector, as many, and some more.
CHANNELS = [3, 16, 37]


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def slice_of_wider(x: Tensor) -> Tensor:
    """The same numbers as some of the channels of a wider map."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 5), torch.nan)
    wide = wide.to(x.dtype)
    wide[..., 2 : 2 + x.shape[-1]] = x
    return wide[..., 2 : 2 + x.shape[-1]]


def rows_apart(x: Tensor) -> Tensor:
    """The same numbers as every other row and column of a larger map."""
    large = x.repeat_interleave(2, 1)
    return (
        large.repeat_interleave(2, 2)[:, ::2, ::2]
        if x.dim() == 4
        else (large[:, ::2])
    )


def permuted(x: Tensor) -> Tensor:
    """The same numbers with the channels far apart."""
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


LAYOUTS = [torch.clone, slice_of_wider, rows_apart, permuted]


def check(found: Tensor, expected: Tensor, bound: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= bound


# ---------------------------------------------------------------------------
# Depthwise convolution
# ---------------------------------------------------------------------------


def conv_inputs(size, channels: int, kernel: int) -> list[Tensor]:
    batch, height, width = size
    return [
        torch.randn(batch, height, width, channels),
        torch.randn(kernel, kernel, channels),
        torch.randn(channels),
    ]


def conv_reference(x, weight, bias, stride=1, act='none') -> Tensor:
    channels, kernel = weight.shape[-1], weight.shape[0]
    conv = nn.Conv2d(
        *(channels, channels, kernel, stride, kernel // 2),
        groups=channels,
        bias=bias is not None,
    ).double()
    conv.weight.data.copy_(weight.permute(2, 0, 1)[:, None])
    if bias is not None:
        conv.bias.data.copy_(bias)
    y = conv(x.double().permute(0, 3, 1, 2)).detach()
    y = {'none': lambda y: y, 'relu': F.relu, 'silu': F.silu}[act](y)
    return channels_last(y)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_depthwise_conv(op_backend, size, channels, kernel):
    inputs = conv_inputs(size, channels, kernel)
    for stride in (1, 2):
        check(
            depthwise_conv(*inputs, stride=stride),
            conv_reference(*inputs, stride),
        )


@pytest.mark.parametrize('act', ['none', 'relu', 'silu'])
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('stride', [1, 2])
def test_activation(op_backend, act, channels, stride):
    x, weight, bias = conv_inputs((2, 9, 11), channels, 3)
    x = 10 * x
    for b in (bias, None):
        check(
            depthwise_conv(x, weight, b, stride, act),
            conv_reference(x, weight, b, stride, act),
        )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', CHANNELS)
def test_layout_of_conv(op_backend, layout, channels):
    x, weight, bias = conv_inputs((2, 5, 7), channels, 3)
    found = depthwise_conv(layout(x), layout(weight), bias)
    check(found, conv_reference(x, weight, bias))
    if op_backend == 'cpp' and channels >= 16:
        assert torch.equal(found, depthwise_conv(x, weight, bias))


# ---------------------------------------------------------------------------
# Mixer
# ---------------------------------------------------------------------------


def mixer_case(size, split, kernel: int, wavelet: bool = True) -> tuple:
    """Inputs of the op, and what the layers make of them."""
    batch, height, width = size
    x = torch.randn(batch, sum(split), height, width).double()
    ssm = torch.randn(batch, split[0], height, width).double()
    x_global, x_local, x_rest = x.split(split, dim=1)
    parts = [ssm]
    weights = [None] * 5
    if wavelet:
        layer = WaveletConv(split[0], kernel).double()
        nn.init.normal_(layer.conv.weight)
        nn.init.normal_(layer.scale)
        parts = [ssm + layer(x_global)]
        weight = layer.conv.weight[:, 0] * layer.scale.view(-1, 1, 1)
        weights[0] = weight.unflatten(0, (-1, 4)).permute(1, 2, 3, 0)
    if split[1]:
        layer = MultiKernelDWConv(split[1], kernel).double().eval()
        (conv, pointwise) = layer.parts[0]
        for module in (conv.norm, pointwise.norm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        parts.append(layer(x_local))
        scale = (1 + conv.norm.eps) ** -0.5
        weight = conv.conv.weight[:, 0].permute(1, 2, 0)
        weights[1:] = (
            weight * (scale * conv.norm.weight),
            conv.norm.bias,
            pointwise.conv.weight.flatten() * scale * pointwise.norm.weight,
            pointwise.norm.bias,
        )
    expected = F.relu(torch.cat([*parts, x_rest], dim=1))
    inputs = [channels_last(x), channels_last(ssm), *weights]
    inputs = [
        None if t is None else t.detach().float().contiguous() for t in inputs
    ]
    return inputs, channels_last(expected).detach()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'split', [[16, 3, 1], [3, 0, 4], [37, 20, 0], [32, 16, 16]]
)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_mixer_conv(op_backend, size, split, kernel):
    inputs, expected = mixer_case(size, split, kernel)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('split', [[16, 3, 1], [37, 20, 0], [5, 0, 0]])
def test_mixer_without_wavelet(op_backend, split):
    inputs, expected = mixer_case((2, 4, 7), split, 3, wavelet=False)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('split', [[16, 16, 16], [3, 9, 5]])
def test_layout_of_mixer(op_backend, layout, split):
    inputs, expected = mixer_case((2, 5, 7), split, 3)
    x, ssm, *weights = inputs
    found = mixer_conv(layout(x), layout(ssm), *weights)
    check(found, expected)
    if op_backend == 'cpp' and min(split) >= 16:
        assert torch.equal(found, mixer_conv(*inputs))


# ---------------------------------------------------------------------------
# Scan and gate
# ---------------------------------------------------------------------------


def scan_case(size, channels: int, d_state: int = 1) -> tuple:
    """Inputs of the op, and what the layer makes of them."""
    batch, height, width = size
    layer = SSM(channels, d_state=d_state).double().eval()
    for parameter in (layer.A_log, layer.D, *layer.out_norm.parameters()):
        nn.init.normal_(parameter)
    inner = 2 * channels
    x = torch.randn(batch, inner, height, width).double()
    z = torch.randn(batch, inner, height, width).double()
    y = layer.scan(x)
    y = layer.out_norm(y.transpose(1, 2)) * F.silu(z.flatten(2)).mT
    x, z = x.flatten(2).mT, z.flatten(2).mT
    inputs = [
        x,
        x @ layer.x_proj_weight.flatten(0, 1).mT,
        layer.dt_proj_weight,
        layer.dt_proj_bias,
        -layer.A_log.exp(),
        layer.D,
        layer.out_norm.weight,
        layer.out_norm.bias,
        z,
    ]
    return [t.detach().float().contiguous() for t in inputs], y.detach()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', [1, 5, 16, 37])
@pytest.mark.parametrize('d_state', [1, 3])
def test_scan_gate(op_backend, size, channels, d_state):
    inputs, expected = scan_case(size, channels, d_state)
    check(scan_gate(*inputs), expected, 1e-5)


def test_epsilon(op_backend):
    """It is what is left where all channels are alike."""
    inputs, _ = scan_case((1, 2, 3), 8)
    x, projected, dt_weight, *_ = inputs
    inputs[1] = projected * 0
    inputs[5] = torch.ones(inputs[5].shape)
    inputs[0] = torch.zeros_like(x)
    inputs[0][..., 0] = 1
    for eps in (1e-5, 1.0):
        y = 2 * inputs[0].double()
        y = F.layer_norm(
            y, y.shape[-1:], inputs[6].double(), inputs[7].double(), eps
        )
        expected = y * F.silu(inputs[8].double())
        check(scan_gate(*inputs, eps), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', [5, 16])
def test_layout_of_scan(op_backend, layout, channels):
    inputs, expected = scan_case((2, 5, 4), channels)
    moved = list(inputs)
    for i in (0, 1, 8):
        moved[i] = layout(inputs[i])
    found = scan_gate(*moved)
    check(found, expected, 1e-5)
    if op_backend == 'cpp' and 2 * channels >= 16:
        assert torch.equal(found, scan_gate(*inputs))
