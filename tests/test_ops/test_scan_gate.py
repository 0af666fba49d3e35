"""Tests of mmmamba.ops.scan_gate against the layer in float64."""

import pytest
import torch
import torch.nn.functional as F
from test_ops.inference_cases import LAYOUTS, SIZES, check, scan_gate_case

from mmmamba.ops import scan_gate


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', [1, 5, 16, 37])
@pytest.mark.parametrize('d_state', [1, 3])
def test_scan_gate(op_backend, size, channels, d_state):
    inputs, expected = scan_gate_case(size, channels, d_state)
    check(scan_gate(*inputs), expected, 1e-5)


def test_epsilon(op_backend):
    """It is what is left where all channels are alike."""
    inputs, _ = scan_gate_case((1, 2, 3), 8)
    x, projected, dt_weight, *_ = inputs
    inputs[1] = projected * 0
    inputs[5] = torch.ones(inputs[5].shape)
    inputs[0] = torch.zeros_like(x)
    inputs[0][..., 0] = 1
    for eps in (1e-5, 1.0):
        y = 2 * inputs[0].double()
        y = F.layer_norm(
            y, y.shape[-1:], inputs[6].double(), inputs[7].double(), eps
        )
        expected = y * F.silu(inputs[8].double())
        check(scan_gate(*inputs, eps), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', [5, 16])
def test_layout_of_scan(op_backend, layout, channels):
    inputs, expected = scan_gate_case((2, 5, 4), channels)
    moved = list(inputs)
    for i in (0, 1, 8):
        moved[i] = layout(inputs[i])
    found = scan_gate(*moved)
    check(found, expected, 1e-5)
    if op_backend == 'cpp' and 2 * channels >= 16:
        assert torch.equal(found, scan_gate(*inputs))
