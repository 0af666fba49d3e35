"""Tests of mmmamba.ops.mixer_conv against the layers in float64."""

import pytest
import torch
from test_ops.inference_cases import LAYOUTS, SIZES, check, mixer_case

from mmmamba.ops import mixer_conv


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'split', [[16, 3, 1], [3, 0, 4], [37, 20, 0], [32, 16, 16]]
)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_mixer_conv(op_backend, size, split, kernel):
    inputs, expected = mixer_case(size, split, kernel)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('split', [[16, 3, 1], [37, 20, 0], [5, 0, 0]])
def test_mixer_without_wavelet(op_backend, split):
    inputs, expected = mixer_case((2, 4, 7), split, 3, wavelet=False)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('split', [[16, 16, 16], [3, 9, 5]])
def test_layout_of_mixer(op_backend, layout, split):
    inputs, expected = mixer_case((2, 5, 7), split, 3)
    x, ssm, *weights = inputs
    found = mixer_conv(layout(x), layout(ssm), *weights)
    check(found, expected)
    if op_backend == 'cpp' and min(split) >= 16:
        assert torch.equal(found, mixer_conv(*inputs))
