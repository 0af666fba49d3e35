"""Linear layer of a channels-last map, with all that follows it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import inference_op_serves
from .packed_weight import is_packed, round_rows, unpack_weight
from .shapes import Shapes


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    relu: bool = False,
    residual: Tensor | None = None,
) -> Tensor:
    """A linear layer, a ReLU and a sum.

    ``relu(x @ weight + bias) + residual``, in one pass. The compiled version
    is for float32, on GPUs for float16 and bfloat16, too. There a ReLU and a
    residual together are passes of their own.

    Args:
        x (Tensor): Input, ``(B, ..., C)``, floating point; some of the
            channels of a wider map do not need to be copied.
        weight (Tensor): ``(C, C')``, or with fewer bits what
            :func:`pack_weight` makes of it; then the sums and all else stay
            float32.
        bias (Tensor, optional): ``(C',)``. Defaults to None.
        relu (bool): Whether a ReLU comes before the sum. Defaults to False.
        residual (Tensor, optional): ``(B, ..., C')``. Defaults to None.

    Returns:
        Tensor: ``(B, ..., C')``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    packed = is_packed(weight)
    if inference_op_serves(
        *(x, weight, bias, residual), dtypes=(torch.float32,), cuda=not packed
    ):
        op = torch.ops.mmmamba.linear.default
        return op(x, weight, bias, relu, residual)
    if packed:
        Shapes('linear').check(x=(x, '... C>=1'))
        unpacked = unpack_weight(weight, x.shape[-1]).to(x.dtype)
        x, weight = round_rows(x, weight), unpacked
    if not torch.jit.is_tracing():
        Shapes('linear').check(
            x=(x, '... C>=1'),
            weight=(weight, 'C C_out>=1'),
            bias=(bias, 'C_out'),
            residual=(residual, '... C_out'),
        )
    # The order of a product's operands is that of the memory.
    flat, weight = x.flatten(0, -2), weight.to(x.dtype)
    if bias is None:
        y = torch.mm(flat, weight)
    else:
        y = torch.addmm(bias.to(x.dtype), flat, weight)
    y = (F.relu(y) if relu else y).unflatten(0, x.shape[:-1])
    return y if residual is None else y + residual.to(x.dtype)
