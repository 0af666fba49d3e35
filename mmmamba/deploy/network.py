"""Stem and stages of a deployed backbone."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mmmamba.ops import has_dot_products, is_packed, stage, stem_conv
from mmmamba.ops.backend import inference_op_serves, kernels_serve
from mmmamba.ops.packed_weight import PACKED_DTYPES

from .layers import (
    Block,
    Linear,
    OpParameters,
    Slot,
    StemConv,
    Transition,
    slots,
)

if TYPE_CHECKING:  # a deployed network needs no OpenMMLab
    from mmmamba import layers

#: What the products of a deployed network may be in.
DTYPES = ('float32', *PACKED_DTYPES)


class Stem(nn.Sequential):
    """Four stride-2 convolutions, ReLU between them.

    Args:
        stem (layers.Stem): The trained stem.
    """

    def __init__(self, stem: layers.Stem) -> None:
        units = [cast('layers.ConvBN', unit) for unit in stem]
        convs = [StemConv(unit) for unit in units]
        super().__init__(*convs)
        self._op_parameters = OpParameters(
            [slot for conv in convs for slot in slots(conv, 'weight')],
            [slot for conv in convs for slot in slots(conv, 'bias')],
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, H/16, W/16, C')``, rounded up."""
        return stem_conv(x, *self._op_parameters.read())


class Stage(nn.Module):
    """A transition, if there is one, and blocks.

    Args:
        trained (layers.Stage): The trained stage.
    """

    def __init__(self, trained: layers.Stage) -> None:
        super().__init__()
        self.transition: nn.Module = nn.Identity()
        parameters: list[Slot] = []
        kernels: list[Tensor | None] = []
        if not isinstance(trained.transition, nn.Identity):
            self.transition = Transition(trained.transition)
            parameters += self.transition.slots()
            kernels += self.transition.kernels()
        blocks = [
            Block(cast('layers.MobileMambaBlock', b)) for b in trained.blocks
        ]
        self.blocks = nn.ModuleList(blocks)
        self._has_transition = bool(parameters)
        parameters += [slot for block in blocks for slot in block.slots()]
        self._op_parameters = OpParameters(parameters)
        for block in blocks:
            kernels += block.op_parameters().kernels()
        # The blocks of a stage differ in the values of their parameters alone.
        mixer = blocks[0].mixer
        self._wavelet = mixer.wavelet_weight is not None
        self._local = mixer.local_weight is not None
        self._eps = mixer.ssm.eps
        self._fits_op = mixer.ssm.directions == 2 and kernels_serve(kernels)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to this stage's ``(B, H', W', C')``."""
        # In a trace, other runtimes know the layers and not the stage.
        if self._fits_op and not torch.jit.is_tracing():
            (parameters,) = self._op_parameters.read()
            if inference_op_serves(x, *parameters, dtypes=(torch.float32,)):
                form = (self._has_transition, self._wavelet, self._local)
                return stage(x, parameters, *form, self._eps)
        x = self.transition(x)
        for block in self.blocks:
            x = block(x)
        return x


def check_dtype(dtype: str) -> None:
    """Refuse a dtype that a network cannot be deployed in.

    Args:
        dtype (str): That of the products.

    Raises:
        ValueError: If it is not one of ``DTYPES``.
    """
    if dtype not in DTYPES:
        raise ValueError(
            f'the dtype of a deployed MobileMamba may be {", ".join(DTYPES)}, '
            f'not {dtype!r}'
        )


def multiplies_fewer_bits(model: nn.Module, dtype: str) -> bool:
    """Tell whether products with fewer bits are fast for a model.

    Args:
        model (nn.Module): Any model.
        dtype (str): ``'bfloat16'`` or ``'int8'``.

    Returns:
        bool: Whether all of it is on a CPU that has instructions for them.
    """
    on_cpu = all(p.device.type == 'cpu' for p in model.parameters())
    return on_cpu and has_dot_products(dtype)


def pack_products(network: nn.Module, dtype: str) -> None:
    """Give the weights of convolutions fewer bits, in place.

    Those of 1x1 get the dtype, those of the stem bfloat16 but for the first,
    which sees the image. Depthwise ones, the scan and the norms stay as they
    are, as does what is packed already.

    Args:
        network (nn.Module): A deployed network in float32, or a model with
            one.
        dtype (str): ``'bfloat16'`` or ``'int8'``; ``'float32'`` does nothing.

    Raises:
        ValueError: If the dtype is another one, or the network is packed in
            another one.
    """
    check_dtype(dtype)
    if dtype == 'float32':
        return
    if not multiplies_fewer_bits(network, dtype):
        warnings.warn(
            f'products of {dtype} are slow here: they are for CPUs, and need '
            "the compiled ops and the CPU's instructions for them; float32 is "
            'faster',
            stacklevel=2,
        )
    for layer in network.modules():
        if isinstance(layer, Linear) and not is_packed(layer.weight):
            layer.pack(dtype)
        elif isinstance(layer, Linear):
            _, packed_dtype = PACKED_DTYPES[dtype]
            if layer.weight.dtype != packed_dtype:
                raise ValueError(
                    f'the network is deployed with fewer bits already, and '
                    f'not in {dtype}'
                )
        elif isinstance(layer, Stem):
            for conv in list(layer)[1:]:
                conv.weight.data = conv.weight.data.bfloat16()
