"""Inputs of the scans, and their definitions in float64."""

import math

import torch
from test_ops.support import permuted, strided
from torch import Tensor

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
LENGTHS = (1, 2, 3, 63, 64, 65, 255, 256, 257, 1023, 4097)


def tolerance(op_backend: str, length: int) -> float:
    """What float32 may be off by where all steps of a sequence are alike.

    A decay near 1 is rounded by up to 2**-25, each time alike. The compiled
    ops keep what the rounding takes away, and PyTorch's do not.
    """
    rounding = length * 2**-25 if op_backend == 'torch' else 0
    return TOLERANCE[torch.float32] + rounding


def selective_reference(
    u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False
) -> Tensor:
    """The definition, position by position, in float64."""
    u, delta, A, B, C = (t.double() for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.double()[:, None]
    if delta_softplus:
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    repeats = u.shape[1] // B.shape[1]
    B = B.repeat_interleave(repeats, dim=1)
    C = C.repeat_interleave(repeats, dim=1)
    # (batch, K*D, N, L)
    decays = torch.exp(delta[:, :, None] * A[..., None])
    drives = (delta * u)[:, :, None] * B
    h, states = torch.zeros_like(drives[..., 0]), []
    for decay, drive in zip(decays.unbind(-1), drives.unbind(-1)):
        h = decay * h + drive
        states.append(h)
    y = (torch.stack(states, -1) * C).sum(2)
    return y if D is None else y + D.double()[:, None] * u


def bidirectional_reference(
    x, projected, dt_weight, dt_bias, A, D=None
) -> Tensor:
    """The definition: the second direction reads all in reverse order."""
    x, projected = x.double(), projected.double()
    channels, d_state = x.shape[1], A.shape[1]
    xs = torch.cat([x, x.flip(-1)], 1)
    projected = torch.stack([projected[:, 0], projected[:, 1].flip(-1)], 1)
    dt, B, C = projected.split([dt_weight.shape[2], d_state, d_state], dim=2)
    delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_weight.double())
    y = selective_reference(
        xs, delta.flatten(1, 2), A, B, C, D, dt_bias.flatten(), True
    )
    return y[:, :channels] + y[:, channels:].flip(-1)


def _uniform(low, high, *shape, generator) -> Tensor:
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    return low + (high - low) * x


def selective_inputs(
    sizes=(2, 2, 3, 4, 20),
    dtype=torch.float32,
    steps=(1e-4, 1e2),
    decays=(1e-4, 1e3),
    bias=False,
) -> dict[str, Tensor]:
    """Random inputs; step sizes and decay rates are log-uniform.

    The sizes are batch, K, D, N and L.
    """
    batch, K, D, N, L = sizes
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def log_uniform(bounds, *shape):
        bounds = map(math.log, bounds)
        return torch.exp(_uniform(*bounds, *shape, generator=rng))

    inputs = dict(
        u=normal(batch, K * D, L),
        delta=log_uniform(steps, batch, K * D, L),
        A=-log_uniform(decays, K * D, N),
        B=normal(batch, K, N, L),
        C=normal(batch, K, N, L),
        D=normal(K * D),
    )
    if bias:
        inputs['delta_bias'] = normal(K * D).abs()
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def bidirectional_inputs(
    sizes=(2, 5, 3, 4, 20),
    dtype=torch.float32,
    bias=(-10.0, 2.0),
    decays=(1e-4, 1e3),
) -> dict[str, Tensor]:
    """Random inputs; the bias is uniform, the decay rates log-uniform.

    The sizes are batch, D, R, N and L.
    """
    batch, D, R, N, L = sizes
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    inputs = dict(
        x=normal(batch, D, L),
        projected=normal(batch, 2, R + 2 * N, L),
        dt_weight=normal(2, D, R) * max(R, 1) ** -0.5,
        dt_bias=_uniform(*bias, 2, D, generator=rng),
        A=-torch.exp(
            _uniform(*map(math.log, decays), 2 * D, N, generator=rng)
        ),
        D=normal(2 * D),
    )
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


# ---------------------------------------------------------------------------
# Layouts: the same values, stored otherwise
# ---------------------------------------------------------------------------


def channels_last(t: Tensor) -> Tensor:
    """With the rows of a position side by side."""
    if t.dim() < 3:
        return t
    return t.transpose(-1, -2).contiguous().transpose(-1, -2)


def rows_apart(t: Tensor) -> Tensor:
    """As a part of more rows and positions."""
    if t.dim() < 2:
        return strided(t)
    padded = t.new_full((*t.shape[:-2], t.shape[-2] + 3, t.shape[-1] + 5), 9)
    part = padded[..., 1 : t.shape[-2] + 1, 2 : t.shape[-1] + 2]
    return part.copy_(t)


def reversed_batch(t: Tensor) -> Tensor:
    """With the first two axes stored in reverse order."""
    if t.dim() < 2:
        return strided(t)
    return t.transpose(0, 1).contiguous().transpose(0, 1)


LAYOUTS = [channels_last, strided, permuted, rows_apart, reversed_batch]
