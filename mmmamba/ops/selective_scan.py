"""Selective scan: the recurrence at the heart of a state-space model.

PyTorch's version serves where the compiled one is not there, on any device.
It is exact: nothing is divided and no exponent is positive, so that strongly
decaying channels (a state that underflows) and nearly non-decaying ones are
computed alike. It takes O(log L) tensor operations and O(L) memory.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .backend import backend_for
from .shapes import Shapes


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
    if backend_for(u.device) != 'torch':
        op = torch.ops.mmmamba.selective_scan.default
        return op(u, delta, A, B, C, D, delta_bias, delta_softplus)
    if not torch.jit.is_tracing():  # where a look at a shape is a warning
        shapes = Shapes('selective_scan')
        shapes.check(
            u=(u, 'batch KD L>=1'),
            A=(A, 'KD N'),
            delta=(delta, 'batch KD L'),
            B=(B, 'batch K>=1 N L'),
        )
        shapes.require(
            shapes['KD'] % shapes['K'] == 0,
            f'B has {shapes["K"]} directions, which do not divide the '
            f'{shapes["KD"]} channels of u',
        )
        shapes.check(
            C=(C, 'batch K N L'),
            D=(D, 'KD'),
            delta_bias=(delta_bias, 'KD'),
        )
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    # Elementwise operations on these are what they are under autocast too.
    x, delta, A, B, C = (t.to(dtype) for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        delta = F.softplus(delta)

    # Position first: each step of the scan then reads whole rows.
    batch, channels, length = x.shape
    directions, d_state = B.shape[1:3]
    shape = (length, batch, directions, channels // directions)
    x = x.permute(2, 0, 1).contiguous().view(shape)
    delta = delta.permute(2, 0, 1).contiguous().view(shape)
    A = A.view(directions, channels // directions, d_state)
    B, C = (t.permute(3, 0, 1, 2)[:, :, :, None] for t in (B, C))

    # (L, batch, K, D, N): N states per channel and position
    h = LinearRecurrence.apply(
        torch.exp(delta[..., None] * A), (delta * x)[..., None] * B
    )
    y = (h * C).sum(-1)
    if D is not None:
        y = y + D.to(dtype).view(directions, -1) * x
    y = y.view(length, batch, channels).permute(1, 2, 0)
    return y.to(u.dtype)


class LinearRecurrence(Function):
    """``h_t = a_t * h_{t-1} + b_t`` along the first axis.

    Stores the decays and the states only: the gradient obeys the same
    recurrence run backwards, whatever the depth of the forward reduction.
    """

    @staticmethod
    def forward(ctx, a: Tensor, b: Tensor) -> Tensor:
        """Return the states, of the shape of ``a`` and ``b``."""
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the decays and of what drives the states."""
        a, h = ctx.saved_tensors
        # g_t = grad_h_t + a_{t+1} g_{t+1}, read from the end to the start;
        # the first decay multiplies the zero state, so its value is free.
        grad_b = _scan(a.roll(-1, 0).flip(0), grad_h.flip(0)).flip(0)
        grad_a = torch.zeros_like(a)
        torch.mul(grad_b[1:], h[:-1], out=grad_a[1:])
        return grad_a, grad_b


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """Solve ``h_t = a_t * h_{t-1} + b_t``, ``h_{-1} = 0``, on the first axis.

    Odd-even reduction (Blelloch, "Prefix sums and their applications", 1990):
    two neighbouring steps compose to one, so the states at odd positions obey
    a recurrence of half the length; those at even positions follow from them.
    """
    length = a.shape[0]
    if length == 1:
        return b
    pairs = 2 * (length // 2)
    a_even, a_odd = a[0:pairs:2], a[1::2]
    b_even, b_odd = b[0:pairs:2], b[1::2]
    h_odd = _scan(a_even * a_odd, torch.addcmul(b_odd, a_odd, b_even))
    behind = h_odd[: (length - 1) // 2]
    h_even = torch.cat([b[:1], torch.addcmul(b[2::2], a[2::2], behind)])
    # Not written into one tensor: an ONNX exporter would lose the writes.
    h = torch.stack([h_even[: pairs // 2], h_odd], dim=1).flatten(0, 1)
    return h if pairs == length else torch.cat([h, h_even[-1:]])
