"""MK-DeConv: the mixer's local branch."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from .conv_bn import depthwise_conv_bn


class MultiKernelDWConv(BaseModule):
    """Efficient multi-kernel depthwise convolution (MobileMamba, Sec. 3.2).

    Each part of the channels goes through a depthwise ConvBN, ReLU and a
    depthwise 1x1 ConvBN.

    Args:
        channels (int): Input and output channels.
        kernel_size (int): Kernel size where there is one part.
        num_parts (int): ``n``: parts the channels are cut into; with more
            than one the kernel sizes are 3, 5, ..., 2n+1. Defaults to 1.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.

    Raises:
        ValueError: If a part would have no channel.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        num_parts: int = 1,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        if num_parts > channels:
            raise ValueError(
                f'num_parts={num_parts} is more than the {channels} channels '
                'of the local branch'
            )
        kernels = (
            [kernel_size]
            if num_parts == 1
            else [2 * i + 3 for i in range(num_parts)]
        )
        # As even as possible, the first parts taking what remains.
        self.split = [
            channels // num_parts + (i < channels % num_parts)
            for i in range(num_parts)
        ]
        self.parts = nn.ModuleList(
            nn.Sequential(
                depthwise_conv_bn(width, kernel, act=True, norm_cfg=norm_cfg),
                depthwise_conv_bn(width, 1, norm_cfg=norm_cfg),
            )
            for width, kernel in zip(self.split, kernels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        parts = x.split(self.split, dim=1)
        return torch.cat([conv(p) for conv, p in zip(self.parts, parts)], 1)
