"""Tests of mmmamba/layers/conv_bn.py."""

import pytest
import torch
import torch.nn.functional as F
from golden import randomize, relative_error
from torch import nn

from mmmamba.layers import ConvBN
from mmmamba.layers.conv_bn import depthwise_conv_bn


@pytest.mark.parametrize('kernel_size', [1, 3, 7])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('act', [True, False])
def test_forward(kernel_size, stride, act):
    torch.manual_seed(0)
    unit = ConvBN(4, 6, kernel_size, stride, groups=2, act=act)
    randomize(unit).eval()
    x = torch.randn(2, 4, 7, 10)
    bn = unit.bn
    ref = F.batch_norm(
        F.conv2d(x, unit.conv.weight, None, stride, kernel_size // 2, 1, 2),
        bn.running_mean,
        bn.running_var,
        bn.weight,
        bn.bias,
        eps=1e-5,
    )
    if act:
        ref = ref.clamp(min=0)
    out = unit(x.clone())
    assert out.shape[2:] == (-(-7 // stride), -(-10 // stride))
    assert relative_error(out, ref) <= 1e-6


def test_batch_norm_settings():
    bn = ConvBN(4, 6).bn
    assert (bn.eps, bn.momentum) == (1e-5, 0.1)


def test_input_is_not_changed():
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    ConvBN(4, 4, act=True)(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize('norm_weight', [0.0, 1.0])
def test_initial_norm(norm_weight):
    """The same when a runner's ``init_weights`` follows."""
    unit = ConvBN(4, 6, norm_weight=norm_weight)
    for _ in range(2):
        assert (unit.bn.weight == norm_weight).all()
        assert (unit.bn.bias == 0).all()
        unit.init_weights()


def test_convolution_keeps_the_initialization_of_pytorch():
    torch.manual_seed(0)
    unit = ConvBN(4, 6, 3)
    torch.manual_seed(0)
    expected = nn.Conv2d(4, 6, 3, bias=False)
    assert torch.equal(unit.conv.weight, expected.weight)


def test_depthwise():
    unit = depthwise_conv_bn(6, 5, stride=2, norm_weight=0.0)
    assert unit.conv.weight.shape == (6, 1, 5, 5)
    assert unit.conv.bias is None
    assert unit.conv.stride == (2, 2)
    assert (unit.bn.weight == 0).all()


def test_norm_cfg():
    unit = ConvBN(
        4, 6, norm_weight=0.5, norm_cfg=dict(type='GN', num_groups=2)
    )
    assert isinstance(unit.norm, nn.GroupNorm)
    assert (unit.norm.weight == 0.5).all()
