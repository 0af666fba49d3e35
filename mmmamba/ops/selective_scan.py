"""Selective scan: the recurrence at the heart of a state-space model."""

import torch
from torch import Tensor

from . import scan_torch
from .backend import backend_for
from .checks import check_inputs


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    r"""Selective scan of K independent directions (Mamba, Eq. 2 and Alg. 2).

    .. math::
        h_t = \exp(\Delta_t A) h_{t-1} + \Delta_t B_t u_t, \qquad
        y_t = C_t^\top h_t + D u_t, \qquad h_{-1} = 0

    Channels ``k*D .. (k+1)*D - 1`` of ``u`` use ``B[:, k]`` and ``C[:, k]``.

    Args:
        u (Tensor): Input, ``(batch, K*D, L)``, floating point.
        delta (Tensor): Step sizes before bias and softplus, shape of ``u``.
        A (Tensor): Decay rates, ``(K*D, N)``; negative for a stable state.
        B (Tensor): Input projection, ``(batch, K, N, L)``.
        C (Tensor): Output projection, ``(batch, K, N, L)``.
        D (Tensor, optional): Skip connection, ``(K*D,)``. Defaults to None.
        delta_bias (Tensor, optional): Added to ``delta``, ``(K*D,)``.
            Defaults to None.
        delta_softplus (bool): Whether ``softplus`` makes the step sizes
            positive. Defaults to False.

    Returns:
        Tensor: ``(batch, K*D, L)`` in the dtype of ``u``. The computation is
        float64 for float64 inputs and float32 for all others, under autocast
        too.

    Raises:
        ValueError: If a shape does not fit, L is 0, or the inputs are on
            different devices.
        TypeError: If an input is not floating point.
    """
    if not torch.jit.is_tracing():  # where a look at a shape is a warning
        _check_selective_scan(u, delta, A, B, C, D, delta_bias)
    if backend_for(u.device) == 'torch':
        scan = scan_torch.selective_scan
    else:
        scan = torch.ops.mmmamba.selective_scan.default
    return scan(u, delta, A, B, C, D, delta_bias, delta_softplus)


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
    if not torch.jit.is_tracing():
        _check_bidirectional_scan(x, projected, dt_weight, dt_bias, A, D)
    if backend_for(x.device) == 'torch':
        scan = scan_torch.bidirectional_scan
    else:
        scan = torch.ops.mmmamba.bidirectional_scan.default
    return scan(x, projected, dt_weight, dt_bias, A, D)


def _check_selective_scan(u, delta, A, B, C, D, delta_bias) -> None:
    op = 'selective_scan'
    _check_sequences(op, 'u', u, '(batch, K*D, L)')
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise ValueError(
            f'{op}: A must be (K*D, N) with K*D = {channels}, got shape '
            f'{tuple(A.shape)}'
        )
    if B.dim() != 4 or B.shape[1] == 0 or channels % B.shape[1]:
        raise ValueError(
            f'{op}: B must be (batch, K, N, L) with K dividing the '
            f'{channels} channels of u, got shape {tuple(B.shape)}'
        )
    rows = (batch, B.shape[1], A.shape[1], length)
    check_inputs(
        op,
        u,
        delta=(delta, tuple(u.shape)),
        A=(A, tuple(A.shape)),
        B=(B, rows),
        C=(C, rows),
        D=(D, (channels,)),
        delta_bias=(delta_bias, (channels,)),
    )


def _check_bidirectional_scan(x, projected, dt_weight, dt_bias, A, D) -> None:
    op = 'bidirectional_scan'
    _check_sequences(op, 'x', x, '(batch, D, L)')
    batch, channels, length = x.shape
    if A.dim() != 2 or A.shape[0] != 2 * channels:
        raise ValueError(
            f'{op}: A must be (2*D, N) with 2*D = {2 * channels}, got shape '
            f'{tuple(A.shape)}'
        )
    if dt_weight.dim() != 3 or dt_weight.shape[:2] != (2, channels):
        raise ValueError(
            f'{op}: dt_weight must be (2, D, R) with D = {channels}, got '
            f'shape {tuple(dt_weight.shape)}'
        )
    rows = dt_weight.shape[2] + 2 * A.shape[1]
    check_inputs(
        op,
        x,
        projected=(projected, (batch, 2, rows, length)),
        dt_weight=(dt_weight, tuple(dt_weight.shape)),
        dt_bias=(dt_bias, (2, channels)),
        A=(A, tuple(A.shape)),
        D=(D, (2 * channels,)),
    )


def _check_sequences(op: str, name: str, x: Tensor, layout: str) -> None:
    """Check the input that the shapes of all others follow from."""
    if x.dim() != 3 or x.shape[-1] == 0:
        raise ValueError(
            f'{op}: {name} must be {layout} with L >= 1, got shape '
            f'{tuple(x.shape)}'
        )
    if not x.is_floating_point():
        raise TypeError(f'{op}: {name} must be floating point, got {x.dtype}')
