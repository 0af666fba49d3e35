"""The channels-last ops in PyTorch alone; see channels_last.py.

They run on any device, in any floating dtype, and have gradients.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .selective_scan import bidirectional_scan


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, act: str
) -> Tensor:
    """See :func:`mmmamba.ops.depthwise_conv`."""
    x = _conv(x, weight, bias, stride)
    if act == 'relu':
        x = F.relu(x)
    elif act == 'silu':
        x = F.silu(x)
    return x.contiguous()


def mixer_conv(
    x: Tensor,
    ssm: Tensor,
    wavelet_weight: Tensor | None,
    local_weight: Tensor | None,
    local_bias: Tensor | None,
    local_scale: Tensor | None,
    local_shift: Tensor | None,
) -> Tensor:
    """See :func:`mmmamba.ops.mixer_conv`."""
    global_channels = ssm.shape[-1]
    parts = [ssm.to(x.dtype)]
    if wavelet_weight is not None:
        parts[0] = parts[0] + _wavelet(
            x[..., :global_channels], wavelet_weight
        )
    rest = x[..., global_channels:]
    if local_weight is not None:
        width = local_weight.shape[-1]
        local = _conv(rest[..., :width], local_weight, local_bias)
        scale, shift = local_scale.to(x.dtype), local_shift.to(x.dtype)
        parts.append(F.relu(local) * scale + shift)
        rest = rest[..., width:]
    return F.relu(torch.cat([*parts, rest], dim=-1))


def scan_gate(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    z: Tensor,
    eps: float,
) -> Tensor:
    """See :func:`mmmamba.ops.scan_gate`."""
    projected = projected.unflatten(-1, (2, -1)).permute(0, 2, 3, 1)
    y = bidirectional_scan(
        x.transpose(1, 2), projected, dt_weight, dt_bias, A, D
    ).transpose(1, 2)
    norm_weight, norm_bias = norm_weight.to(x.dtype), norm_bias.to(x.dtype)
    y = F.layer_norm(y, y.shape[-1:], norm_weight, norm_bias, eps)
    return (y * F.silu(z)).to(x.dtype).contiguous()


def stem_conv(
    x: Tensor, weights: list[Tensor], biases: list[Tensor]
) -> Tensor:
    """See :func:`mmmamba.ops.stem_conv`."""
    x = x.contiguous(memory_format=torch.channels_last)
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        if i:
            x = F.relu(x, inplace=True)
        weight, bias = weight.permute(3, 2, 0, 1).to(x.dtype), bias.to(x.dtype)
        x = F.conv2d(x, weight, bias, stride=2, padding=1)
    # A view if the convolutions keep the memory format, as they should.
    return x.permute(0, 2, 3, 1).contiguous()


def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Convolve ``(B, H, W, C)`` with ``(k, k, C)``."""
    weight = weight.permute(2, 0, 1)[:, None].to(x.dtype)
    return F.conv2d(
        x.permute(0, 3, 1, 2),
        weight,
        None if bias is None else bias.to(x.dtype),
        stride,
        weight.shape[-1] // 2,
        groups=weight.shape[0],
    ).permute(0, 2, 3, 1)


def _wavelet(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``(B, H, W, G)`` with ``(4, k, k, G)`` in the Haar domain."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    squares = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    pixels = [squares[:, :, i, :, j] for i in range(2) for j in range(2)]
    x = _conv(torch.cat(_haar(*pixels), -1), weight.movedim(0, 2).flatten(2))
    a, b, c, d = _haar(*x.chunk(4, dim=-1))
    rows = [torch.stack([a, b], dim=3), torch.stack([c, d], dim=3)]
    x = torch.stack(rows, dim=2).flatten(3, 4).flatten(1, 2)
    return x[:, :height, :width]


def _haar(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Transform 2x2 pixels, in reading order, to the subbands or back.

    The matrix is symmetric and orthonormal, and so its own inverse.
    """
    upper, lower = a + b, c + d
    left, right = a - b, c - d
    return (
        (upper + lower) / 2,
        (upper - lower) / 2,
        (left + right) / 2,
        (left - right) / 2,
    )
