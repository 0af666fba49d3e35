"""A stage of a deployed network in one op, where that is compiled."""

import torch
from torch import Tensor

from .backend import require_compiled


def stage(
    x: Tensor,
    parameters: list[Tensor],
    transition: bool,
    wavelet: bool,
    local: bool,
    eps: float,
) -> Tensor:
    """Run a stage in one op: the same as its layers' ops one after the other.

    At batch 1, Python's way from one layer to the next takes a tenth of a
    small network's time. It has no version in PyTorch.

    Args:
        x (Tensor): Input, ``(B, H, W, C)`` float32 on the CPU.
        parameters (list[Tensor]): Of the transition, weight and bias of each
            of its layers: a depthwise convolution, an FFN, the expansion, a
            depthwise convolution of stride 2, both layers of
            squeeze-and-excite, the projection, a depthwise convolution, an
            FFN. Then those of each block, in the order of
            :class:`BlockParameters`.
        transition (bool): Whether there is a transition.
        wavelet (bool): Whether the blocks have a wavelet branch.
        local (bool): Whether the blocks have a local part.
        eps (float): Of the layer norms.

    Returns:
        Tensor: ``(B, H', W', C')``, contiguous; with a transition, ``H'`` and
        ``W'`` are halves, rounded up.

    Raises:
        ValueError: If a shape does not fit, or parameters are missing.
        RuntimeError: If the compiled ops for CPUs do not serve.
    """
    require_compiled('stage', x)
    return torch.ops.mmmamba.stage.default(
        x, parameters, transition, wavelet, local, eps
    )
