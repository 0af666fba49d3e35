"""Tests of mmmamba.ops.stem_conv against PyTorch in float64."""

import pytest
import torch
from test_ops.inference_cases import LAYOUTS, SIZES, check, stem, stem_case


@pytest.mark.parametrize('size', [*SIZES, (2, 9, 40), (1, 2, 26)])
@pytest.mark.parametrize('channels', [3, 16, 18, 25, 40, 50])
def test_stem_conv(op_backend, size, channels):
    inputs, expected = stem_case(size, channels)
    check(stem(*inputs), expected)


# Rows of a map that are more than are kept at a time, maps that are larger
# and smaller than what is computed in one go, bands of uneven height.
@pytest.mark.parametrize('size', [(1, 70, 50), (2, 33, 129), (3, 17, 300)])
@pytest.mark.parametrize('channels', [(18, 36), (16, 31, 64, 50)])
@pytest.mark.parametrize('threads', [1, 2, 5], indirect=True)
def test_stem_of_several_convs(op_backend, size, channels, threads):
    inputs, expected = stem_case(size, *channels)
    check(stem(*inputs), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layout_of_stem(op_backend, layout):
    inputs, expected = stem_case((2, 7, 11), 24, 40)
    found = stem(layout(inputs[0]), *inputs[1:])
    check(found, expected)
    if op_backend == 'cpp':
        assert torch.equal(found, stem(*inputs))
