"""The state-space model that scans a feature map in several directions."""

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmamba.ops import bidirectional_scan, selective_scan

from .conv_bn import ConvBN


class SSM(BaseModule):
    """Multi-directional selective state-space model.

    Directions 0 and 1 read the map row by row, forwards and backwards;
    directions 2 and 3 column by column (MobileMamba, Tab. 8d).

    Args:
        channels (int): ``G``, input and output channels.
        ssm_ratio (float): Inner channels ``D`` over ``channels``.
            Defaults to 2.
        d_state (int): State size ``N`` of each inner channel. Defaults to 1.
        directions (int): Scan directions ``K``: 1, 2 or 4. Defaults to 2.
        norm_cfg (dict): Config of the projections' norms. Defaults to
            ``dict(type='BN')``.
    """

    def __init__(
        self,
        channels: int,
        ssm_ratio: float = 2,
        d_state: int = 1,
        directions: int = 2,
        norm_cfg: dict = dict(type='BN'),
    ) -> None:
        super().__init__()
        d_inner = int(ssm_ratio * channels)
        if d_inner < 1:
            raise ValueError(
                f'ssm_ratio={ssm_ratio} of {channels} channels leaves none'
            )
        self.d_state = d_state
        self.directions = directions
        self.dt_rank = math.ceil(channels / 16)

        self.in_proj = ConvBN(channels, 2 * d_inner, norm_cfg=norm_cfg)
        self.dwconv = nn.Conv2d(d_inner, d_inner, 3, padding=1, groups=d_inner)
        self.x_proj_weight = nn.Parameter(
            torch.empty(directions, self.dt_rank + 2 * d_state, d_inner)
        )
        self.dt_proj_weight = nn.Parameter(
            torch.empty(directions, d_inner, self.dt_rank)
        )
        self.dt_proj_bias = nn.Parameter(torch.empty(directions, d_inner))
        self.A_log = nn.Parameter(torch.empty(directions * d_inner, d_state))
        self.D = nn.Parameter(torch.empty(directions * d_inner))
        self.out_norm = nn.LayerNorm(d_inner)
        self.out_proj = ConvBN(d_inner, channels, norm_cfg=norm_cfg)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the scan's parameters as published ("v2")."""
        # As nn.Linear, which draws from +-1/sqrt(fan_in).
        bound = self.x_proj_weight.shape[-1] ** -0.5
        nn.init.uniform_(self.x_proj_weight, -bound, bound)
        nn.init.uniform_(self.dt_proj_weight, 0, 0.1)
        nn.init.uniform_(self.dt_proj_bias, 0, 0.1)
        nn.init.zeros_(self.A_log)
        nn.init.ones_(self.D)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, G, H, W)`` to the same shape."""
        height, width = x.shape[-2:]
        x, z = self.in_proj(x).chunk(2, dim=1)
        x = self.scan(F.silu(self.dwconv(x)))
        x = self.out_norm(x.transpose(1, 2)).transpose(1, 2)
        x = x.unflatten(2, (height, width)) * F.silu(z)
        return self.out_proj(x)

    def scan(self, x: Tensor) -> Tensor:
        """Scan ``(B, D, H, W)`` in every direction and sum: ``(B, D, L)``."""
        # Decay rates in half precision would be off by a percent.
        A_log = self.A_log.to(
            torch.promote_types(self.A_log.dtype, torch.float32)
        )
        A = -torch.exp(A_log)
        if self.directions == 2:
            x = x.flatten(2)
            # The projection of a reversed sequence is the reversed one.
            projected = torch.matmul(self.x_proj_weight.flatten(0, 1), x)
            return bidirectional_scan(
                x,
                projected.unflatten(1, (2, -1)),
                self.dt_proj_weight,
                self.dt_proj_bias,
                A,
                self.D,
            )

        xs = self._unfold(x)
        projected = torch.einsum('bkdl,kcd->bkcl', xs, self.x_proj_weight)
        dt, B, C = projected.split(
            [self.dt_rank, self.d_state, self.d_state], dim=2
        )
        delta = torch.einsum('bkrl,kdr->bkdl', dt, self.dt_proj_weight)
        ys = selective_scan(
            xs.flatten(1, 2),
            delta.flatten(1, 2),
            A,
            B,
            C,
            self.D,
            delta_bias=self.dt_proj_bias.flatten(),
            delta_softplus=True,
        )
        return self._fold(ys.unflatten(1, xs.shape[1:3]), x.shape)

    def _unfold(self, x: Tensor) -> Tensor:
        """``(B, D, H, W)`` to one sequence per direction, ``(B, K, D, L)``.

        Two directions have an op of their own.
        """
        rows = x.flatten(2)
        if self.directions == 1:
            return rows[:, None]
        columns = x.transpose(2, 3).flatten(2)
        return torch.stack(
            [rows, rows.flip(-1), columns, columns.flip(-1)], dim=1
        )

    def _fold(self, ys: Tensor, shape: torch.Size) -> Tensor:
        """Undo :meth:`_unfold` and sum the directions: ``(B, D, L)``."""
        if self.directions == 1:
            return ys[:, 0]
        rows = ys[:, 0] + ys[:, 1].flip(-1)
        columns = ys[:, 2] + ys[:, 3].flip(-1)
        columns = columns.unflatten(-1, (shape[3], shape[2]))
        return rows + columns.transpose(2, 3).flatten(2)
