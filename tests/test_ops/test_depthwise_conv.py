"""Tests of mmmamba.ops.depthwise_conv against PyTorch in float64."""

import pytest
import torch
from test_ops.inference_cases import (
    CHANNELS,
    LAYOUTS,
    SIZES,
    check,
    conv_inputs,
    conv_reference,
)

from mmmamba.ops import depthwise_conv


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_depthwise_conv(op_backend, size, channels, kernel):
    inputs = conv_inputs(size, channels, kernel)
    for stride in (1, 2):
        check(
            depthwise_conv(*inputs, stride=stride),
            conv_reference(*inputs, stride),
        )


@pytest.mark.parametrize('act', ['none', 'relu', 'silu'])
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('stride', [1, 2])
def test_activation(op_backend, act, channels, stride):
    x, weight, bias = conv_inputs((2, 9, 11), channels, 3)
    x = 10 * x
    for b in (bias, None):
        check(
            depthwise_conv(x, weight, b, stride, act),
            conv_reference(x, weight, b, stride, act),
        )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', CHANNELS)
def test_layout_of_conv(op_backend, layout, channels):
    x, weight, bias = conv_inputs((2, 5, 7), channels, 3)
    found = depthwise_conv(layout(x), layout(weight), bias)
    check(found, conv_reference(x, weight, bias))
    if op_backend == 'cpp' and channels >= 16:
        assert torch.equal(found, depthwise_conv(x, weight, bias))
