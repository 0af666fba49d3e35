"""A block of a deployed network in one op, where that is compiled."""

from typing import NamedTuple

import torch
from torch import Tensor

from .backend import inference_op_serves, require_compiled


class LayerParameters(NamedTuple):
    """Parameters of a :func:`depthwise_conv` or a :func:`linear`."""

    weight: Tensor
    bias: Tensor


class FFNParameters(NamedTuple):
    """Parameters of a :func:`feed_forward`."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor


class SSMParameters(NamedTuple):
    """Parameters of an SSM with two directions, in the order of its layers.

    ``dt_weight`` is ``(2, R, D)``, the order of the memory in which
    :func:`scan_gate` copies nothing. The C++ side is ``SSMParameters`` in
    csrc/common/block.hpp.
    """

    in_weight: Tensor
    in_bias: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    dt_weight: Tensor
    dt_bias: Tensor
    A: Tensor
    D: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class LocalParameters(NamedTuple):
    """Parameters of the local part of a :func:`mixer_conv`."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor


class BlockParameters(NamedTuple):
    """Parameters of a block, in the order of its layers.

    The weights of linear layers but ``x_proj`` may be packed
    (:func:`pack_weight`).

    Attributes:
        conv1 (LayerParameters): First depthwise convolution.
        ffn1 (FFNParameters): First FFN.
        ssm (SSMParameters): SSM of the mixer.
        wavelet (Tensor, optional): ``wavelet_weight`` of :func:`mixer_conv`.
        local (LocalParameters, optional): Local part of the mixer.
        proj (LayerParameters): Projection of the mixer.
        conv2 (LayerParameters): Second depthwise convolution.
        ffn2 (FFNParameters): Second FFN.
        eps (float): Of the layer norm.
    """

    conv1: LayerParameters
    ffn1: FFNParameters
    ssm: SSMParameters
    wavelet: Tensor | None
    local: LocalParameters | None
    proj: LayerParameters
    conv2: LayerParameters
    ffn2: FFNParameters
    eps: float

    def groups(self) -> list[list[Tensor]]:
        """List the tensors of each part but the wavelet branch."""
        parts = (
            *(self.conv1, self.ffn1, self.ssm, self.local or ()),
            *(self.proj, self.conv2, self.ffn2),
        )
        return [list(part) for part in parts]

    def kernels(self) -> list[Tensor | None]:
        """List the weights of the depthwise convolutions that there are."""
        return [
            *(self.conv1.weight, self.ssm.conv_weight, self.wavelet),
            *(self.local and self.local.weight, self.conv2.weight),
        ]


def block_is_compiled(x: Tensor, parameters: BlockParameters) -> bool:
    """Tell whether :func:`block` serves.

    Args:
        x (Tensor): Input, ``(B, H, W, C)``.
        parameters (BlockParameters): Parameters.

    Returns:
        bool: Whether it does; else the block is one of its layers' ops.
    """
    tensors = [t for group in parameters.groups() for t in group]
    return inference_op_serves(
        x,
        parameters.wavelet,
        *tensors,
        dtypes=(torch.float32,),
        kernels=parameters.kernels(),
    )


def block(x: Tensor, parameters: BlockParameters) -> Tensor:
    """Run a block in one op: the same as its layers' ops one after the other.

    A thread takes a few samples through all layers, so that what is between
    them stays in its caches. It has no version in PyTorch:
    :func:`block_is_compiled` tells where it serves.

    Args:
        x (Tensor): Input, ``(B, H, W, C)`` float32 on the CPU.
        parameters (BlockParameters): Parameters.

    Returns:
        Tensor: Of the shape of ``x``, contiguous.

    Raises:
        ValueError: If a shape does not fit.
        RuntimeError: If the compiled ops for CPUs do not serve.
    """
    require_compiled('block', x)
    conv1, ffn1, ssm, local, proj, conv2, ffn2 = parameters.groups()
    return torch.ops.mmmamba.block.default(
        *(x, conv1, ffn1, ssm, parameters.wavelet, local),
        *(proj, conv2, ffn2, parameters.eps),
    )
