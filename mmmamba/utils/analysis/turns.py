"""The order in which contenders are measured."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.progress import track

T = TypeVar('T')


def take_turns(contenders: Sequence[T], rounds: int) -> Iterator[T]:
    """Go round by round, every other round backwards, and show progress.

    Ratios then hold on a machine whose speed changes.

    Args:
        contenders (Sequence): Who takes part.
        rounds (int): Turns of each.

    Yields:
        The contender whose turn it is.
    """
    for i in track(range(rounds), 'measuring'):
        yield from contenders[:: -1 if i % 2 else 1]
