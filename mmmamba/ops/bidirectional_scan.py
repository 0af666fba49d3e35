"""Selective scan of a sequence in both directions, summed."""

import contextlib

import torch
from torch import Tensor

from .backend import backend_for
from .selective_scan import selective_scan
from .shapes import Shapes


def bidirectional_scan(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor | None = None,
) -> Tensor:
    r"""Scan sequences in both directions and sum the results.

    The fused form of what MobileMamba does (Sec. 3.2): for the directions
    k = 0 (positions in order) and 1 (in reverse order), with
    :math:`(\delta, B, C)` the rows of ``projected[:, k]``,

    .. math::
        \Delta = \mathrm{softplus}(W_k \delta + b_k), \qquad
        y_k = \mathrm{scan}(x, \Delta, A_k, B, C, D_k), \qquad
        y = y_0 + y_1

    as :func:`selective_scan` defines it. All positions are in their natural
    order. The compiled version stores neither :math:`\Delta` nor a reversed
    copy of anything, and its backward recomputes the states.

    Args:
        x (Tensor): Input, ``(batch, D, L)``, floating point, of any strides;
            channels-last sequences are as fast as contiguous ones.
        projected (Tensor): ``(batch, 2, R + 2*N, L)``; of each direction, R
            rows of what the step sizes are projected from, N of the input
            projection B and N of the output projection C.
        dt_weight (Tensor): Projection to the step sizes, ``(2, D, R)``.
        dt_bias (Tensor): Added to the step sizes before softplus, ``(2, D)``.
        A (Tensor): Decay rates, ``(2*D, N)``; negative for a stable state.
        D (Tensor, optional): Skip connection, ``(2*D,)``. Defaults to None.

    Returns:
        Tensor: ``(batch, D, L)`` in the dtype of ``x``, computed in float64
        for float64 inputs and in float32 for all others.

    Raises:
        ValueError: If a shape does not fit, L is 0, or the inputs are on
            different devices.
        TypeError: If an input is not floating point.
    """
    if backend_for(x.device) != 'torch':
        op = torch.ops.mmmamba.bidirectional_scan.default
        return op(x, projected, dt_weight, dt_bias, A, D)
    if not torch.jit.is_tracing():
        Shapes('bidirectional_scan').check(
            x=(x, 'batch D L>=1'),
            dt_weight=(dt_weight, '2 D R'),
            dt_bias=(dt_bias, '2 D'),
            A=(A, '2*D N>=1'),
            D=(D, '2*D'),
            projected=(projected, 'batch 2 R+2*N L'),
        )
    dtype = torch.promote_types(x.dtype, torch.float32)
    full, d_state = x.to(dtype), A.shape[1]
    # Both as sequences that are read from left to right.
    xs = torch.cat([full, full.flip(-1)], dim=1)
    projected = projected.to(dtype)
    projected = torch.stack([projected[:, 0], projected[:, 1].flip(-1)], dim=1)
    dt, B, C = projected.split([dt_weight.shape[2], d_state, d_state], dim=2)
    with _no_autocast(x.device):
        delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_weight.to(dtype))
    ys = selective_scan(
        xs, delta.flatten(1, 2), A, B, C, D, dt_bias.flatten(), True
    )
    forward, backward = ys.chunk(2, dim=1)
    return (forward + backward.flip(-1)).to(x.dtype)


def _no_autocast(device: torch.device):
    """A context without autocast, which meta tensors have none of."""
    if device.type == 'meta':
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
