"""Bidirectional scan, layer norm and gate of channels-last sequences."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import inference_op_serves
from .bidirectional_scan import bidirectional_scan
from .shapes import Shapes


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
    eps: float = 1e-5,
) -> Tensor:
    r"""Scan in both directions, normalize and gate.

    The core of an SSM with two directions:
    :math:`\mathrm{LayerNorm}(y) \cdot \mathrm{silu}(z)`, with y what
    :func:`bidirectional_scan` computes.

    Args:
        x (Tensor): Input, ``(B, L, D)``, floating point.
        projected (Tensor): ``(B, L, 2 * (R + 2*N))``; of each direction R
            channels of what the step sizes are projected from, N of the
            input projection B and N of the output projection C.
        dt_weight (Tensor): Projection to the step sizes, ``(2, D, R)``; a
            ``(2, R, D)`` tensor with its axes swapped is not copied.
        dt_bias (Tensor): Added to the step sizes before softplus, ``(2, D)``.
        A (Tensor): Decay rates, ``(2*D, N)``; negative for a stable state.
        D (Tensor): Skip connection, ``(2*D,)``.
        norm_weight (Tensor): Scale of the layer norm, ``(D,)``.
        norm_bias (Tensor): Shift of the layer norm, ``(D,)``.
        z (Tensor): Gate before the SiLU, ``(B, L, D)``; some of the channels
            of a wider tensor do not need to be copied.
        eps (float): Of the layer norm. Defaults to 1e-5.

    Returns:
        Tensor: ``(B, L, D)``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, L is 0, or the inputs are on
            different devices.
        TypeError: If an input is not floating point.
    """
    parameters = (dt_weight, dt_bias, A, D, norm_weight, norm_bias)
    inputs = (x, projected, *parameters, z)
    if inference_op_serves(*inputs, wide=(x,), cuda=True):
        return torch.ops.mmmamba.scan_gate.default(*inputs, eps)
    if not torch.jit.is_tracing():
        Shapes('scan_gate').check(
            x=(x, 'B L>=1 D>=1'),
            dt_weight=(dt_weight, '2 D R'),
            dt_bias=(dt_bias, '2 D'),
            A=(A, '2*D N>=1'),
            D=(D, '2*D'),
            projected=(projected, 'B L 2*R+4*N'),
            norm_weight=(norm_weight, 'D'),
            norm_bias=(norm_bias, 'D'),
            z=(z, 'B L D'),
        )
    projected = projected.unflatten(-1, (2, -1)).permute(0, 2, 3, 1)
    y = bidirectional_scan(
        x.transpose(1, 2), projected, dt_weight, dt_bias, A, D
    ).transpose(1, 2)
    norm_weight, norm_bias = norm_weight.to(x.dtype), norm_bias.to(x.dtype)
    y = F.layer_norm(y, y.shape[-1:], norm_weight, norm_bias, eps)
    return (y * F.silu(z)).to(x.dtype).contiguous()
