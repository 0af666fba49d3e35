"""Feed-forward network of two pointwise convolutions."""

from mmengine.model import BaseModule
from torch import Tensor

from .conv_bn import ConvBN


class FFN(BaseModule):
    """ConvBN 1x1, ReLU, ConvBN 1x1; the residual is the caller's.

    Args:
        channels (int): Input and output channels.
        ratio (int): Hidden channels over ``channels``. Defaults to 2.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self, channels: int, ratio: int = 2, norm_cfg: dict = dict(type='BN')
    ) -> None:
        super().__init__()
        hidden = channels * ratio
        self.pw1 = ConvBN(channels, hidden, act=True, norm_cfg=norm_cfg)
        self.pw2 = ConvBN(hidden, channels, norm_weight=0.0, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return self.pw2(self.pw1(x))
