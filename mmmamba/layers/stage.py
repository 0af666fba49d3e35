"""A stage of the network."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .block import MobileMambaBlock
from .patch_merging import Transition


class Stage(BaseModule):
    """A transition from the previous stage, if there is one, and blocks.

    Args:
        in_channels (int | None): Width of the previous stage, or None for
            the first stage.
        channels (int): Width of this stage.
        drop_path_rates (Sequence[float]): Drop-path rate of each block.
        with_cp (bool): Whether to recompute each block's activations in the
            backward pass instead of storing them. Defaults to False.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        **mixer_cfg: Passed to the blocks' mixer.
    """

    def __init__(
        self,
        in_channels: int | None,
        channels: int,
        drop_path_rates: Sequence[float],
        with_cp: bool = False,
        norm_cfg: dict = dict(type='BN'),
        **mixer_cfg,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.transition = (
            nn.Identity()
            if in_channels is None
            else Transition(in_channels, channels, norm_cfg)
        )
        self.blocks = nn.ModuleList(
            MobileMambaBlock(channels, rate, norm_cfg, **mixer_cfg)
            for rate in drop_path_rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C_prev, H, W)`` to this stage's ``(B, C, H', W')``."""
        x = self.transition(x)
        for block in self.blocks:
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x
