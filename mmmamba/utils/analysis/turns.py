"""The order in which contenders are measured."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar('T')


def take_turns(contenders: Sequence[T], rounds: int) -> list[T]:
    """Go round by round, every other round backwards.

    Ratios then hold on a machine whose speed changes.

    Args:
        contenders (Sequence): Who takes part.
        rounds (int): Turns of each.

    Returns:
        list: Whose turn it is, one after the other.
    """
    return [
        c for i in range(rounds) for c in contenders[:: -1 if i % 2 else 1]
    ]
