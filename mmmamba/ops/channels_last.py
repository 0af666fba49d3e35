"""What a deployed network is made of besides matrix products.

Feature maps are ``(B, H, W, C)`` and sequences ``(B, L, C)``, so that a 1x1
convolution is one product with a ``(B*H*W, C)`` matrix and some of the
channels are a view. For inference: the compiled versions, for float32 and
bfloat16 on CPUs, have no gradient, and PyTorch's serve where one is asked for.
Theirs is a computation in float32, and the other inputs may be float32 where
``x`` is bfloat16.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import channels_last_torch
from .backend import compiled_without_gradient
from .checks import check_inputs

# What the compiled ops serve; PyTorch's serve all else.
_KERNEL_SIZES = (1, 3, 5, 7)
_MIN_CHANNELS = 16
_DTYPES = (torch.float32, torch.bfloat16)
_ACTS = ('none', 'relu', 'silu')


def depthwise_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    act: str = 'none',
) -> Tensor:
    """Depthwise convolution with "same" padding, and an activation.

    Args:
        x (Tensor): Input, ``(B, H, W, C)``, floating point; some of the
            channels of a wider map do not need to be copied.
        weight (Tensor): ``(k, k, C)``, k odd; the compiled version has 1, 3,
            5 and 7.
        bias (Tensor, optional): ``(C,)``. Defaults to None.
        stride (int): 1 or 2. Defaults to 1.
        act (str): ``none``, ``relu`` or ``silu``. Defaults to ``none``.

    Returns:
        Tensor: ``(B, ceil(H/stride), ceil(W/stride), C)``, contiguous, in the
        dtype of ``x``.

    Raises:
        ValueError: If a shape, ``stride`` or ``act`` does not fit, or the
            inputs are on different devices.
        TypeError: If an input is not floating point.
    """
    if (
        compiled_without_gradient(_DTYPES, x, weight, bias)
        and compiled_kernel(weight)
        and (stride == 1 or weight.shape[0] == 3)
    ):
        op = torch.ops.mmmamba.depthwise_conv.default
        return op(x, weight, bias, stride, act)
    if not torch.jit.is_tracing():
        _check_depthwise_conv(x, weight, bias, stride, act)
    return channels_last_torch.depthwise_conv(x, weight, bias, stride, act)


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

    With G the channels of ``ssm``, and G' those of the local part, the
    channels of the result are

    .. math::
        \mathrm{relu}([\mathrm{ssm} + \mathrm{wavelet}(x_{:G}),\;
        s \cdot \mathrm{relu}(\mathrm{dwconv}(x_{G:G+G'}) + b) + t,\;
        x_{G+G':}])

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
            subbands LL, differences along rows, along columns and along both,
            in the order of :func:`mmmamba.layers.wavelet.haar_filters`. None
            if there is no wavelet branch. Defaults to None.
        local_weight (Tensor, optional): ``(k, k, G')``, k odd, G' <= C - G.
            None if there is no local part. Defaults to None.
        local_bias (Tensor, optional): ``b``, ``(G',)``; there if
            ``local_weight`` is, as the next two. Defaults to None.
        local_scale (Tensor, optional): ``s``, ``(G',)``. Defaults to None.
        local_shift (Tensor, optional): ``t``, ``(G',)``. Defaults to None.

    Returns:
        Tensor: ``(B, H, W, C)``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    local = (local_weight, local_bias, local_scale, local_shift)
    if (
        compiled_without_gradient(_DTYPES, x, ssm, wavelet_weight, *local)
        and compiled_kernel(wavelet_weight)
        and compiled_kernel(local_weight)
    ):
        op = torch.ops.mmmamba.mixer_conv.default
        return op(x, ssm, wavelet_weight, *local)
    if not torch.jit.is_tracing():
        _check_mixer_conv(x, ssm, wavelet_weight, *local)
    return channels_last_torch.mixer_conv(x, ssm, wavelet_weight, *local)


def scan_gate(
    x: Tensor,
    projected: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    z: Tensor,
    eps: float = 1e-5,
) -> Tensor:
    r"""Scan in both directions, normalize and gate.

    The core of an SSM with two directions:
    :math:`\mathrm{LayerNorm}(y) \cdot \mathrm{silu}(z)`, with y what
    :func:`bidirectional_scan` computes.

    Args:
        x (Tensor): Input, ``(B, L, D)``, floating point.
        projected (Tensor): ``(B, L, 2 * (R + 2*N))``; of each direction R
            channels of what the step sizes are projected from, N of the
            input projection B and N of the output projection C.
        dt_weight (Tensor): Projection to the step sizes, ``(2, D, R)``; a
            ``(2, R, D)`` tensor with its axes swapped is not copied.
        dt_bias (Tensor): Added to the step sizes before softplus, ``(2, D)``.
        A (Tensor): Decay rates, ``(2*D, N)``; negative for a stable state.
        D (Tensor): Skip connection, ``(2*D,)``.
        norm_weight (Tensor): Scale of the layer norm, ``(D,)``.
        norm_bias (Tensor): Shift of the layer norm, ``(D,)``.
        z (Tensor): Gate before the SiLU, ``(B, L, D)``; some of the channels
            of a wider tensor do not need to be copied.
        eps (float): Of the layer norm. Defaults to 1e-5.

    Returns:
        Tensor: ``(B, L, D)``, contiguous, in the dtype of ``x``.

    Raises:
        ValueError: If a shape does not fit, L is 0, or the inputs are on
            different devices.
        TypeError: If an input is not floating point.
    """
    inputs = (
        *(x, projected, dt_weight, dt_bias, A, D),
        *(norm_weight, norm_bias, z),
    )
    if (
        compiled_without_gradient(_DTYPES, *inputs)
        and x.dim()
        and x.shape[-1] >= _MIN_CHANNELS
    ):
        return torch.ops.mmmamba.scan_gate.default(*inputs, eps)
    if not torch.jit.is_tracing():
        _check_scan_gate(*inputs)
    return channels_last_torch.scan_gate(*inputs, eps)


def stem_conv(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Convolve an image several times, 3x3 with a stride of 2.

    ReLUs come between the convolutions. The compiled version, for float32,
    keeps only the rows that are in use of what is between them.

    Args:
        x (Tensor): Input, ``(B, C, H, W)`` of any strides, floating point.
        weights (Sequence[Tensor]): Of each convolution, ``(3, 3, C, C')``,
            the next one's C being C'.
        biases (Sequence[Tensor]): Of each convolution, ``(C',)``.

    Returns:
        Tensor: ``(B, H', W', C')``, contiguous, in the dtype of ``x``; each
        convolution halves height and width, rounded up.

    Raises:
        ValueError: If a shape does not fit, or the inputs are on different
            devices.
        TypeError: If an input is not floating point.
    """
    weights, biases = list(weights), list(biases)
    # In bfloat16 PyTorch's is faster where the CPU multiplies that.
    if compiled_without_gradient(
        (torch.float32,), x, *weights, *biases
    ) and all(weight.shape[-1] >= _MIN_CHANNELS for weight in weights):
        return torch.ops.mmmamba.stem_conv.default(x, weights, biases)
    if not torch.jit.is_tracing():
        _check_stem_conv(x, weights, biases)
    return channels_last_torch.stem_conv(x, weights, biases)


def compiled_kernel(weight: Tensor | None) -> bool:
    """Tell whether the compiled ops serve a depthwise convolution.

    Args:
        weight (Tensor, optional): ``(..., k, k, C)``.

    Returns:
        bool: Whether they do, or there is none.
    """
    return weight is None or (
        weight.dim() >= 3
        and weight.shape[-2] in _KERNEL_SIZES
        and weight.shape[-1] >= _MIN_CHANNELS
    )


def _check_depthwise_conv(x, weight, bias, stride, act) -> None:
    op = 'depthwise_conv'
    _check_layout(op, 'x', x)
    if stride not in (1, 2):
        raise ValueError(f'{op}: stride must be 1 or 2, got {stride}')
    if act not in _ACTS:
        raise ValueError(f'{op}: act must be one of {_ACTS}, got {act!r}')
    channels = x.shape[-1]
    _check_kernel(op, 'weight', weight, '(k, k, C)', 3)
    check_inputs(
        op,
        x,
        weight=(weight, (*weight.shape[:2], channels)),
        bias=(bias, (channels,)),
    )


def _check_mixer_conv(x, ssm, wavelet_weight, local_weight, *local) -> None:
    op = 'mixer_conv'
    _check_layout(op, 'x', x)
    _check_layout(op, 'ssm', ssm)
    channels, global_channels = x.shape[-1], ssm.shape[-1]
    if global_channels > channels:
        raise ValueError(
            f'{op}: ssm has {global_channels} channels, more than the '
            f'{channels} of x'
        )
    check_inputs(op, x, ssm=(ssm, (*x.shape[:3], global_channels)))
    if wavelet_weight is not None:
        shape = '(4, k, k, G)'
        _check_kernel(op, 'wavelet_weight', wavelet_weight, shape, 4)
        kernel = wavelet_weight.shape[1:3]
        check_inputs(
            op,
            x,
            wavelet_weight=(wavelet_weight, (4, *kernel, global_channels)),
        )
    if any((t is None) != (local_weight is None) for t in local):
        raise ValueError(
            f'{op}: local_weight, local_bias, local_scale and local_shift '
            'are either all there or all None'
        )
    if local_weight is not None:
        shape = "(k, k, G')"
        _check_kernel(op, 'local_weight', local_weight, shape, 3)
        width = local_weight.shape[-1]
        if global_channels + width > channels:
            raise ValueError(
                f'{op}: ssm has {global_channels} channels and local_weight '
                f'{width}, together more than the {channels} of x'
            )
        check_inputs(
            op,
            x,
            local_weight=(local_weight, tuple(local_weight.shape)),
            local_bias=(local[0], (width,)),
            local_scale=(local[1], (width,)),
            local_shift=(local[2], (width,)),
        )


def _check_scan_gate(
    x, projected, dt_weight, dt_bias, A, D, norm_weight, norm_bias, z
) -> None:
    op = 'scan_gate'
    _check_layout(op, 'x', x, '(B, L, D)', 3)
    batch, length, channels = x.shape
    if A.dim() != 2 or dt_weight.dim() != 3:
        raise ValueError(
            f'{op}: A must be (2*D, N) and dt_weight (2, D, R), got shapes '
            f'{tuple(A.shape)} and {tuple(dt_weight.shape)}'
        )
    rank, d_state = dt_weight.shape[2], A.shape[1]
    check_inputs(
        op,
        x,
        projected=(projected, (batch, length, 2 * (rank + 2 * d_state))),
        dt_weight=(dt_weight, (2, channels, rank)),
        dt_bias=(dt_bias, (2, channels)),
        A=(A, (2 * channels, d_state)),
        D=(D, (2 * channels,)),
        norm_weight=(norm_weight, (channels,)),
        norm_bias=(norm_bias, (channels,)),
        z=(z, (batch, length, channels)),
    )


def _check_stem_conv(x, weights, biases) -> None:
    op = 'stem_conv'
    _check_layout(op, 'x', x, '(B, C, H, W)')
    if not weights or len(weights) != len(biases):
        raise ValueError(
            f'{op}: as many biases as weights are needed, and one at least, '
            f'got {len(biases)} and {len(weights)}'
        )
    channels = x.shape[1]
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        out = weight.shape[-1] if weight.dim() else 0
        shapes = {
            f'weights[{i}]': (weight, (3, 3, channels, out)),
            f'biases[{i}]': (bias, (out,)),
        }
        check_inputs(op, x, **shapes)
        channels = out


def _check_layout(
    op: str, name: str, x: Tensor, layout: str = '(B, H, W, C)', dim: int = 4
) -> None:
    """Check an input that the shapes of others follow from."""
    if x.dim() != dim or 0 in x.shape[1:]:
        raise ValueError(
            f'{op}: {name} must be {layout}, of which B alone may be 0, got '
            f'shape {tuple(x.shape)}'
        )
    if not x.is_floating_point():
        raise TypeError(f'{op}: {name} must be floating point, got {x.dtype}')


def _check_kernel(
    op: str, name: str, weight: Tensor, layout: str, dim: int
) -> None:
    height, width = weight.shape[-3:-1] if weight.dim() == dim else (0, 0)
    if height != width or height % 2 == 0:
        raise ValueError(
            f'{op}: {name} must be {layout} with k odd, got shape '
            f'{tuple(weight.shape)}'
        )
