"""Tests of the op depthwise_conv_weight_grad against autograd in float64."""

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import LAYOUTS, SIZES
from test_ops.support import opcheck
from torch import Tensor
from torch.nn import functional as F

from mmmamba.ops import depthwise_conv_weight_grad, use_backend

# The sizes of others, and a map smaller than half a kernel.
SIZES = [*SIZES, (16, 2, 2)]


def make(size, channels: int) -> tuple[Tensor, Tensor]:
    batch, height, width = size
    x, grad = torch.randn(2, batch, height, width, channels)
    return x, grad


def expected(x: Tensor, grad: Tensor, kernel: int) -> Tensor:
    channels = x.shape[-1]
    weight = torch.zeros(channels, 1, kernel, kernel).double()
    y = F.conv2d(
        x.double().permute(0, 3, 1, 2),
        weight.requires_grad_(),
        padding=kernel // 2,
        groups=channels,
    )
    y.backward(grad.double().permute(0, 3, 1, 2))
    return weight.grad[:, 0].permute(1, 2, 0)


@pytest.mark.parametrize('backend', ['torch', None])
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
@pytest.mark.parametrize('channels', [3, 16, 37])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_weight_grad(size, channels, kernel, layout, backend):
    x, grad = make(size, channels)
    with use_backend(backend):
        found = depthwise_conv_weight_grad(layout(x), layout(grad), kernel)
    assert found.dtype == torch.float32
    assert relative_error(found, expected(x, grad, kernel)) <= 2e-6


@pytest.mark.parametrize('threads', [1, 2, 3], indirect=True)
@pytest.mark.usefixtures('compiled')
def test_threads_do_not_matter(threads):
    torch.manual_seed(0)
    x, grad = make((3, 6, 7), 100)
    found = depthwise_conv_weight_grad(x, grad, 5)
    torch.set_num_threads(1)
    assert torch.equal(found, depthwise_conv_weight_grad(x, grad, 5))


@pytest.mark.usefixtures('compiled')
def test_no_samples():
    x, grad = make((0, 4, 5), 16)
    assert depthwise_conv_weight_grad(x, grad, 3).count_nonzero() == 0


@pytest.mark.usefixtures('compiled')
def test_citizen_of_pytorch():
    """Schema and shapes without data are as its tools expect."""
    opcheck(
        torch.ops.mmmamba.depthwise_conv_weight_grad.default,
        (*make((2, 4, 5), 20), 5),
        test_utils=('test_schema', 'test_faketensor'),
    )
