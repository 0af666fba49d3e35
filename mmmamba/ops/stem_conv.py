"""The convolutions of the stem, from an image to a channels-last map."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import inference_op_serves
from .shapes import Shapes


def stem_conv(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Convolve an image several times, 3x3 with a stride of 2.

    ReLUs come between the convolutions. The compiled version for the CPU, for
    float32, keeps only the rows that are in use of what is between them. That
    for GPUs has a first convolution of its own and then cuDNN's.

    Args:
        x (Tensor): Input, ``(B, C, H, W)`` of any strides, floating point.
        weights (Sequence[Tensor]): Of each convolution, ``(3, 3, C, C')``,
            the next one's C being C'. If one of them is bfloat16 and ``x``
            is float32, the compiled version for the CPU may round what it
            multiplies to bfloat16, where C is 16 or more.
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
    if inference_op_serves(
        *(x, *weights, *biases),
        dtypes=(torch.float32,),
        wide=weights,
        cuda=True,
    ):
        return torch.ops.mmmamba.stem_conv.default(x, weights, biases)
    if not torch.jit.is_tracing():
        shapes = Shapes('stem_conv')
        shapes.require(
            0 < len(weights) == len(biases),
            'as many biases as weights are needed, and one at least, got '
            f'{len(biases)} and {len(weights)}',
        )
        shapes.check(x=(x, 'B C0>=1 H>=1 W>=1'))
        for i, (weight, bias) in enumerate(zip(weights, biases)):
            shapes.check(
                **{
                    f'weights[{i}]': (weight, f'3 3 C{i} C{i + 1}>=1'),
                    f'biases[{i}]': (bias, f'C{i + 1}'),
                }
            )
    x = x.contiguous(memory_format=torch.channels_last)
    for i, (weight, bias) in enumerate(zip(weights, biases)):
        if i:
            x = F.relu(x, inplace=True)
        weight, bias = weight.permute(3, 2, 0, 1).to(x.dtype), bias.to(x.dtype)
        x = F.conv2d(x, weight, bias, stride=2, padding=1)
    # A view if the convolutions keep the memory format, as they should.
    return x.permute(0, 2, 3, 1).contiguous()
