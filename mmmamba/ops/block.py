"""A block of a deployed network in one op, where that is compiled."""

from typing import NamedTuple

import torch
from torch import Tensor

from .backend import compiled_without_gradient
from .channels_last import compiled_kernel

# What the compiled op serves; the layers' ops serve all else.
_DTYPES = (torch.float32,)


class BlockParameters(NamedTuple):
    """Parameters of a block, each group in the order of the op that takes it.

    Attributes:
        conv1 (list[Tensor]): Of the first ``depthwise_conv``: weight, bias.
        ffn1 (list[Tensor]): Of the first ``feed_forward``: both layers'
            weights and biases.
        ssm (list[Tensor]): Of the SSM with two directions: weight and bias of
            the projection in and of the convolution, weight of the projection
            of the scan's inputs, ``dt_weight`` ``(2, R, D)``, the other
            parameters of ``scan_gate``, weight and bias of the projection out.
        wavelet (Tensor, optional): Of ``mixer_conv``.
        local (list[Tensor]): The other parameters of it, or none of them.
        proj (list[Tensor]): Of the mixer's projection: weight, bias.
        conv2 (list[Tensor]): As ``conv1``.
        ffn2 (list[Tensor]): As ``ffn1``.
        eps (float): Of the layer norm.
    """

    conv1: list[Tensor]
    ffn1: list[Tensor]
    ssm: list[Tensor]
    wavelet: Tensor | None
    local: list[Tensor]
    proj: list[Tensor]
    conv2: list[Tensor]
    ffn2: list[Tensor]
    eps: float


def block_is_compiled(x: Tensor, parameters: BlockParameters) -> bool:
    """Tell whether :func:`block` serves.

    Args:
        x (Tensor): Input, ``(B, H, W, C)``.
        parameters (BlockParameters): Parameters.

    Returns:
        bool: Whether it does; else the block is one of its layers' ops.
    """
    p = parameters
    groups = (p.conv1, p.ffn1, p.ssm, p.local, p.proj, p.conv2, p.ffn2)
    convs = (p.conv1[0], p.ssm[2], p.wavelet, *p.local[:1], p.conv2[0])
    return compiled_without_gradient(
        _DTYPES, x, p.wavelet, *(t for group in groups for t in group)
    ) and all(map(compiled_kernel, convs))


def block(x: Tensor, parameters: BlockParameters) -> Tensor:
    """Run a block in one op: the same as its layers' ops one after the other.

    A thread takes a few samples through all layers, so that what is between
    them stays in its caches.

    Args:
        x (Tensor): Input, ``(B, H, W, C)`` float32 on the CPU.
        parameters (BlockParameters): Parameters.

    Returns:
        Tensor: Of the shape of ``x``, contiguous.

    Raises:
        ValueError: If a shape does not fit.
    """
    return torch.ops.mmmamba.block.default(x, *parameters)
