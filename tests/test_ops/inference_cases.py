"""Inputs of the ops for inference, and what plain layers make of them.

What is expected is computed in float64 by layers of PyTorch, or by the trained
layers.
"""

import inspect

import torch
import torch.nn.functional as F
from golden import relative_error
from torch import Tensor, nn

from mmmamba import ops
from mmmamba.layers.multi_kernel_conv import MultiKernelDWConv
from mmmamba.layers.ssm import SSM
from mmmamba.layers.wavelet import WaveletConv

# (batch, height, width): one pixel, one column, one row, odd and even sizes,
# and one that is wider than what a kernel computes at once.
SIZES = [(1, 1, 1), (2, 5, 1), (1, 1, 6), (2, 3, 3), (1, 7, 14), (1, 6, 37)]
# Fewer than the lanes of any vector, as many, and some more.
CHANNELS = [3, 16, 37]


def check(found: Tensor, expected: Tensor, bound: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= bound


# ---------------------------------------------------------------------------
# Layouts: the same values, stored otherwise
# ---------------------------------------------------------------------------


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def slice_of_wider(x: Tensor) -> Tensor:
    """As some of the channels of a wider map."""
    wide = x.new_full((*x.shape[:-1], x.shape[-1] + 5), torch.nan)
    wide[..., 2 : 2 + x.shape[-1]] = x
    return wide[..., 2 : 2 + x.shape[-1]]


def rows_apart(x: Tensor) -> Tensor:
    """As every other row and column of a larger map."""
    large = x.repeat_interleave(2, 1)
    if x.dim() != 4:
        return large[:, ::2]
    return large.repeat_interleave(2, 2)[:, ::2, ::2]


def permuted(x: Tensor) -> Tensor:
    """With the channels far apart."""
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


LAYOUTS = [torch.clone, slice_of_wider, rows_apart, permuted]


# ---------------------------------------------------------------------------
# The ops
# ---------------------------------------------------------------------------


def conv_inputs(size, channels: int, kernel: int) -> list[Tensor]:
    """Of ``depthwise_conv``: x, weight and bias."""
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


def mixer_case(size, split, kernel: int, wavelet: bool = True) -> tuple:
    """Inputs of ``mixer_conv``, and what the layers make of them."""
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


def scan_gate_case(size, channels: int, d_state: int = 1) -> tuple:
    """Inputs of ``scan_gate``, and what the layer makes of them."""
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


def stem(x: Tensor, *parameters: Tensor) -> Tensor:
    """``stem_conv``, with weight and bias of each convolution in turn."""
    return ops.stem_conv(x, parameters[::2], parameters[1::2])


def stem_case(size, *channels: int) -> tuple:
    """Inputs of the above, and what PyTorch makes of them."""
    batch, height, width = size
    x = torch.randn(batch, 3, height, width)
    inputs, expected = [x], x.double()
    for i, (before, after) in enumerate(zip((3, *channels), channels)):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1).double()
        expected = conv(expected.relu() if i else expected)
        weight = conv.weight.detach().permute(2, 3, 1, 0)
        inputs += [weight.float().contiguous(), conv.bias.detach().float()]
    return inputs, channels_last(expected).detach()


def linear_inputs(rows: int, channels: int, out: int) -> list[Tensor]:
    """Of ``linear``: x, weight, bias and residual."""
    return [
        torch.randn(rows, channels),
        torch.randn(channels, out),
        torch.randn(out),
        torch.randn(rows, out),
    ]


def linear_reference(x, weight, bias=None, relu=False, residual=None):
    y = F.linear(
        x.double(),
        weight.double().t(),
        None if bias is None else bias.double(),
    )
    y = F.relu(y) if relu else y
    return y if residual is None else y + residual


def mlp_inputs(rows: int, channels: int, hidden: int) -> list[Tensor]:
    """Of ``feed_forward``: x, and both layers' weights and biases."""
    return [
        torch.randn(rows, channels),
        torch.randn(channels, hidden),
        torch.randn(hidden),
        torch.randn(hidden, channels),
        torch.randn(channels),
    ]


def feed_forward_reference(x, w1, b1, w2, b2, shortcut=None):
    y = linear_reference(linear_reference(x, w1, b1, True), w2, b2)
    y = y + x
    return y if shortcut is None else y + shortcut


def block_inputs() -> dict:
    """Of ``block``: 60 of 100 channels pass the SSM, and 30 the local part."""

    def normal(*shapes):
        return [torch.randn(shape) for shape in shapes]

    conv = [(3, 3, 100), (100,)]
    ffn = [(100, 200), (200,), (200, 100), (100,)]
    ssm = [(60, 240), (240,), (3, 3, 120), (120,), (120, 12), (2, 4, 120)]
    ssm += [(2, 120), (240, 1), (240,), (120,), (120,), (120, 60), (60,)]
    return dict(
        x=torch.randn(1, 5, 6, 100),
        conv1=normal(*conv),
        ffn1=normal(*ffn),
        ssm=normal(*ssm),
        wavelet=torch.randn(4, 3, 3, 60),
        local=normal((3, 3, 30), (30,), (30,), (30,)),
        proj=normal((100, 100), (100,)),
        conv2=normal(*conv),
        ffn2=normal(*ffn),
        eps=1e-5,
    )


# ---------------------------------------------------------------------------
# One case of each
# ---------------------------------------------------------------------------

OPS = ['depthwise_conv', 'mixer_conv', 'scan_gate', 'stem_conv']


def case(name: str, size=(2, 5, 7), channels: int = 37) -> tuple:
    """The function, inputs of it, and whatever else it takes."""
    if name == 'depthwise_conv':
        inputs = conv_inputs(size, channels, 3)
        return ops.depthwise_conv, inputs, (2, 'silu')
    if name == 'mixer_conv':
        split = [channels, channels - 1, 5]
        return ops.mixer_conv, mixer_case(size, split, 3)[0], ()
    if name == 'stem_conv':
        return stem, stem_case(size, *3 * [channels])[0], ()
    return ops.scan_gate, scan_gate_case(size, channels)[0], (1e-5,)


def arguments(name: str, inputs: list, others: tuple) -> tuple:
    """What the registered op takes."""
    if name == 'stem_conv':
        return (inputs[0], inputs[1::2], inputs[2::2])
    return (*inputs, *others)


def good_inputs(name: str, size=(2, 5, 7), channels: int = 37) -> dict:
    """Arguments of the public function, in the order of the op's schema."""
    _, inputs, others = case(name, size, channels)
    names = inspect.signature(getattr(ops, name)).parameters
    return dict(zip(names, arguments(name, inputs, others), strict=True))
