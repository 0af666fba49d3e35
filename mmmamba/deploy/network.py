"""Stem and stages of a deployed backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from mmmamba.ops import stem_conv

from .layers import Block, OpParameters, StemConv, Transition, slots

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
        stage (layers.Stage): The trained stage.
    """

    def __init__(self, stage: layers.Stage) -> None:
        super().__init__()
        self.transition = (
            nn.Identity()
            if isinstance(stage.transition, nn.Identity)
            else Transition(stage.transition)
        )
        blocks = [cast('layers.MobileMambaBlock', b) for b in stage.blocks]
        self.blocks = nn.ModuleList(Block(block) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to this stage's ``(B, H', W', C')``."""
        x = self.transition(x)
        for block in self.blocks:
            x = block(x)
        return x
