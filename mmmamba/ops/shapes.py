"""Shapes as patterns such as ``'B H W C'``: how the ops check their inputs.

The twin in C++ is csrc/common/shapes.hpp; both use the same words for the same
error.
"""

import re

import torch
from torch import Tensor


class Shapes:
    """The inputs of one call of an op, and the sizes they have in common.

    A pattern names the size of each axis. A symbol such as ``C`` takes its
    value where it first occurs and must have the same value everywhere else.
    ``2*D`` and ``R+2*N`` are computed from symbols that are known, ``L>=1``
    sets a lower bound, and ``...`` in front stands for one axis or more.

    Args:
        op (str): Name of the op, with which the errors begin.

    Examples:
        >>> shapes = Shapes('linear')
        >>> shapes.check(x=(x, '... C'), weight=(weight, 'C C_out'))
        >>> shapes['C_out']
        384
    """

    def __init__(self, op: str) -> None:
        self.op = op
        self.sizes: dict[str, int] = {}
        self._leading: torch.Size | None = None
        self._device: torch.device | None = None

    def __getitem__(self, symbol: str) -> int:
        return self.sizes[symbol]

    def check(self, **inputs: tuple[Tensor | None, str]) -> None:
        """Check inputs against their patterns, in the order they are given.

        Args:
            **inputs (tuple[Tensor | None, str]): Each input's tensor, or None
                if it is absent, and its pattern.

        Raises:
            ValueError: If a shape does not fit its pattern, or an input is
                not on the device of the first one.
            TypeError: If an input is not floating point.
        """
        for name, (tensor, pattern) in inputs.items():
            if tensor is None:
                continue
            known = dict(self.sizes)
            if not self._fits(tensor, pattern.split()):
                raise ValueError(
                    f'{self.op}: {name} must have shape '
                    f'{_describe(pattern, known)}, got {tuple(tensor.shape)}'
                )
            if not tensor.is_floating_point():
                raise TypeError(
                    f'{self.op}: {name} must be floating point, got '
                    f'{tensor.dtype}'
                )
            if self._device is None:
                self._device = tensor.device
            self.require(
                tensor.device == self._device,
                f'{name} is on {tensor.device}, and the first input on '
                f'{self._device}',
            )

    def require(self, condition: bool, message: str) -> None:
        """Raise a ValueError that names the op unless a condition holds.

        Args:
            condition (bool): What has to hold.
            message (str): What is wrong if it does not.
        """
        if not condition:
            raise ValueError(f'{self.op}: {message}')

    def _fits(self, tensor: Tensor, axes: list[str]) -> bool:
        shape = tensor.shape
        if axes[0] == '...':
            axes = axes[1:]
            split = len(shape) - len(axes)
            if split < 1 or self._leading not in (None, shape[:split]):
                return False
            self._leading, shape = shape[:split], shape[split:]
        return len(shape) == len(axes) and all(
            [self._fits_axis(axis, size) for axis, size in zip(axes, shape)]
        )

    def _fits_axis(self, axis: str, size: int) -> bool:
        axis, _, least = axis.partition('>=')
        if axis.isidentifier() and axis not in self.sizes:
            self.sizes[axis] = size
        return size == self._value(axis) and (not least or size >= int(least))

    def _value(self, axis: str) -> int:
        """Compute a sum of products of symbols and numbers."""
        total = 0
        for term in axis.split('+'):
            product = 1
            for factor in term.split('*'):
                known = factor in self.sizes
                product = product * (
                    self.sizes[factor] if known else int(factor)
                )
            total = total + product
        return total


def _describe(pattern: str, known: dict[str, int]) -> str:
    """Write a pattern with the values of its symbols, as far as known."""
    symbols = dict.fromkeys(re.findall(r'[A-Za-z]\w*', pattern))
    values = [f'{s} = {known[s]}' for s in symbols if s in known]
    layout = f'({", ".join(pattern.split())})'
    return f'{layout} with {", ".join(values)}' if values else layout
