"""Arithmetic of folding: norms, scales and sums become part of a conv.

All of it is done in float64, so that a folded network differs from the plain
one by the rounding of its own computation only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:  # a deployed network needs no OpenMMLab
    from mmmamba.layers import ConvBN


class FoldError(RuntimeError):
    """A norm that cannot become part of a convolution."""


def conv_bn(unit: ConvBN) -> tuple[Tensor, Tensor]:
    """Fold the norm of a unit into its convolution.

    Args:
        unit (ConvBN): Convolution and norm; mmcv's ``fuse_conv_bn`` may have
            folded it already.

    Returns:
        tuple[Tensor, Tensor]: Weight ``(out, in/groups, k, k)`` and bias
        ``(out,)``, float64.

    Raises:
        FoldError: If the norm is not a batch norm in eval mode.
    """
    return conv_and_norm(unit.conv, unit.norm)


def conv_and_norm(conv: nn.Conv2d, bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Fold a norm into the convolution before it; as :func:`conv_bn`.

    Args:
        conv (nn.Conv2d): The convolution, with a bias or without.
        bn (nn.Module): A batch norm, or an identity.
    """
    weight = conv.weight.detach().double()
    bias = weight.new_zeros(len(weight))
    if conv.bias is not None:
        bias = conv.bias.detach().double()
    if isinstance(bn, nn.Identity):
        return weight, bias
    scale, shift = norm(bn)
    return weight * scale[:, None, None, None], bias * scale + shift


def norm(bn: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm that uses its running statistics.

    Args:
        bn (nn.Module): A batch norm of any kind.

    Returns:
        tuple[Tensor, Tensor]: Both ``(channels,)`` float64.

    Raises:
        FoldError: If it is another norm, or one that does not use running
            statistics.
    """
    if (
        not isinstance(bn, _BatchNorm)
        or bn.running_var is None
        or bn.running_mean is None
        or bn.training
    ):
        raise FoldError(
            'deployment and export fold batch norms with running statistics '
            f'(BN, SyncBN) in eval mode into convolutions, which {bn} is '
            'not; a network of such norms runs as it is, in PyTorch'
        )
    scale = (bn.running_var.double() + bn.eps).rsqrt()
    shift = -bn.running_mean.double() * scale
    if bn.affine:
        weight, bias = bn.weight.detach().double(), bn.bias.detach().double()
        scale, shift = weight * scale, weight * shift + bias
    return scale, shift


def bias_of(layer: nn.Module) -> Tensor:
    """Return the bias of a layer that has one, without its gradient."""
    return layer.get_parameter('bias').detach()


def residual(weight: Tensor) -> Tensor:
    """Make a depthwise convolution's sum with its input a convolution.

    Args:
        weight (Tensor): ``(channels, 1, k, k)``, k odd.

    Returns:
        Tensor: The same shape, with 1 added to the centre tap.
    """
    weight = weight.clone()
    centre = weight.shape[-1] // 2
    weight[..., centre, centre] += 1
    return weight


def frozen(value: Tensor, like: Tensor) -> nn.Parameter:
    """Make a folded value a parameter that is not trained.

    Args:
        value (Tensor): Of any strides.
        like (Tensor): Gives the dtype.

    Returns:
        nn.Parameter: Contiguous.
    """
    value = value.to(like.dtype, memory_format=torch.contiguous_format)
    return nn.Parameter(value.contiguous(), requires_grad=False)
