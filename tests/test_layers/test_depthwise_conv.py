"""Tests of DepthwiseConv2d: PyTorch's convolution, with other gradients."""

import pytest
import torch
from golden import relative_error
from torch import nn

from mmmamba.layers.depthwise_conv import DepthwiseConv2d
from mmmamba.ops import use_backend


def make(kernel: int, channels: int, bias: bool, cls=DepthwiseConv2d):
    torch.manual_seed(0)
    return cls(
        *(channels, channels, kernel),
        padding=kernel // 2,
        groups=channels,
        bias=bias,
    )


def run(conv: nn.Module, x: torch.Tensor) -> dict:
    """The outputs and all gradients, and the names of the ops."""
    x = x.detach().clone(memory_format=torch.preserve_format)
    x.requires_grad_()
    with torch.autograd.profiler.profile() as profile:
        y = conv(x)
        y.square().sum().backward()
    tensors = dict(y=y, x=x.grad)
    tensors |= {name: p.grad for name, p in conv.named_parameters()}
    return tensors, {e.key for e in profile.key_averages()}


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('kernel', [3, 5, 7])
@pytest.mark.parametrize('size', [(1, 1), (3, 3), (6, 9)])
@pytest.mark.usefixtures('compiled')
def test_gradients(size, kernel, bias):
    x = torch.randn(3, 37, *size).to(memory_format=torch.channels_last)
    found, ops = run(make(kernel, 37, bias), x)
    assert 'mmmamba::depthwise_conv_weight_grad' in ops
    reference = make(kernel, 37, bias, nn.Conv2d).double()
    for name, expected in run(reference, x.double())[0].items():
        assert relative_error(found[name], expected) <= 2e-6, name


@pytest.mark.parametrize(
    'case', ['contiguous', 'double', 'torch', 'eval', 'narrow', 'stride']
)
def test_pytorch_serves_what_is_not_compiled(case):
    channels = 8 if case == 'narrow' else 37
    x = torch.randn(2, channels, 6, 9)
    conv = make(3, channels, True)
    reference = make(3, channels, True, nn.Conv2d)
    if case == 'stride':
        conv.stride = reference.stride = (2, 2)
    if case == 'eval':
        conv.eval()
    if case == 'double':
        conv, reference, x = conv.double(), reference.double(), x.double()
    if case != 'contiguous':
        x = x.to(memory_format=torch.channels_last)
    with use_backend('torch' if case == 'torch' else None):
        found, ops = run(conv, x)
    assert 'mmmamba::depthwise_conv_weight_grad' not in ops
    for name, expected in run(reference, x)[0].items():
        assert torch.equal(found[name], expected), name


@pytest.mark.usefixtures('compiled')
def test_autocast():
    """Gradients are in float32 where the convolution was in bfloat16."""
    x = torch.randn(2, 37, 6, 9).to(memory_format=torch.channels_last)
    conv = make(3, 37, True)
    with torch.autocast('cpu', torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    expected, _ = run(make(3, 37, True, nn.Conv2d), x)
    for name, parameter in conv.named_parameters():
        assert relative_error(parameter.grad, expected[name]) <= 2e-2, name


@pytest.mark.usefixtures('compiled')
def test_frozen_weight():
    """No gradient is computed that nobody asks for."""
    x = torch.randn(2, 37, 6, 9).to(memory_format=torch.channels_last)
    conv = make(3, 37, False).requires_grad_(False)
    found, ops = run(conv, x)
    assert 'mmmamba::depthwise_conv_weight_grad' not in ops
    reference = make(3, 37, False, nn.Conv2d)
    expected, _ = run(reference, x)
    assert relative_error(found['x'], expected['x']) <= 2e-6
