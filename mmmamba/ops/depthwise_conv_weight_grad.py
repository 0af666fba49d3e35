"""The gradient of the weight of a depthwise convolution."""

import torch
from torch import Tensor
from torch.nn.grad import conv2d_weight

from .backend import inference_op_serves
from .shapes import Shapes


def depthwise_conv_weight_grad(x: Tensor, grad: Tensor, kernel: int) -> Tensor:
    """Differentiate a depthwise convolution with respect to its weight.

    On a CPU, PyTorch's version takes up to a hundred times as long for the
    large kernels and small maps of this network.

    Args:
        x (Tensor): Input of the convolution, ``(B, H, W, C)``, floating point.
        grad (Tensor): Gradient of its output, of the same shape; its stride
            is 1, with "same" padding.
        kernel (int): Size ``k`` of the kernel, odd; the compiled version has
            3, 5 and 7, float32 on the CPU and 16 channels or more.

    Returns:
        Tensor: ``(k, k, C)``, in the dtype of ``x``.

    Raises:
        ValueError: If a shape or the size does not fit.
        TypeError: If an input is not floating point.
    """
    if kernel in (3, 5, 7) and inference_op_serves(
        x, grad, dtypes=(torch.float32,), wide=(x,)
    ):
        op = torch.ops.mmmamba.depthwise_conv_weight_grad.default
        return op(x, grad, kernel)
    shapes = Shapes('depthwise_conv_weight_grad')
    shapes.check(x=(x, 'B H>=1 W>=1 C>=1'), grad=(grad, 'B H W C'))
    shapes.require(kernel % 2 == 1, f'kernel must be odd, got {kernel}')
    channels = x.shape[-1]
    weight = conv2d_weight(
        x.permute(0, 3, 1, 2),
        (channels, 1, kernel, kernel),
        grad.permute(0, 3, 1, 2),
        padding=kernel // 2,
        groups=channels,
    )
    return weight[:, 0].permute(1, 2, 0)
