"""Matrix products with all that follows them, on channels-last maps.

For inference: the compiled versions, for float32 on CPUs, have no gradient,
and PyTorch's serve where one is asked for.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import compiled_without_gradient
from .checks import check_inputs

# What the compiled ops serve; PyTorch serves all else.
_DTYPES = (torch.float32,)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """A linear layer, a ReLU and a sum.

    ``relu(x @ weight + bias) + residual``, in one pass.

    Args:
        x (Tensor): Input, ``(..., C)`` of two dimensions or more, floating
            point; some of the channels of a wider map do not need to be
            copied.
        weight (Tensor): ``(C, C')``.
        bias (Tensor, optional): ``(C',)``. Defaults to None.
        relu (bool): Whether a ReLU comes before the sum. Defaults to False.
        residual (Tensor, optional): ``(..., C')``. Defaults to None.

    Returns:
        Tensor: ``(..., C')``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    inputs = (x, weight, bias, residual)
    if compiled_without_gradient(_DTYPES, *inputs):
        op = torch.ops.mmmamba.linear.default
        return op(x, weight, bias, relu, residual)
    if not torch.jit.is_tracing():
        _check_linear(*inputs)
    # The order of a product's operands is that of the memory.
    flat = x.flatten(0, -2)
    if bias is None:
        y = torch.mm(flat, weight)
    else:
        y = torch.addmm(bias, flat, weight)
    y = (F.relu(y) if relu else y).unflatten(0, x.shape[:-1])
    return y if residual is None else y + residual


def feed_forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    shortcut: Tensor | None = None,
) -> Tensor:
    """Two linear layers, a ReLU between them, and their residuals.

    ``x + relu(x @ weight1 + bias1) @ weight2 + bias2 + shortcut``; the
    compiled version does not store what is between the layers.

    Args:
        x (Tensor): Input, ``(..., C)`` of two dimensions or more, floating
            point.
        weight1 (Tensor): ``(C, hidden)``.
        bias1 (Tensor): ``(hidden,)``.
        weight2 (Tensor): ``(hidden, C)``.
        bias2 (Tensor): ``(C,)``.
        shortcut (Tensor, optional): Of the shape of ``x``. Defaults to None.

    Returns:
        Tensor: Of the shape and dtype of ``x``, contiguous.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    inputs = (x, weight1, bias1, weight2, bias2, shortcut)
    if compiled_without_gradient(_DTYPES, *inputs):
        return torch.ops.mmmamba.feed_forward.default(*inputs)
    residual = x if shortcut is None else x + shortcut
    hidden = linear(x, weight1, bias1, relu=True)
    return linear(hidden, weight2, bias2, residual=residual)


def _check_linear(x, weight, bias, residual) -> None:
    op = 'linear'
    if x.dim() < 2 or x.shape[-1] == 0 or weight.dim() != 2:
        raise ValueError(
            f"{op}: x must be (..., C) and weight (C, C'), got shapes "
            f'{tuple(x.shape)} and {tuple(weight.shape)}'
        )
    if not x.is_floating_point():
        raise TypeError(f'{op}: x must be floating point, got {x.dtype}')
    width = weight.shape[1]
    check_inputs(
        op,
        x,
        weight=(weight, (x.shape[-1], width)),
        bias=(bias, (width,)),
        residual=(residual, (*x.shape[:-1], width)),
    )
