"""Weights of linear layers with fewer bits than float32.

Processors sum up the products of two bfloat16 or of four int8 numbers at once,
so that a packed weight has them side by side: of a column, the numbers of as
many rows that follow each other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import available_backends

#: The numbers that are side by side, and the dtype of a packed weight: an
#: integer one, which ``Module.to(dtype)`` leaves alone.
PACKED_DTYPES = {
    'bfloat16': (2, torch.int16),
    'int8': (4, torch.int8),
}

# So many products of a uint8 and an int8 fit into the sum, an int32.
_MOST_ROWS = 2**31 // (255 * 127)


def has_dot_products(dtype: str) -> bool:
    """Tell whether packed weights are fast here.

    Args:
        dtype (str): ``'bfloat16'`` or ``'int8'``.

    Returns:
        bool: Whether the ops are compiled, and the CPU has AVX-512's
        instructions for products of the dtype.
    """
    compiled = available_backends()['cpp']
    return compiled and torch.ops.mmmamba.has_dot_products(dtype)


def is_packed(weight: Tensor) -> bool:
    """Tell whether a weight is packed."""
    return weight.dtype in (torch.int16, torch.int8)


def pack_weight(weight: Tensor, dtype: str) -> Tensor:
    """Round and pack the weight of a linear layer.

    Args:
        weight (Tensor): ``(C, C')``, floating point.
        dtype (str): ``'bfloat16'``; or ``'int8'``, of which a column has 255
            steps, from minus to plus its largest absolute value.

    Returns:
        Tensor: The bits of bfloat16, ``(C/2, C', 2)`` int16, or
        ``(C/4 + 2, C', 4)`` int8. Rows are rounded up, and zeros are in what
        remains. The last two rows of int8 are the float32 bits of each
        column's step, and of the sum of its rounded numbers.

    Raises:
        ValueError: If the dtype or the shape is another one, or the sums of
            int8 products may be larger than an int32.
    """
    if dtype not in PACKED_DTYPES:
        raise ValueError(
            f'weights are packed as {" or ".join(PACKED_DTYPES)}, not as '
            f'{dtype}'
        )
    if weight.dim() != 2 or len(weight) < 1:
        raise ValueError(
            f'a weight to pack must have shape (C>=1, C_out), got '
            f'{tuple(weight.shape)}'
        )
    if dtype == 'int8' and len(weight) > _MOST_ROWS:
        raise ValueError(
            f'a weight of {len(weight)} rows is too long for int8, whose sums '
            f'hold {_MOST_ROWS} products'
        )
    numbers, packed_dtype = PACKED_DTYPES[dtype]
    weight = F.pad(weight.float(), (0, 0, 0, -len(weight) % numbers))
    ends = []
    if dtype == 'bfloat16':
        rounded = weight.bfloat16().view(packed_dtype)
    else:
        step = weight.abs().amax(0) / 127
        steps = (weight / step.clamp(min=1e-30)).round()
        rounded = steps.to(packed_dtype)
        for row in (step, steps.sum(0) * step):
            ends.append(row.contiguous().view(packed_dtype).view(1, -1, 4))
    rounded = rounded.unflatten(0, (-1, numbers)).transpose(1, 2)
    return torch.cat([rounded, *ends]).contiguous()


def unpack_weight(packed: Tensor, channels: int) -> Tensor:
    """Return the rounded numbers of a packed weight.

    Args:
        packed (Tensor): As :func:`pack_weight` returns it.
        channels (int): ``C``, the rows that there were.

    Returns:
        Tensor: ``(C, C')`` float32.

    Raises:
        ValueError: If it is not the packed weight of so many rows.
    """
    numbers, ends = (2, 0) if packed.dtype == torch.int16 else (4, 2)
    rows = -(-channels // numbers) + ends
    if packed.dim() != 3 or packed.shape[::2] != (rows, numbers):
        raise ValueError(
            f'the packed weight of {channels} channels must have shape '
            f'({rows}, C_out, {numbers}), got {tuple(packed.shape)}'
        )
    if packed.dtype == torch.int16:
        unpacked = packed.view(torch.bfloat16).float()
    else:
        step = packed[-2].contiguous().view(torch.float32)
        unpacked = packed[:-2].float() * step
    return unpacked.transpose(1, 2).flatten(0, 1)[:channels]


def round_rows(x: Tensor, packed: Tensor) -> Tensor:
    """Round the input of a linear layer as it is where its weight is packed.

    Args:
        x (Tensor): ``(..., C)``, floating point.
        packed (Tensor): The packed weight. With int8, each row of ``x`` has
            256 steps, from its least to its largest number.

    Returns:
        Tensor: The same shape and dtype. A gradient passes as if nothing was
        rounded.
    """
    with torch.no_grad():
        if packed.dtype == torch.int16:
            rounded = x.bfloat16().to(x.dtype)
        else:
            row = x.float()  # float16 is too narrow for 255 / span
            least = row.amin(-1, keepdim=True)
            span = (row.amax(-1, keepdim=True) - least).clamp(min=1e-30)
            steps = ((row - least) * (255 / span) + 0.5).floor()
            rounded = (steps * (span / 255) + least).to(x.dtype)
    return rounded if not x.requires_grad else x + (rounded - x).detach()
