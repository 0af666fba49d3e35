"""Depthwise convolution of a channels-last map, with its activation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import inference_op_serves
from .shapes import Shapes


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    act: str = 'none',
) -> Tensor:
    """Depthwise convolution with "same" padding, and an activation.

    Args:
        x (Tensor): Input, ``(B, H, W, C)``, floating point; some of the
            channels of a wider map do not need to be copied.
        weight (Tensor): ``(k, k, C)``, k odd; the compiled version has 1, 3,
            5 and 7.
        bias (Tensor, optional): ``(C,)``. Defaults to None.
        stride (int): 1 or 2. Defaults to 1.
        act (str): ``none``, ``relu`` or ``silu``. Defaults to ``none``.

    Returns:
        Tensor: ``(B, ceil(H/stride), ceil(W/stride), C)``, contiguous, in the
        dtype of ``x``.

    Raises:
        ValueError: If a shape, ``stride`` or ``act`` does not fit, or the
            inputs are on different devices.
        TypeError: If an input is not floating point.
    """
    if inference_op_serves(x, weight, bias, kernels=(weight,), cuda=True) and (
        stride == 1 or weight.shape[0] == 3
    ):
        op = torch.ops.mmmamba.depthwise_conv.default
        return op(x, weight, bias, stride, act)
    if not torch.jit.is_tracing():
        shapes = Shapes('depthwise_conv')
        shapes.check(
            x=(x, 'B H>=1 W>=1 C>=1'),
            weight=(weight, 'k k C'),
            bias=(bias, 'C'),
        )
        k = shapes['k']
        shapes.require(k % 2 == 1, f'weight must have an odd size k, got {k}')
        shapes.require(
            stride in (1, 2), f'stride must be 1 or 2, got {stride}'
        )
        shapes.require(
            act in ('none', 'relu', 'silu'),
            f'act must be none, relu or silu, got {act}',
        )
    x = conv_torch(x, weight, bias, stride)
    if act == 'relu':
        x = F.relu(x)
    elif act == 'silu':
        x = F.silu(x)
    return x.contiguous()


def conv_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1
) -> Tensor:
    """Convolve ``(B, H, W, C)`` with ``(k, k, C)``, in PyTorch alone."""
    weight = weight.permute(2, 0, 1)[:, None].to(x.dtype)
    return F.conv2d(
        x.permute(0, 3, 1, 2),
        weight,
        None if bias is None else bias.to(x.dtype),
        stride,
        weight.shape[-1] // 2,
        groups=weight.shape[0],
    ).permute(0, 2, 3, 1)
