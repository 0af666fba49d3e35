"""Two linear layers with a ReLU between them and residuals: an FFN."""

import torch
from torch import Tensor

from .backend import inference_op_serves
from .linear import linear
from .packed_weight import is_packed
from .shapes import Shapes


def feed_forward(
    x: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    shortcut: Tensor | None = None,
) -> Tensor:
    """Two linear layers, a ReLU between them, and their residuals.

    ``x + relu(x @ weight1 + bias1) @ weight2 + bias2 + shortcut``. The
    compiled version, for float32, does not store what is between the layers.

    Args:
        x (Tensor): Input, ``(B, ..., C)``, floating point.
        weight1 (Tensor): ``(C, hidden)``, or packed as that of
            :func:`linear`.
        bias1 (Tensor): ``(hidden,)``.
        weight2 (Tensor): ``(hidden, C)``, or packed.
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
    if inference_op_serves(*inputs, dtypes=(torch.float32,)):
        return torch.ops.mmmamba.feed_forward.default(*inputs)
    if not torch.jit.is_tracing():
        Shapes('feed_forward').check(
            x=(x, '... C>=1'),
            weight1=(None if is_packed(weight1) else weight1, 'C hidden>=1'),
            bias1=(bias1, 'hidden'),
            weight2=(None if is_packed(weight2) else weight2, 'hidden C'),
            bias2=(bias2, 'C'),
            shortcut=(shortcut, '... C'),
        )
    residual = x if shortcut is None else x + shortcut
    hidden = linear(x, weight1, bias1, relu=True)
    return linear(hidden, weight2, bias2, residual=residual)
