"""The mixer's wavelet branch: a convolution between two Haar transforms."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn


def haar_filters(channels: int) -> Tensor:
    """Filters of the one-level orthonormal Haar transform.

    The subbands are LL, then the differences between rows, between columns
    and of both; repeated for every channel.

    Args:
        channels (int): Channels to transform.

    Returns:
        Tensor: ``(4 * channels, 1, 2, 2)`` float32, rows being image rows.
    """
    subbands = torch.tensor(
        [
            [[1.0, 1.0], [1.0, 1.0]],
            [[1.0, 1.0], [-1.0, -1.0]],
            [[1.0, -1.0], [1.0, -1.0]],
            [[1.0, -1.0], [-1.0, 1.0]],
        ]
    )
    return (subbands / 2)[:, None].repeat(channels, 1, 1, 1)


class WaveletConv(BaseModule):
    """Depthwise convolution in the Haar domain (MobileMamba, Sec. 3.2).

    Args:
        channels (int): ``G``, input and output channels.
        kernel_size (int): Kernel size of the depthwise convolution over the
            4G subband maps.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.channels = channels
        # Fixed, but parameters all the same: they are in the published
        # checkpoints and in the published parameter counts.
        self.filter = nn.Parameter(haar_filters(channels), requires_grad=False)
        self.inverse_filter = nn.Parameter(
            haar_filters(channels), requires_grad=False
        )
        self.conv = nn.Conv2d(
            4 * channels,
            4 * channels,
            kernel_size,
            padding=kernel_size // 2,
            groups=4 * channels,
            bias=False,
        )
        self.scale = nn.Parameter(torch.full((1, 4 * channels, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, G, H, W)`` to the same shape."""
        height, width = x.shape[-2:]
        x = F.pad(x, (0, width % 2, 0, height % 2))
        x = F.conv2d(x, self.filter, stride=2, groups=self.channels)
        x = self.scale * self.conv(x)
        x = F.conv_transpose2d(
            x, self.inverse_filter, stride=2, groups=self.channels
        )
        return x[..., :height, :width]
