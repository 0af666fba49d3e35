"""Tests of mmmamba/layers/multi_kernel_conv.py."""

import pytest
import torch
import torch.nn.functional as F
from golden import randomize, relative_error

from mmmamba.layers import MultiKernelDWConv


def depthwise(x, unit):
    """Depthwise convolution with "same" padding, then batch norm."""
    weight, bn = unit.conv.weight, unit.bn
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=x.shape[1])
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


@pytest.mark.parametrize(
    'channels, num_parts, split, kernels',
    [
        (7, 1, [7], [9]),  # the kernel size given
        (8, 2, [4, 4], [3, 5]),
        (7, 2, [4, 3], [3, 5]),
        (9, 3, [3, 3, 3], [3, 5, 7]),
        (11, 3, [4, 4, 3], [3, 5, 7]),
        (3, 3, [1, 1, 1], [3, 5, 7]),
    ],
)
def test_parts(channels, num_parts, split, kernels):
    torch.manual_seed(0)
    layer = MultiKernelDWConv(channels, 9, num_parts)
    randomize(layer).eval()
    x = torch.randn(2, channels, 5, 8)

    outs = []
    for i, part in enumerate(x.split(split, dim=1)):
        spatial, pointwise = layer.parts[i]
        kernel = (split[i], 1, kernels[i], kernels[i])
        assert spatial.conv.weight.shape == kernel
        assert pointwise.conv.weight.shape == (split[i], 1, 1, 1)
        assert spatial.conv.bias is None and pointwise.conv.bias is None
        outs.append(depthwise(depthwise(part, spatial).relu(), pointwise))
    assert len(layer.parts) == num_parts
    assert relative_error(layer(x), torch.cat(outs, 1)) <= 1e-6


def test_starts_with_neutral_norms():
    for spatial, pointwise in MultiKernelDWConv(6, 3, 2).parts:
        assert (spatial.bn.weight == 1).all()
        assert (pointwise.bn.weight == 1).all()
