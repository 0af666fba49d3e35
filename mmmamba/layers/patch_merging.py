"""Downsampling between two stages."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .conv_bn import ConvBN, depthwise_conv_bn
from .ffn import FFN


class SqueezeExcite(BaseModule):
    """Gate each channel by a function of all channels' means.

    Args:
        channels (int): Input and output channels.
        hidden (int): Channels of the bottleneck.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        gate = F.relu(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * self.fc2(gate).sigmoid()


class PatchMerging(BaseModule):
    """Inverted bottleneck of stride 2 with squeeze-and-excite.

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        hidden = 4 * in_channels
        self.expand = ConvBN(in_channels, hidden, act=True, norm_cfg=norm_cfg)
        self.dwconv = depthwise_conv_bn(
            hidden, stride=2, act=True, norm_cfg=norm_cfg
        )
        self.se = SqueezeExcite(hidden, in_channels)
        self.project = ConvBN(hidden, out_channels, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', ceil(H/2), ceil(W/2))``."""
        return self.project(self.se(self.dwconv(self.expand(x))))


class Transition(BaseModule):
    """What begins a stage: residual layers on both sides of the merging.

    Args:
        in_channels (int): Width of the previous stage.
        out_channels (int): Width of this stage.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        self.dwconv1 = depthwise_conv_bn(in_channels, norm_cfg=norm_cfg)
        self.ffn1 = FFN(in_channels, norm_cfg=norm_cfg)
        self.merging = PatchMerging(in_channels, out_channels, norm_cfg)
        self.dwconv2 = depthwise_conv_bn(out_channels, norm_cfg=norm_cfg)
        self.ffn2 = FFN(out_channels, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to ``(B, C', ceil(H/2), ceil(W/2))``."""
        x = x + self.dwconv1(x)
        x = x + self.ffn1(x)
        x = self.merging(x)
        x = x + self.dwconv2(x)
        x = x + self.ffn2(x)
        return x
