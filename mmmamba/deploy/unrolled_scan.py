"""The selective scan in standard operations, none of which writes in place.

Exporters know neither loops over tensors nor writes into a part of one. The
scan is therefore cut into chunks and unrolled: the steps within a chunk run
for all chunks at once, and the chunks' totals are scanned the same way. It is
exact: nothing is divided and no exponent is positive.
"""

import torch
from torch import Tensor

# Longest sequence that is unrolled step by step, and longest chunk of others.
_MAX_STEPS = 12
_MAX_CHUNK = 16


def unrolled_scan(log_a: Tensor, b: Tensor, length: int) -> Tensor:
    r"""Solve :math:`h_t = \exp(\log a_t) h_{t-1} + b_t`, :math:`h_{-1} = 0`.

    Args:
        log_a (Tensor): Logarithms of the decays, ``(B, L, K, D)``, 0 at most.
        b (Tensor): What is added to the states, of the same shape.
        length (int): L, which an exporter must know.

    Returns:
        Tensor: The states, ``(B, L, K, D)``.
    """
    a = torch.exp(log_a)
    if length <= _MAX_STEPS:
        return torch.cat(_steps(a.split(1, 1), b.split(1, 1)), dim=1)
    size = chunk_size(length)
    missing = -length % size
    if missing:  # positions that are added behind change none before them
        a, b, log_a = (
            torch.cat([t, torch.zeros_like(t[:, :missing])], dim=1)
            for t in (a, b, log_a)
        )
    chunks = (length + missing) // size
    tail = b.shape[2:]
    # The steps of a chunk, each for all chunks: (B, chunks, 1, K, D)
    steps_a, steps_b = (
        t.reshape(-1, chunks, size, *tail).split(1, 2) for t in (a, b)
    )
    last = _steps(steps_a, steps_b)[-1]
    # The state with which a chunk starts is that at the end of the one before.
    log_decay = log_a.reshape(-1, chunks, size, *tail).sum(2)
    ends = unrolled_scan(log_decay[:, :-1], last[:, :-1, 0], chunks - 1)
    start = torch.cat([torch.zeros_like(ends[:, :1]), ends], dim=1)[:, :, None]
    h = torch.cat(_steps(steps_a, steps_b, start), dim=2)
    h = h.reshape(-1, chunks * size, *tail)
    return h[:, :length] if missing else h


def chunk_size(length: int) -> int:
    """Choose the steps of a chunk.

    Args:
        length (int): Positions to scan.

    Returns:
        int: About the square root of ``length``, 16 at most; a factor of
        ``length`` if there is one of at least half of that.
    """
    longest = min(_MAX_CHUNK, round(length**0.5))
    for size in range(longest, longest // 2, -1):
        if length % size == 0:
            return size
    return longest


def _steps(
    a: tuple[Tensor, ...], b: tuple[Tensor, ...], h: Tensor | None = None
) -> list[Tensor]:
    """Run the recurrence from a state, or from zero, step by step."""
    states = []
    for step_a, step_b in zip(a, b):
        h = step_b if h is None else step_a * h + step_b
        states.append(h)
    return states
