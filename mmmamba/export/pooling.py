"""Pooling to a given size, which ONNX has only where it divides the map."""

from typing import Any

import torch
from torch import Tensor, nn


class AveragePool(nn.Module):
    """``nn.AdaptiveAvgPool2d`` as two products with constant matrices.

    Args:
        size (tuple[int, int]): Height and width of the result.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C, *size)``."""
        rows = averages(int(x.shape[2]), self.size[0])
        columns = averages(int(x.shape[3]), self.size[1])
        return torch.matmul(torch.matmul(rows, x), columns.t())


def averages(length: int, parts: int) -> Tensor:
    """Matrix ``(parts, length)`` of the means that PyTorch pools."""
    matrix = torch.zeros(parts, length)
    for i in range(parts):
        start, end = i * length // parts, -((i + 1) * length // -parts)
        matrix[i, start:end] = 1 / (end - start)
    return matrix


def replace_pools(model: nn.Module) -> None:
    """Put an :class:`AveragePool` in the place of those to a fixed size.

    Args:
        model (nn.Module): Changed in place.
    """
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.AdaptiveAvgPool2d):
            size: Any = part.output_size
            size = (size, size) if isinstance(size, int) else tuple(size)
            if size != (1, 1) and None not in size:
                parent, _, child = name.rpartition('.')
                setattr(model.get_submodule(parent), child, AveragePool(size))
