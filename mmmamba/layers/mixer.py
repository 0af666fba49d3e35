"""MRFFI: the token mixer of a MobileMamba block."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .conv_bn import ConvBN
from .multi_kernel_conv import MultiKernelDWConv
from .ssm import SSM
from .wavelet import WaveletConv


class WTEMamba(BaseModule):
    """Wavelet transform-enhanced Mamba, the mixer's global branch.

    Args:
        channels (int): ``G``, input and output channels.
        kernel_size (int): Kernel size of the wavelet branch.
        wavelet (bool): Whether there is a wavelet branch. Defaults to True.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        **ssm_cfg: Passed to :class:`SSM`.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        wavelet: bool = True,
        norm_cfg: dict = dict(type='BN'),
        **ssm_cfg,
    ) -> None:
        super().__init__()
        self.ssm = SSM(channels, norm_cfg=norm_cfg, **ssm_cfg)
        self.base_scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.wavelet = WaveletConv(channels, kernel_size) if wavelet else None

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, G, H, W)`` to the same shape."""
        out = self.base_scale * self.ssm(x)
        if self.wavelet is not None:
            out = out + self.wavelet(x)
        return out


class MRFFI(BaseModule):
    """Multi-receptive field feature interaction (MobileMamba, Sec. 3.2).

    The channels are cut into a global part (:class:`WTEMamba`), a local part
    (:class:`MultiKernelDWConv`) and the rest, which passes through.

    Args:
        channels (int): Input and output channels.
        global_ratio (float): Share of the global part; its channels are
            rounded to the nearest multiple of 16, a tie going up.
        local_ratio (float): Share of the local part; it yields where both
            parts together exceed ``channels``.
        kernel_size (int): Kernel size of the wavelet and local branches.
        num_parts (int): Parts of :class:`MultiKernelDWConv`. Defaults to 1.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        **global_cfg: Passed to :class:`WTEMamba`.

    Raises:
        ValueError: If the global part has no channel or more than there are.
    """

    def __init__(
        self,
        channels: int,
        global_ratio: float,
        local_ratio: float,
        kernel_size: int,
        num_parts: int = 1,
        norm_cfg: dict = dict(type='BN'),
        **global_cfg,
    ) -> None:
        super().__init__()
        global_channels = (int(global_ratio * channels) + 8) // 16 * 16
        if not 0 < global_channels <= channels:
            raise ValueError(
                f'global_ratio={global_ratio} of {channels} channels rounds to'
                f' {global_channels} (a multiple of 16), which is not within '
                f'1..{channels}; change the ratio or the width'
            )
        local_channels = min(
            int(local_ratio * channels), channels - global_channels
        )
        self.split = [
            global_channels,
            local_channels,
            channels - global_channels - local_channels,
        ]
        self.global_branch = WTEMamba(
            global_channels, kernel_size, norm_cfg=norm_cfg, **global_cfg
        )
        self.local_branch = (
            MultiKernelDWConv(
                local_channels, kernel_size, num_parts, norm_cfg=norm_cfg
            )
            if local_channels
            else nn.Identity()
        )
        self.proj = ConvBN(
            channels, channels, norm_weight=0.0, norm_cfg=norm_cfg
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        x_global, x_local, x_identity = x.split(self.split, dim=1)
        x = torch.cat(
            [
                self.global_branch(x_global),
                self.local_branch(x_local),
                x_identity,
            ],
            1,
        )
        return self.proj(F.relu(x))
