"""What begins a stage of a deployed network in one op, where compiled."""

from typing import NamedTuple

import torch
from torch import Tensor

from .backend import compiled_without_gradient
from .channels_last import compiled_kernel

# What the compiled op serves; the layers' ops serve all else.
_DTYPES = (torch.float32,)


class TransitionParameters(NamedTuple):
    """Parameters of a transition, in the order of the ops that take them.

    Attributes:
        conv1 (list[Tensor]): Of the first ``depthwise_conv``: weight, bias.
        ffn1 (list[Tensor]): Of the first ``feed_forward``: both layers'
            weights and biases.
        expand (list[Tensor]): Of the expansion by ``linear``: weight, bias.
        conv (list[Tensor]): Of the convolution of stride 2: weight, bias.
        fc1 (list[Tensor]): Of the squeeze: weight, bias.
        fc2 (list[Tensor]): Of the excitation: weight, bias.
        project (list[Tensor]): Of the projection: weight, bias.
        conv2 (list[Tensor]): As ``conv1``.
        ffn2 (list[Tensor]): As ``ffn1``.
    """

    conv1: list[Tensor]
    ffn1: list[Tensor]
    expand: list[Tensor]
    conv: list[Tensor]
    fc1: list[Tensor]
    fc2: list[Tensor]
    project: list[Tensor]
    conv2: list[Tensor]
    ffn2: list[Tensor]


def transition_is_compiled(
    x: Tensor, parameters: TransitionParameters
) -> bool:
    """Tell whether :func:`transition` serves.

    Args:
        x (Tensor): Input, ``(B, H, W, C)``.
        parameters (TransitionParameters): Parameters.

    Returns:
        bool: Whether it does; else the transition is its layers' ops.
    """
    p = parameters
    convs = (p.conv1[0], p.conv[0], p.conv2[0])
    return (
        compiled_without_gradient(
            _DTYPES, x, *(t for group in p for t in group)
        )
        and all(map(compiled_kernel, convs))
        and p.conv[0].shape[0] == 3
    )


def transition(x: Tensor, parameters: TransitionParameters) -> Tensor:
    """Run a transition in one op: the same as its layers' ops in turn.

    A thread takes a few samples through the layers before and through those
    behind the squeeze-and-excite, so that what is between them stays in its
    caches.

    Args:
        x (Tensor): Input, ``(B, H, W, C)`` float32 on the CPU.
        parameters (TransitionParameters): Parameters.

    Returns:
        Tensor: ``(B, H/2, W/2, C')``, rounded up, contiguous.

    Raises:
        ValueError: If a shape does not fit.
    """
    return torch.ops.mmmamba.transition.default(x, *parameters)
