"""Stem and stages of a deployed backbone."""

from torch import Tensor, nn

from mmmamba.ops import stem_conv

from . import layers


class Stem(nn.Sequential):
    """Four stride-2 convolutions, ReLU between them.

    Args:
        stem (nn.Sequential): The trained stem.
    """

    def __init__(self, stem: nn.Sequential) -> None:
        super().__init__(*(layers.StemConv(unit) for unit in stem))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, H/16, W/16, C')``, rounded up."""
        weights = [conv.weight for conv in self]
        biases = [conv.bias for conv in self]
        return stem_conv(x, weights, biases)


class Stage(nn.Module):
    """A transition, if there is one, and blocks.

    Args:
        stage (nn.Module): The trained stage.
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.transition = (
            nn.Identity()
            if isinstance(stage.transition, nn.Identity)
            else layers.Transition(stage.transition)
        )
        self.blocks = nn.ModuleList(layers.Block(b) for b in stage.blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to this stage's ``(B, H', W', C')``."""
        x = self.transition(x)
        for block in self.blocks:
            x = block(x)
        return x
