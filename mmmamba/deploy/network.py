"""Stem and stages of a deployed backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from mmmamba.ops import stage, stem_conv
from mmmamba.ops.backend import inference_op_serves, kernels_serve

from .layers import Block, OpParameters, Slot, StemConv, Transition, slots

if TYPE_CHECKING:  # a deployed network needs no OpenMMLab
    from mmmamba import layers


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
        kernels += [weight for block in blocks for weight in block.kernels()]
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
