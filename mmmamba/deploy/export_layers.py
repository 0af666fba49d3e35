"""The counterparts of :mod:`mmmamba.layers` that every exporter knows.

The numbers are those of the deployed network, folded in float64. The form is
another: maps are ``(B, C, H, W)``, because runtimes lay out convolutions
themselves, and the scan is unrolled in standard operations. Sizes but the
batch's are numbers, not tensors, so that a trace holds no arithmetic of them.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.ops import bidirectional_scan

from . import fold
from .layers import local_branch
from .unrolled_scan import unrolled_scan

if TYPE_CHECKING:
    from mmmamba import backbones, layers

# Positions of the largest map whose Haar transform is a product: its work
# grows with their square.
_MAX_MATRIX = 64

# What the channels of a convolution are a multiple of, or ONNX Runtime takes
# it for a product, on maps in another layout and in up to thrice the time.
_BLOCK = 4


def conv_of(weight: Tensor, bias: Tensor, like: nn.Conv2d) -> nn.Conv2d:
    """Make a convolution of folded numbers, "same" padded.

    Args:
        weight (Tensor): ``(out, in/groups, k, k)``.
        bias (Tensor): ``(out,)``.
        like (nn.Conv2d): Gives stride, groups and dtype.

    Returns:
        nn.Conv2d: Not trained.
    """
    kernel = weight.shape[-1]
    conv = nn.Conv2d(
        weight.shape[1] * like.groups,
        len(weight),
        kernel,
        cast('tuple[int, int]', like.stride),
        kernel // 2,
        groups=like.groups,
    )
    conv.weight = fold.frozen(weight, like.weight)
    conv.bias = fold.frozen(bias, like.weight)
    return conv


def folded(unit: layers.ConvBN, residual: bool = False) -> nn.Conv2d:
    """Fold a unit, and its sum with its input if asked for, to one conv."""
    weight, bias = fold.conv_bn(unit)
    if residual:
        weight = fold.residual(weight)
    return conv_of(weight, bias, unit.conv)


class Stem(nn.Sequential):
    """Four stride-2 convolutions, ReLU between them.

    Channels of zeros fill the maps between them up to whole blocks.

    Args:
        stem (layers.Stem): The trained stem.
    """

    def __init__(self, stem: layers.Stem) -> None:
        parts: list[nn.Module] = []
        units = [cast('layers.ConvBN', unit) for unit in stem]
        width = units[0].conv.in_channels
        for unit in units:
            weight, bias = fold.conv_bn(unit)
            last = unit is units[-1]
            more_in = width - weight.shape[1]
            more_out = 0 if last else -len(weight) % _BLOCK
            weight = F.pad(weight, (0, 0, 0, 0, 0, more_in, 0, more_out))
            bias = F.pad(bias, (0, more_out))
            parts += [conv_of(weight, bias, unit.conv), nn.ReLU()]
            width = len(weight)
        super().__init__(*parts[:-1])


class FFN(nn.Module):
    """Two 1x1 convolutions and the residual.

    Args:
        ffn (layers.FFN): The trained layer.
    """

    def __init__(self, ffn: layers.FFN) -> None:
        super().__init__()
        self.pw1, self.pw2 = folded(ffn.pw1), folded(ffn.pw2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return x + self.pw2(F.relu(self.pw1(x)))


class SSM(nn.Module):
    """State-space model, times the scale behind it.

    Args:
        ssm (layers.SSM): The trained layer.
        scale (Tensor): Scale of the output, ``(G,)`` float64.
        by_op (bool): Whether the scan is an op of ours. One direction alone
            has none.
    """

    def __init__(self, ssm: layers.SSM, scale: Tensor, by_op: bool) -> None:
        super().__init__()
        like = ssm.dwconv.weight
        self.directions = ssm.directions
        self.by_op = by_op and ssm.directions > 1
        self.d_state, self.dt_rank = ssm.d_state, ssm.dt_rank
        self.d_inner = len(like)
        # Two convolutions, since runtimes copy what they split.
        weight, bias = fold.conv_bn(ssm.in_proj)
        self.in_x, self.in_z = (
            conv_of(w, b, ssm.in_proj.conv)
            for w, b in zip(weight.chunk(2), bias.chunk(2))
        )
        self.dwconv = conv_of(like, fold.bias_of(ssm.dwconv), ssm.dwconv)
        # Each with the directions first: (K, 1, D, R + 2N), (K, 1, R, D),
        # (K, 1, 1, D) and (K, 1, 1, D, N).
        x_proj = ssm.x_proj_weight.detach().transpose(1, 2)
        dt_proj = ssm.dt_proj_weight.detach().transpose(1, 2)
        A = -ssm.A_log.detach().double().exp()
        A = A.view(self.directions, 1, 1, self.d_inner, self.d_state)
        self.x_proj = fold.frozen(x_proj[:, None], like)
        self.dt_proj = fold.frozen(dt_proj[:, None], like)
        self.dt_bias = fold.frozen(
            ssm.dt_proj_bias.detach()[:, None, None], like
        )
        self.A = fold.frozen(A, like)
        self.D = fold.frozen(ssm.D.detach().view(self.directions, -1), like)
        self.norm = nn.LayerNorm(self.d_inner, ssm.out_norm.eps)
        self.norm.load_state_dict(ssm.out_norm.state_dict())
        self.norm.to(like.dtype)
        weight, bias = fold.conv_bn(ssm.out_proj)
        self.out_proj = conv_of(
            weight * scale[:, None, None, None],
            bias * scale,
            ssm.out_proj.conv,
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, G, H, W)`` to the same shape."""
        height, width = int(x.shape[2]), int(x.shape[3])
        z = self.in_z(x)
        x = F.silu(self.dwconv(self.in_x(x)))
        x = x.reshape(-1, self.d_inner, height * width).transpose(1, 2)
        scan = self.scan_by_op if self.by_op else self.scan
        y = layer_norm(scan(x, height, width), self.norm)
        y = y.transpose(1, 2).reshape(-1, self.d_inner, height, width)
        return self.out_proj(y * F.silu(z))

    def scan(self, x: Tensor, height: int, width: int) -> Tensor:
        """Scan ``(B, L, D)`` in all directions, and sum."""
        R, N, length = self.dt_rank, self.d_state, height * width
        directions = range(self.directions)
        # (K, B, L, D)
        xs = torch.stack([in_order(x, k, height, width) for k in directions])
        dt, B, C = torch.matmul(xs, self.x_proj).split([R, N, N], 3)
        delta = softplus(torch.matmul(dt, self.dt_proj) + self.dt_bias)
        driven = delta * xs
        states = zip(self.A.unbind(4), B.split(1, 3), C.split(1, 3))
        ys = reduce(
            torch.add,
            (
                unrolled_scan(delta * a, driven * b, length) * c
                for a, b, c in states
            ),
        )
        total = x * self.D.sum(0)
        for k in directions:
            total = total + in_order(ys[k], k, height, width, back=True)
        return total

    def scan_by_op(self, x: Tensor, height: int, width: int) -> Tensor:
        """Do as :meth:`scan`, by the op that scans a pair of directions."""
        ys = []
        for k in range(0, self.directions, 2):
            pair = slice(k, k + 2)
            xs = in_order(x, k, height, width)
            # (2, B, L, R + 2N)
            projected = torch.matmul(xs[None], self.x_proj[pair])
            y = bidirectional_scan(
                xs.transpose(1, 2),
                projected.permute(1, 0, 3, 2),
                self.dt_proj[pair, 0].transpose(1, 2),
                self.dt_bias[pair].flatten(1),
                self.A[pair].flatten(0, 3),
                self.D[pair].flatten(),
            )
            ys.append(in_order(y.transpose(1, 2), k, height, width, back=True))
        return reduce(torch.add, ys)


def in_order(
    x: Tensor, direction: int, height: int, width: int, back: bool = False
) -> Tensor:
    """Put the positions of ``(B, L, C)`` in the order of a direction.

    Args:
        x (Tensor): Row by row.
        direction (int): 0 and 1 row by row, forwards and backwards; 2 and 3
            column by column.
        height (int): Rows of the map.
        width (int): Its columns.
        back (bool): Whether to undo it. Defaults to False.

    Returns:
        Tensor: Of the same shape.
    """
    if back and direction % 2:
        x = x.flip(1)
    if direction >= 2:
        rows, columns = (width, height) if back else (height, width)
        channels = int(x.shape[2])
        x = x.reshape(-1, rows, columns, channels).transpose(1, 2)
        x = x.reshape(-1, height * width, channels)
    return x.flip(1) if direction % 2 and not back else x


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Normalize ``(..., D)`` by operations that are vectorized everywhere.

    ONNX Runtime's own LayerNormalization takes three times as long.
    """
    x = x - x.mean(-1, keepdim=True)
    variance = (x * x).mean(-1, keepdim=True)
    return x * (variance + norm.eps).rsqrt() * norm.weight + norm.bias


def softplus(x: Tensor) -> Tensor:
    """Softplus of float32 precision, of operations that are fast everywhere.

    ``log(1 + y)`` alone is off by the rounding of the sum, which is all there
    is of it where y is small; the second term makes it good.
    """
    y = torch.exp(-x.abs())
    u = y + 1
    return F.relu(x) + (torch.log(u) + (y - (u - 1)))


class Mixer(nn.Module):
    """MRFFI with its residual.

    Args:
        mixer (layers.MRFFI): The trained layer.
    """

    def __init__(self, mixer: layers.MRFFI, scan_by_op: bool) -> None:
        super().__init__()
        branch = mixer.global_branch
        self.split = mixer.split
        self.ssm = SSM(
            branch.ssm,
            branch.base_scale.detach().double()[0, :, 0, 0],
            scan_by_op,
        )
        self.wavelet = branch.wavelet and Wavelet(branch.wavelet)
        self.local = None
        if not isinstance(mixer.local_branch, nn.Identity):
            weight, bias, scale, shift = local_branch(mixer.local_branch)
            # Some of the rest fill the branch up to whole blocks. The ReLU
            # before `proj` makes the branch's own on these no change.
            *first, local, rest = self.split
            more = min(-local % _BLOCK, rest)
            self.split = [*first, local + more, rest - more]
            weight = F.pad(weight, (0, more))
            weight[weight.shape[0] // 2, weight.shape[1] // 2, local:] = 1
            bias, shift = F.pad(bias, (0, more)), F.pad(shift, (0, more))
            scale = F.pad(scale, (0, more), value=1.0)
            like = nn.Conv2d(len(bias), len(bias), 1, groups=len(bias))
            like.to(branch.base_scale.dtype)
            self.local = conv_of(weight.permute(2, 0, 1)[:, None], bias, like)
            self.scale, self.shift = (
                fold.frozen(t[:, None, None], like.weight)
                for t in (scale, shift)
            )
        self.proj = folded(mixer.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        x_global, x_local, rest = x.split(self.split, dim=1)
        y = self.ssm(x_global)
        if self.wavelet is not None:
            y = y + self.wavelet(x_global)
        if self.local is not None:
            x_local = F.relu(self.local(x_local)) * self.scale + self.shift
        # An empty part would be an empty tensor in the graph.
        parts = zip(self.split, (y, x_local, rest))
        mixed = torch.cat([part for width, part in parts if width], 1)
        return x + self.proj(F.relu(mixed))


class Wavelet(nn.Module):
    """Depthwise convolution in the Haar domain.

    Args:
        wavelet (layers.WaveletConv): The trained layer.
    """

    def __init__(self, wavelet: layers.WaveletConv) -> None:
        super().__init__()
        self.channels = wavelet.channels
        # The filter twice as large and half as large, which cancels exactly.
        # Where the weights of a convolution and of its transpose are equal,
        # ExecuTorch's XNNPACK (1.5) packs them once, and is silently wrong.
        haar = wavelet.filter.detach()
        self.analysis = fold.frozen(haar * 2, haar)
        self.synthesis = fold.frozen(haar / 2, haar)
        self.haar = haar[:4, 0].double().numpy()
        weight = wavelet.conv.weight.detach().double()
        weight = weight * wavelet.scale.detach().double()[0, :, :, None]
        self.conv = conv_of(
            weight, weight.new_zeros(len(weight)), wavelet.conv
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, G, H, W)`` to the same shape."""
        height, width = int(x.shape[2]), int(x.shape[3])
        if height * width <= _MAX_MATRIX:
            return self.by_matrix(x, height, width)
        odd = height % 2 or width % 2
        if odd:
            x = F.pad(x, (0, width % 2, 0, height % 2))
        x = F.conv2d(x, self.analysis, stride=2, groups=self.channels)
        x = F.conv_transpose2d(
            self.conv(x), self.synthesis, stride=2, groups=self.channels
        )
        return x[:, :, :height, :width] if odd else x

    def by_matrix(self, x: Tensor, height: int, width: int) -> Tensor:
        """Transform by one product, which beats a convolution of 2x2."""
        array = haar_matrix(self.haar, height, width)
        matrix = torch.tensor(array, dtype=x.dtype)
        back = torch.tensor(array.T.copy(), dtype=x.dtype)
        rows, columns = (height + 1) // 2, (width + 1) // 2
        y = torch.matmul(x.reshape(-1, height * width), matrix)
        y = self.conv(y.reshape(-1, 4 * self.channels, rows, columns))
        y = torch.matmul(y.reshape(-1, 4 * rows * columns), back)
        return y.reshape(-1, self.channels, height, width)


def haar_matrix(haar: np.ndarray, height: int, width: int) -> np.ndarray:
    """Write the Haar transform of a map as a matrix.

    Its transpose is the way back.

    Args:
        haar (np.ndarray): The four filters, ``(4, 2, 2)``.
        height (int): Rows of the map; an odd one is padded by a row of zeros.
        width (int): Its columns, likewise.

    Returns:
        np.ndarray: ``(H * W, 4 * h * w)``, h and w being the halves, rounded
        up.
    """
    h, w = (height + 1) // 2, (width + 1) // 2
    matrix = np.zeros((h, 2, w, 2, 4, h, w), haar.dtype)
    rows, columns = np.indices((h, w))
    matrix[rows, :, columns, :, :, rows, columns] = haar.transpose(1, 2, 0)
    matrix = matrix.reshape(2 * h, 2 * w, -1)[:height, :width]
    return matrix.reshape(height * width, -1)


class Block(nn.Sequential):
    """MobileMamba block.

    Args:
        block (layers.MobileMambaBlock): The trained layer.
    """

    def __init__(
        self, block: layers.MobileMambaBlock, scan_by_op: bool
    ) -> None:
        super().__init__(
            folded(block.dwconv1, residual=True),
            FFN(block.ffn1),
            Mixer(block.mixer, scan_by_op),
            folded(block.dwconv2, residual=True),
            FFN(block.ffn2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)`` to the same shape."""
        return x + super().forward(x)


class Transition(nn.Sequential):
    """What begins a stage.

    Args:
        transition (layers.Transition): The trained layer.
    """

    def __init__(self, transition: layers.Transition) -> None:
        merging = transition.merging
        super().__init__(
            folded(transition.dwconv1, residual=True),
            FFN(transition.ffn1),
            folded(merging.expand),
            nn.ReLU(),
            folded(merging.dwconv),
            nn.ReLU(),
            merging.se,
            folded(merging.project),
            folded(transition.dwconv2, residual=True),
            FFN(transition.ffn2),
        )


class Stage(nn.Sequential):
    """A transition, if there is one, and blocks.

    Args:
        stage (layers.Stage): The trained stage.
    """

    def __init__(self, stage: layers.Stage, scan_by_op: bool) -> None:
        first = (
            []
            if isinstance(stage.transition, nn.Identity)
            else [Transition(stage.transition)]
        )
        blocks = [cast('layers.MobileMambaBlock', b) for b in stage.blocks]
        super().__init__(*first, *(Block(b, scan_by_op) for b in blocks))


class Network(nn.Module):
    """A backbone for exporters.

    Args:
        backbone (backbones.MobileMamba): Trained, in eval mode.
        scan_by_op (bool): Whether the scan is the op
            :func:`mmmamba.ops.bidirectional_scan`, not standard operations.
            Defaults to False.
    """

    def __init__(
        self, backbone: backbones.MobileMamba, scan_by_op: bool = False
    ) -> None:
        super().__init__()
        self.out_indices = backbone.out_indices
        self.stem = Stem(cast('layers.Stem', backbone.stem))
        # Later stages are not run.
        used = backbone.stages[: max(self.out_indices) + 1]
        self.stages = nn.ModuleList(
            Stage(cast('layers.Stage', stage), scan_by_op) for stage in used
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images ``(B, 3, H, W)`` to the maps of ``out_indices``."""
        x = self.stem(x)
        outs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
