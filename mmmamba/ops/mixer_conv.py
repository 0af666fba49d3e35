"""The mixer's convolutions: wavelet branch, local part and ReLU in one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import inference_op_serves
from .depthwise_conv import conv_torch
from .shapes import Shapes


def mixer_conv(
    x: Tensor,
    ssm: Tensor,
    wavelet_weight: Tensor | None = None,
    local_weight: Tensor | None = None,
    local_bias: Tensor | None = None,
    local_scale: Tensor | None = None,
    local_shift: Tensor | None = None,
) -> Tensor:
    r"""The mixer between the SSM and the projection, with its ReLU.

    With G the channels of ``ssm``, and M those of the local part, the channels
    of the result are

    .. math::
        \mathrm{relu}([\mathrm{ssm} + \mathrm{wavelet}(x_{:G}),\;
        s \cdot \mathrm{relu}(\mathrm{dwconv}(x_{G:G+M}) + b) + t,\;
        x_{G+M:}])

    The wavelet branch is a zero padding to even sizes at the bottom and the
    right, the one-level orthonormal Haar transform, a depthwise convolution
    of the subbands, the inverse transform and a crop to the size of ``x``.

    Several local parts (``num_parts > 1``) are one of the largest kernel size,
    with the smaller kernels padded with zeros.

    Args:
        x (Tensor): Input of the mixer, ``(B, H, W, C)``, floating point; it
            may be some of the channels of a wider map.
        ssm (Tensor): What the SSM adds, with all biases, ``(B, H, W, G)``,
            1 <= G <= C.
        wavelet_weight (Tensor, optional): ``(4, k, k, G)``, k odd, of the
            subbands LL, differences between rows, between columns and of
            both, in the order of
            :func:`mmmamba.layers.wavelet.haar_filters`. None if there is no
            wavelet branch. Defaults to None.
        local_weight (Tensor, optional): ``(k, k, M)``, k odd, M <= C - G.
            None if there is no local part. Defaults to None.
        local_bias (Tensor, optional): ``b``, ``(M,)``; there if
            ``local_weight`` is, as the next two. Defaults to None.
        local_scale (Tensor, optional): ``s``, ``(M,)``. Defaults to None.
        local_shift (Tensor, optional): ``t``, ``(M,)``. Defaults to None.

    Returns:
        Tensor: ``(B, H, W, C)``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    affine = (local_bias, local_scale, local_shift)
    inputs = (x, ssm, wavelet_weight, local_weight, *affine)
    kernels = (wavelet_weight, local_weight)
    if inference_op_serves(*inputs, kernels=kernels, cuda=True):
        return torch.ops.mmmamba.mixer_conv.default(*inputs)
    if not torch.jit.is_tracing():
        shapes = Shapes('mixer_conv')
        shapes.require(
            all((t is None) == (local_weight is None) for t in affine),
            'local_weight, local_bias, local_scale and local_shift are either '
            'all there or all None',
        )
        shapes.check(
            x=(x, 'B H>=1 W>=1 C>=1'),
            ssm=(ssm, 'B H W G>=1'),
            wavelet_weight=(wavelet_weight, '4 k k G'),
            local_weight=(local_weight, 'j j M'),
            local_bias=(local_bias, 'M'),
            local_scale=(local_scale, 'M'),
            local_shift=(local_shift, 'M'),
        )
        for name, symbol in (('wavelet_weight', 'k'), ('local_weight', 'j')):
            size = shapes.sizes.get(symbol, 1)
            shapes.require(
                size % 2 == 1,
                f'{name} must have an odd size {symbol}, got {size}',
            )
        used = shapes['G'] + shapes.sizes.get('M', 0)
        shapes.require(
            used <= shapes['C'],
            f'ssm and local_weight have {used} channels, more than the '
            f'{shapes["C"]} of x',
        )
    width = ssm.shape[-1]
    parts, rest = [ssm.to(x.dtype)], x[..., width:]
    if wavelet_weight is not None:
        parts[0] = parts[0] + _wavelet(x[..., :width], wavelet_weight)
    if local_weight is not None:
        width = local_weight.shape[-1]
        bias, scale, shift = (t.to(x.dtype) for t in affine if t is not None)
        y = F.relu(conv_torch(rest[..., :width], local_weight, bias))
        parts.append(y * scale + shift)
        rest = rest[..., width:]
    return F.relu(torch.cat([*parts, rest], dim=-1).contiguous())


def _wavelet(x: Tensor, weight: Tensor) -> Tensor:
    """Convolve ``(B, H, W, G)`` with ``(4, k, k, G)`` in the Haar domain."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
    squares = x.unflatten(1, (-1, 2)).unflatten(3, (-1, 2))
    pixels = [squares[:, :, i, :, j] for i in range(2) for j in range(2)]
    subbands = torch.cat(_haar(*pixels), dim=-1)
    x = conv_torch(subbands, weight.movedim(0, 2).flatten(2))
    a, b, c, d = _haar(*x.chunk(4, dim=-1))
    rows = [torch.stack([a, b], dim=3), torch.stack([c, d], dim=3)]
    x = torch.stack(rows, dim=2).flatten(3, 4).flatten(1, 2)
    return x[:, :height, :width]


def _haar(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, ...]:
    """Transform 2x2 pixels, in reading order, to the subbands or back.

    The matrix is symmetric and orthonormal, and so its own inverse.
    """
    upper, lower = a + b, c + d
    left, right = a - b, c - d
    return (
        (upper + lower) / 2,
        (upper - lower) / 2,
        (left + right) / 2,
        (left - right) / 2,
    )
