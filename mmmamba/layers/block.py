"""The MobileMamba block."""

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor

from .conv_bn import depthwise_conv_bn
from .ffn import FFN
from .mixer import MRFFI


class MobileMambaBlock(BaseModule):
    """Depthwise conv, FFN, mixer, depthwise conv, FFN (MobileMamba, Fig. 4c).

    Each has its own residual, and an outer residual with drop path goes
    around all five.

    Args:
        channels (int): Input and output channels.
        drop_path_rate (float): Drop-path rate. Defaults to 0.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        **mixer_cfg: Passed to :class:`MRFFI`.
    """

    def __init__(
        self,
        channels: int,
        drop_path_rate: float = 0.0,
        norm_cfg: dict = dict(type='BN'),
        **mixer_cfg,
    ) -> None:
        super().__init__()
        self.dwconv1 = depthwise_conv_bn(
            channels, norm_weight=0.0, norm_cfg=norm_cfg
        )
        self.ffn1 = FFN(channels, norm_cfg=norm_cfg)
        self.mixer = MRFFI(channels, norm_cfg=norm_cfg, **mixer_cfg)
        self.dwconv2 = depthwise_conv_bn(
            channels, norm_weight=0.0, norm_cfg=norm_cfg
        )
        self.ffn2 = FFN(channels, norm_cfg=norm_cfg)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        shortcut = x
        x = x + self.dwconv1(x)
        x = x + self.ffn1(x)
        x = x + self.mixer(x)
        x = x + self.dwconv2(x)
        x = x + self.ffn2(x)
        return shortcut + self.drop_path(x)
