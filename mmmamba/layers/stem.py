"""The stem: the image at a sixteenth of its size."""

from torch import nn

from .conv_bn import ConvBN


class Stem(nn.Sequential):
    """Four stride-2 ConvBN, ReLU between them and none after the last.

    Args:
        in_channels (int): Channels of the image.
        channels (int): Output channels; the first three units have an
            eighth, a quarter and a half of them.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
    """

    def __init__(
        self, in_channels: int, channels: int, norm_cfg: dict = dict(type='BN')
    ) -> None:
        widths = [in_channels] + [channels // d for d in (8, 4, 2, 1)]
        super().__init__(
            *(
                ConvBN(
                    widths[i],
                    widths[i + 1],
                    kernel_size=3,
                    stride=2,
                    act=i < 3,
                    norm_cfg=norm_cfg,
                )
                for i in range(4)
            )
        )
