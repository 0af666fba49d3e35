"""Feature pyramid for a backbone whose finest stride is 16."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class MobileMambaFPN(BaseModule):
    """FPN that also builds levels finer than its inputs.

    A plain `FPN <https://arxiv.org/abs/1612.03144>`_ over the inputs; the
    finer levels come from a chain of 2x2 stride-2 transposed convolutions on
    the finest merged input. No norm, no activation. Parameter names are the
    published ones.

    Args:
        in_channels (Sequence[int]): Channels of each input, finest first.
        out_channels (int): Channels of every output. Defaults to 256.
        num_outs (int): Number of outputs. Defaults to 5.
        num_finer (int): How many of them are finer than the first input.
            Defaults to 1.
        add_extra_convs (bool | str): How levels coarser than the last input
            are made, as in mmdet's FPN: ``False`` subsamples the last output;
            ``'on_input'`` takes 3x3 stride-2 convolutions, the first of them
            on the last input. Defaults to False.
        init_cfg (dict): Initialization config. Defaults to Xavier uniform
            for the convolutions.

    Raises:
        ValueError: If ``num_outs`` does not cover inputs and finer levels,
            or ``add_extra_convs`` is neither of the above.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        num_outs: int = 5,
        num_finer: int = 1,
        add_extra_convs: bool | str = False,
        init_cfg: dict | list[dict] | None = dict(
            type='Xavier', layer='Conv2d', distribution='uniform'
        ),
    ) -> None:
        super().__init__(init_cfg)
        self.num_coarser = num_outs - num_finer - len(in_channels)
        if self.num_coarser < 0:
            raise ValueError(
                f'num_outs={num_outs} is less than the {len(in_channels)} '
                f'inputs and the {num_finer} finer levels together'
            )
        if add_extra_convs not in (False, 'on_input'):
            raise ValueError(
                f'add_extra_convs={add_extra_convs!r} must be '
                "False or 'on_input'"
            )
        self.add_extra_convs = add_extra_convs
        self.in_channels = tuple(in_channels)

        def conv3x3(channels, stride=1):
            return ConvModule(
                channels,
                out_channels,
                3,
                stride=stride,
                padding=1,
                act_cfg=None,
            )

        self.lateral_convs = nn.ModuleList(
            ConvModule(channels, out_channels, 1, act_cfg=None)
            for channels in in_channels
        )
        self.fpn_convs = nn.ModuleList(
            conv3x3(out_channels) for _ in in_channels
        )
        if add_extra_convs:
            self.fpn_convs.extend(
                conv3x3(out_channels if i else in_channels[-1], stride=2)
                for i in range(self.num_coarser)
            )
        self.extra_trans_convs = nn.ModuleList(
            ConvModule(
                out_channels,
                out_channels,
                2,
                stride=2,
                conv_cfg=dict(type='deconv'),
                act_cfg=None,
            )
            for _ in range(num_finer)
        )
        self.extra_fpn_convs = nn.ModuleList(
            conv3x3(out_channels) for _ in range(num_finer)
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Build the pyramid.

        Args:
            inputs (Sequence[Tensor]): Maps ``(B, in_channels[i], H_i, W_i)``,
                finest first.

        Returns:
            tuple[Tensor, ...]: ``num_outs`` maps of ``out_channels``, finest
            first.

        Raises:
            ValueError: If there are more or fewer inputs than ``in_channels``.
        """
        if len(inputs) != len(self.in_channels):
            raise ValueError(
                f'MobileMambaFPN was built for {len(self.in_channels)} '
                f'inputs, got {len(inputs)}; out_indices of the backbone and '
                'in_channels must agree'
            )
        levels = [conv(x) for conv, x in zip(self.lateral_convs, inputs)]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + F.interpolate(
                levels[i], size=levels[i - 1].shape[2:], mode='nearest'
            )
        outs = [conv(x) for conv, x in zip(self.fpn_convs, levels)]

        finer: list[Tensor] = []
        x = levels[0]
        for conv in self.extra_trans_convs:
            x = conv(x)
            finer.insert(0, x)
        # The published numbering runs from the finest level.
        outs = [conv(x) for conv, x in zip(self.extra_fpn_convs, finer)] + outs

        source = inputs[-1]
        for i in range(self.num_coarser):
            if self.add_extra_convs:
                source = self.fpn_convs[len(inputs) + i](source)
                outs.append(source)
            else:
                outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
