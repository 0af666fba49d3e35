"""The deployed counterparts of :mod:`mmmamba.layers`, for inference.

Each is made from the trained layer it stands for and computes the same.
Feature maps are ``(B, H, W, C)``, so that a 1x1 convolution is one matrix
product, and a part of the channels is a view and not a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.ops import (
    BlockParameters,
    bidirectional_scan,
    block,
    block_is_compiled,
    depthwise_conv,
    feed_forward,
    linear,
    mixer_conv,
    pack_weight,
    scan_gate,
    selective_scan,
)
from mmmamba.ops.block import (
    FFNParameters,
    LayerParameters,
    LocalParameters,
    SSMParameters,
)

from . import fold

if TYPE_CHECKING:  # a deployed network needs no OpenMMLab
    from mmmamba import layers


# Where a parameter is: the dictionary of its layer, and its name there.
Slot = tuple[dict[str, Tensor], str]


def slots(layer: nn.Module, *names: str) -> list[Slot]:
    """Tell where some of the layer's own parameters are."""
    own = cast('dict[str, Tensor]', layer._parameters)
    return [(own, name) for name in names]


class OpParameters:
    """Lists of parameters for an op, at hand.

    Looking for them by attributes, layer by layer, takes longer than a small
    op does. A list as an attribute of a module would not do: ``torch.export``
    puts back copies of such.

    Args:
        *lists (list[Slot]): Where the parameters of each list are.
    """

    def __init__(self, *lists: list[Slot]) -> None:
        self._lists = lists

    def read(self) -> list[list[Tensor]]:
        """Return the parameters that are there now."""
        return [[own[name] for own, name in slots] for slots in self._lists]


class KernelOrder(nn.Module):
    """A layer whose parameters keep the order that its kernel reads.

    ``.to(memory_format=torch.channels_last)`` takes any 4-D parameter for a
    weight of PyTorch's convolution, and each call would have to copy it back.
    """

    def _apply(self, fn: Callable, recurse: bool = True) -> KernelOrder:
        super()._apply(fn, recurse)
        for parameter in self.parameters(recurse=False):
            parameter.data = parameter.data.contiguous()
        return self


class StemConv(KernelOrder):
    """Parameters of a convolution of the stem.

    Args:
        unit (layers.ConvBN): The trained unit.
    """

    def __init__(self, unit: layers.ConvBN) -> None:
        super().__init__()
        weight, bias = fold.conv_bn(unit)
        self.weight = fold.frozen(weight.permute(2, 3, 1, 0), unit.conv.weight)
        self.bias = fold.frozen(bias, unit.conv.weight)


class Linear(nn.Module):
    """A 1x1 convolution as a matrix product.

    Args:
        weight (Tensor): ``(out, in)`` or ``(out, in, 1, 1)``.
        bias (Tensor): ``(out,)``.
        like (Tensor): Gives the dtype.
    """

    def __init__(self, weight: Tensor, bias: Tensor, like: Tensor) -> None:
        super().__init__()
        # The order of the product, which is the fastest of small ones.
        self.weight = fold.frozen(weight.flatten(1).t(), like)
        self.bias = fold.frozen(bias, like)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Map ``(..., C)`` to ``(..., C')``, plus the residual."""
        return linear(x, self.weight, self.bias, residual=residual)

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op."""
        return slots(self, 'weight', 'bias')

    def pack(self, dtype: str) -> None:
        """Give the weight fewer bits, as :func:`mmmamba.ops.pack_weight`."""
        packed = pack_weight(self.weight.detach(), dtype)
        self.weight = nn.Parameter(packed, requires_grad=False)


def pointwise(unit: layers.ConvBN) -> Linear:
    """Make a matrix product of a 1x1 unit."""
    return Linear(*fold.conv_bn(unit), unit.conv.weight)


class DepthwiseConv(nn.Module):
    """Depthwise convolution of ``(B, H, W, C)``.

    Args:
        unit (layers.ConvBN): The trained unit.
        residual (bool): Whether to add the input. Defaults to False.
    """

    def __init__(self, unit: layers.ConvBN, residual: bool = False) -> None:
        super().__init__()
        weight, bias = fold.conv_bn(unit)
        if residual:
            weight = fold.residual(weight)
        self.weight = fold.frozen(
            weight[:, 0].permute(1, 2, 0), unit.conv.weight
        )
        self.bias = fold.frozen(bias, unit.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape, without an activation."""
        return depthwise_conv(x, self.weight, self.bias)

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op."""
        return slots(self, 'weight', 'bias')


class FFN(nn.Module):
    """Two matrix products and the residual.

    Args:
        ffn (layers.FFN): The trained layer.
    """

    def __init__(self, ffn: layers.FFN) -> None:
        super().__init__()
        self.pw1 = pointwise(ffn.pw1)
        self.pw2 = pointwise(ffn.pw2)

    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape, plus another residual."""
        pw1, pw2 = self.pw1, self.pw2
        return feed_forward(
            x, pw1.weight, pw1.bias, pw2.weight, pw2.bias, shortcut
        )

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op."""
        return self.pw1.slots() + self.pw2.slots()


class SSM(nn.Module):
    """State-space model, times the scale behind it.

    Args:
        ssm (layers.SSM): The trained layer.
        scale (Tensor): Scale of the output, ``(G,)`` float64.
    """

    def __init__(self, ssm: layers.SSM, scale: Tensor) -> None:
        super().__init__()
        like = ssm.dwconv.weight
        self.directions = ssm.directions
        self.in_proj = pointwise(ssm.in_proj)
        self.conv_weight = fold.frozen(
            ssm.dwconv.weight.detach()[:, 0].permute(1, 2, 0), like
        )
        self.conv_bias = fold.frozen(fold.bias_of(ssm.dwconv), like)
        # One product for all directions.
        self.x_proj = fold.frozen(
            ssm.x_proj_weight.detach().flatten(0, 1).t(), like
        )
        # The order of the memory in which scan_gate copies nothing.
        self.dt_weight = fold.frozen(
            ssm.dt_proj_weight.detach().transpose(1, 2), like
        )
        self.dt_bias = fold.frozen(ssm.dt_proj_bias.detach(), like)
        self.A = fold.frozen(-ssm.A_log.detach().double().exp(), like)
        self.D = fold.frozen(ssm.D.detach(), like)
        self.norm_weight = fold.frozen(ssm.out_norm.weight.detach(), like)
        self.norm_bias = fold.frozen(ssm.out_norm.bias.detach(), like)
        self.eps = ssm.out_norm.eps
        weight, bias = fold.conv_bn(ssm.out_proj)
        self.out_proj = Linear(
            weight.flatten(1) * scale[:, None], bias * scale, like
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, G)`` to the same shape."""
        shape = x.shape[:3]
        x, z = self.in_proj(x).chunk(2, dim=-1)
        x = depthwise_conv(x, self.conv_weight, self.conv_bias, act='silu')
        x, z = x.flatten(1, 2), z.flatten(1, 2)
        projected = linear(x, self.x_proj)
        if self.directions == 2:
            y = scan_gate(
                x,
                projected,
                self.dt_weight.transpose(1, 2),
                self.dt_bias,
                self.A,
                self.D,
                self.norm_weight,
                self.norm_bias,
                z,
                self.eps,
            )
        else:
            y = self._scan(x, projected, shape)
            y = F.layer_norm(
                y, y.shape[-1:], self.norm_weight, self.norm_bias, self.eps
            )
            y = y * F.silu(z)
        return self.out_proj(y.unflatten(1, shape[1:]))

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op ``block``."""
        own = SSMParameters._fields[2:-2]
        return [
            *self.in_proj.slots(),
            *slots(self, *own),
            *self.out_proj.slots(),
        ]

    def _scan(self, x: Tensor, projected: Tensor, shape: torch.Size) -> Tensor:
        """Scan ``(B, L, D)`` in one direction, or in four."""
        if self.directions == 1:
            rank, d_state = self.dt_weight.shape[1], self.A.shape[-1]
            dt, B, C = projected.transpose(1, 2).split(
                [rank, d_state, d_state], dim=1
            )
            y = selective_scan(
                x.transpose(1, 2),
                torch.matmul(self.dt_weight[0].t(), dt),
                self.A,
                B[:, None],
                C[:, None],
                self.D,
                delta_bias=self.dt_bias[0],
                delta_softplus=True,
            )
            return y.transpose(1, 2)
        # Both pairs of directions: along the rows, and along the columns.
        by_row, by_column = projected.chunk(2, dim=-1)
        x_turned, by_column = (
            t.unflatten(1, shape[1:]).transpose(1, 2).flatten(1, 2)
            for t in (x, by_column)
        )
        rows = self._scan_pair(x, by_row, 0)
        columns = self._scan_pair(x_turned, by_column, 1)
        columns = columns.unflatten(1, shape[:0:-1]).transpose(1, 2)
        return rows + columns.flatten(1, 2)

    def _scan_pair(self, x: Tensor, projected: Tensor, pair: int) -> Tensor:
        """Scan in the directions ``2*pair`` and ``2*pair + 1``."""
        y = bidirectional_scan(
            x.transpose(1, 2),
            projected.transpose(1, 2).unflatten(1, (2, -1)),
            self.dt_weight.chunk(2)[pair].transpose(1, 2),
            self.dt_bias.chunk(2)[pair],
            self.A.chunk(2)[pair],
            self.D.chunk(2)[pair],
        )
        return y.transpose(1, 2)


class Mixer(KernelOrder):
    """MRFFI with its residual.

    Args:
        mixer (layers.MRFFI): The trained layer.
    """

    def __init__(self, mixer: layers.MRFFI) -> None:
        super().__init__()
        branch = mixer.global_branch
        like = branch.base_scale
        self.global_channels = mixer.split[0]
        self.ssm = SSM(
            branch.ssm, branch.base_scale.detach().double()[0, :, 0, 0]
        )
        self.wavelet_weight = None
        if branch.wavelet is not None:
            self.wavelet_weight = fold.frozen(
                wavelet_weight(branch.wavelet), like
            )
        self.local_weight = self.local_bias = None
        self.local_scale = self.local_shift = None
        if not isinstance(mixer.local_branch, nn.Identity):
            folded = local_branch(mixer.local_branch)
            self.local_weight, self.local_bias = (
                fold.frozen(t, like) for t in folded[:2]
            )
            self.local_scale, self.local_shift = (
                fold.frozen(t, like) for t in folded[2:]
            )
        self.proj = pointwise(mixer.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape."""
        mixed = mixer_conv(
            x,
            self.ssm(x[..., : self.global_channels]),
            self.wavelet_weight,
            self.local_weight,
            self.local_bias,
            self.local_scale,
            self.local_shift,
        )
        return self.proj(mixed, residual=x)

    def local_slots(self) -> list[Slot]:
        """Tell where the local part's parameters are, if there is one."""
        if self.local_weight is None:
            return []
        return slots(
            self, *(f'local_{name}' for name in LocalParameters._fields)
        )


def wavelet_weight(wavelet: layers.WaveletConv) -> Tensor:
    """Weight of the subbands with their scale, ``(4, k, k, G)`` float64."""
    weight = wavelet.conv.weight.detach().double()
    weight = weight * wavelet.scale.detach().double()[0, :, :, None]
    return weight[:, 0].unflatten(0, (-1, 4)).permute(1, 2, 3, 0)


def local_branch(
    branch: layers.MultiKernelDWConv,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weight ``(k, k, G')``, bias, scale and shift of MK-DeConv, float64.

    Parts with smaller kernels have a border of zeros.
    """
    parts = [
        cast('list[layers.ConvBN]', [*p.children()]) for p in branch.parts
    ]
    kernel = max(conv.conv.kernel_size[0] for conv, _ in parts)
    weights, biases, scales, shifts = [], [], [], []
    for conv, affine in parts:
        weight, bias = fold.conv_bn(conv)
        border = (kernel - weight.shape[-1]) // 2
        weights.append(F.pad(weight[:, 0], [border] * 4))
        biases.append(bias)
        scale, shift = fold.conv_bn(affine)
        scales.append(scale.flatten())
        shifts.append(shift)
    return (
        torch.cat(weights).permute(1, 2, 0),
        torch.cat(biases),
        torch.cat(scales),
        torch.cat(shifts),
    )


class Block(nn.Module):
    """MobileMamba block.

    Args:
        block (layers.MobileMambaBlock): The trained layer.
    """

    def __init__(self, block: layers.MobileMambaBlock) -> None:
        super().__init__()
        self.dwconv1 = DepthwiseConv(block.dwconv1, residual=True)
        self.ffn1 = FFN(block.ffn1)
        self.mixer = mixer = Mixer(block.mixer)
        self.dwconv2 = DepthwiseConv(block.dwconv2, residual=True)
        self.ffn2 = FFN(block.ffn2)
        self._op_parameters = OpParameters(
            *(self.dwconv1.slots(), self.ffn1.slots()),
            *(mixer.ssm.slots(), mixer.local_slots(), mixer.proj.slots()),
            *(self.dwconv2.slots(), self.ffn2.slots()),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to the same shape."""
        if self.mixer.ssm.directions == 2:
            parameters = self.op_parameters()
            if block_is_compiled(x, parameters):
                return block(x, parameters)
        shortcut = x
        x = self.dwconv1(x)
        x = self.ffn1(x)
        x = self.mixer(x)
        x = self.dwconv2(x)
        return self.ffn2(x, shortcut)

    def op_parameters(self) -> BlockParameters:
        """Return the parameters by their names in the op ``block``."""
        lists = self._op_parameters.read()
        conv1, ffn1, ssm, local, proj, conv2, ffn2 = lists
        return BlockParameters(
            LayerParameters(*conv1),
            FFNParameters(*ffn1),
            SSMParameters(*ssm),
            self.mixer.wavelet_weight,
            LocalParameters(*local) if local else None,
            LayerParameters(*proj),
            LayerParameters(*conv2),
            FFNParameters(*ffn2),
            self.mixer.ssm.eps,
        )

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op ``stage``."""
        mixer = self.mixer
        wavelet = mixer.wavelet_weight is not None
        return [
            *(*self.dwconv1.slots(), *self.ffn1.slots(), *mixer.ssm.slots()),
            *(slots(mixer, 'wavelet_weight') if wavelet else []),
            *(*mixer.local_slots(), *mixer.proj.slots()),
            *(*self.dwconv2.slots(), *self.ffn2.slots()),
        ]


class PatchMerging(nn.Module):
    """Inverted bottleneck of stride 2 with squeeze-and-excite.

    Args:
        merging (layers.PatchMerging): The trained layer.
    """

    def __init__(self, merging: layers.PatchMerging) -> None:
        super().__init__()
        self.expand = pointwise(merging.expand)
        self.dwconv = DepthwiseConv(merging.dwconv)
        self.fc1, self.fc2 = (
            Linear(fc.weight.detach(), fold.bias_of(fc), fc.weight)
            for fc in (merging.se.fc1, merging.se.fc2)
        )
        self.project = pointwise(merging.project)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H/2, W/2, C')``, rounded up."""
        x = linear(x, self.expand.weight, self.expand.bias, relu=True)
        x = depthwise_conv(x, self.dwconv.weight, self.dwconv.bias, 2, 'relu')
        squeezed = x.mean((1, 2), keepdim=True)
        squeezed = linear(squeezed, self.fc1.weight, self.fc1.bias, relu=True)
        gate = self.fc2(squeezed).sigmoid()
        # In place where no gradient needs the map: it leaves the caches.
        x = x * gate if x.requires_grad else x.mul_(gate)
        return self.project(x)


class Transition(nn.Module):
    """What begins a stage.

    Args:
        transition (layers.Transition): The trained layer.
    """

    def __init__(self, transition: layers.Transition) -> None:
        super().__init__()
        self.dwconv1 = DepthwiseConv(transition.dwconv1, residual=True)
        self.ffn1 = FFN(transition.ffn1)
        self.merging = PatchMerging(transition.merging)
        self.dwconv2 = DepthwiseConv(transition.dwconv2, residual=True)
        self.ffn2 = FFN(transition.ffn2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, H, W, C)`` to ``(B, H/2, W/2, C')``, rounded up."""
        x = self.ffn1(self.dwconv1(x))
        x = self.merging(x)
        return self.ffn2(self.dwconv2(x))

    def kernels(self) -> list[Tensor]:
        """Return the weights of the depthwise convolutions."""
        dwconvs = (self.dwconv1, self.merging.dwconv, self.dwconv2)
        return [dwconv.weight for dwconv in dwconvs]

    def slots(self) -> list[Slot]:
        """Tell where the parameters are, in the order of the op ``stage``."""
        merging = self.merging
        layers = (
            *(self.dwconv1, self.ffn1, merging.expand, merging.dwconv),
            *(merging.fc1, merging.fc2, merging.project),
            *(self.dwconv2, self.ffn2),
        )
        return [slot for layer in layers for slot in layer.slots()]
