"""The scan in standard operations against a loop in float64."""

import pytest
import torch

from mmmamba.deploy.export_layers import softplus
from mmmamba.deploy.unrolled_scan import chunk_size, unrolled_scan

LENGTHS = (1, 2, 3, 9, 13, 36, 37, 49, 63, 64, 65, 144, 1024, 4096)


def loop(log_a, b):
    """The recurrence, step by step."""
    a, h, states = log_a.exp(), torch.zeros_like(b[:, :, 0]), []
    for t in range(b.shape[2]):
        h = a[:, :, t] * h + b[:, :, t]
        states.append(h)
    return torch.stack(states, 2)


@pytest.mark.parametrize('length', LENGTHS)
@pytest.mark.parametrize('decay', [1e-6, 1e-3, 1.0, 50.0])
def test_states_are_those_of_a_loop(length, decay):
    torch.manual_seed(length)
    log_a = -decay * torch.rand(2, 3, length, 5)
    b = torch.randn(2, 3, length, 5)
    expected = loop(log_a.double(), b.double())
    found = unrolled_scan(log_a, b, length)
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 2e-6


@pytest.mark.parametrize('length', range(13, 200))
def test_chunks_are_of_bounded_size(length):
    assert 2 <= chunk_size(length) <= 16


def test_common_lengths_need_no_padding():
    for side in (6, 8, 9, 10, 12, 14, 16, 20, 32, 64):
        assert side**2 % chunk_size(side**2) == 0, side


def test_softplus_keeps_what_is_small():
    x = torch.linspace(-60, 90, 4001)
    expected = torch.nn.functional.softplus(x.double(), threshold=100)
    assert ((softplus(x) - expected) / expected).abs().max() < 1e-6
