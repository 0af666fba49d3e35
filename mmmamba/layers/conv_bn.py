"""Convolution followed by a norm, the unit every other layer is made of."""

from mmcv.cnn import ConvModule
from mmengine.model import constant_init


class ConvBN(ConvModule):
    """Bias-free convolution, norm and, where asked for, an in-place ReLU.

    "Same" padding for odd kernels. The convolution keeps PyTorch's own
    initialization, as in the published code.

    Args:
        in_channels (int): Input channels.
        out_channels (int): Output channels.
        kernel_size (int): Kernel size. Defaults to 1.
        stride (int): Stride. Defaults to 1.
        groups (int): Groups of the convolution. Defaults to 1.
        act (bool): Whether a ReLU follows. Defaults to False.
        norm_weight (float): Initial scale of the norm. Zero makes a residual
            branch start as the identity. Defaults to 1.
        norm_cfg (dict): Config of the norm. Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: bool = False,
        norm_weight: float = 1.0,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        self.norm_weight = norm_weight
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
            norm_cfg=norm_cfg,
            act_cfg=dict(type='ReLU') if act else None,
        )

    def init_weights(self) -> None:
        """Set the norm's scale; called by the parent's constructor too."""
        constant_init(self.norm, self.norm_weight)


def depthwise_conv_bn(channels: int, kernel_size: int = 3, **kwargs) -> ConvBN:
    """A :class:`ConvBN` with one filter per channel.

    Args:
        channels (int): Input and output channels.
        kernel_size (int): Kernel size. Defaults to 3.
        **kwargs: Passed to :class:`ConvBN`.

    Returns:
        ConvBN: The unit.
    """
    return ConvBN(channels, channels, kernel_size, groups=channels, **kwargs)
