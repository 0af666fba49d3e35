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
        log_a (Tensor): Logarithms of the decays, ``(K, B, L, D)``, 0 at most.
        b (Tensor): What is added to the states, of the same shape.
        length (int): L, which an exporter must know.

    Returns:
        Tensor: The states, ``(K, B, L, D)``.
    """
    a = torch.exp(log_a)
    if length <= _MAX_STEPS:
        return torch.cat(_steps(a.split(1, 2), b.split(1, 2)), dim=2)
    size = chunk_size(length)
    missing = -length % size
    if missing:  # positions that are added behind change none before them
        a, b, log_a = (
            torch.cat([t, torch.zeros_like(t[:, :, :missing])], dim=2)
            for t in (a, b, log_a)
        )
    chunks = (length + missing) // size
    directions, channels = b.shape[0], b.shape[3]

    def in_chunks(t: Tensor) -> Tensor:
        return t.reshape(directions, -1, chunks, size, channels)

    # The steps of a chunk, each for all chunks: (K, B, chunks, 1, D)
    steps_a, steps_b = (in_chunks(t).split(1, 3) for t in (a, b))
    last = _steps(steps_a, steps_b)[-1][:, :, :-1, 0]
    # The state with which a chunk starts is that at the end of the one before.
    log_decay = in_chunks(log_a).sum(3)[:, :, :-1]
    ends = unrolled_scan(log_decay, last, chunks - 1)
    start = torch.cat([torch.zeros_like(ends[:, :, :1]), ends], dim=2)
    h = torch.cat(_steps(steps_a, steps_b, start[:, :, :, None]), dim=3)
    h = h.reshape(directions, -1, chunks * size, channels)
    return h[:, :, :length] if missing else h


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
