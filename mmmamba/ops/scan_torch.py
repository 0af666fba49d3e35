"""The scans in PyTorch alone, for where the compiled ops are not.

They run on any device and are exact: nothing is divided and no exponent is
positive, so strongly decaying channels (a state that underflows) and nearly
non-decaying ones are computed alike. They take O(log L) tensor operations and
O(L) memory.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


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
    h = torch.empty_like(b)
    h[0] = b[0]
    h[1::2] = h_odd
    h[2::2] = torch.addcmul(b[2::2], a[2::2], h_odd[: (length - 1) // 2])
    return h


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


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """See :func:`mmmamba.ops.selective_scan`."""
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


def bidirectional_scan(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor | None,
) -> Tensor:
    """See :func:`mmmamba.ops.bidirectional_scan`."""
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
