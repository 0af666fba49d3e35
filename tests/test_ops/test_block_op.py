"""Tests of the op block against the trained block in float64."""

import pytest
import torch
from golden import randomize, relative_error
from test_ops.inference_cases import block_inputs
from test_ops.support import opcheck

from mmmamba.deploy import layers as deployed
from mmmamba.layers import MobileMambaBlock

pytestmark = pytest.mark.usefixtures('compiled')

# One sample that all threads share, samples that are no multiple of them,
# whole samples for each thread, and such that go through a few at a time.
SIZES = [(1, 9, 7), (1, 20, 21), (3, 12, 13), (4, 12, 13), (10, 15, 15)]
SETTINGS = [dict(), dict(local_ratio=0.0), dict(wavelet=False)]


def make_block(**changes) -> MobileMambaBlock:
    settings = dict(global_ratio=0.6, local_ratio=0.3, kernel_size=5)
    block = MobileMambaBlock(100, **{**settings, **changes})
    return randomize(block).eval()


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize(
    'threads',
    [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))],
    indirect=True,
)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@torch.no_grad()
def test_block(size, threads, settings):
    block = make_block(**settings)
    fast = deployed.Block(block)
    batch, height, width = size
    x = torch.randn(batch, 100, height, width)
    with torch.autograd.profiler.profile() as profile:
        found = fast(x.permute(0, 2, 3, 1))
    assert 'mmmamba::block' in {e.key for e in profile.key_averages()}
    assert found.is_contiguous()
    expected = block.double()(x.double()).permute(0, 2, 3, 1)
    assert relative_error(found, expected) <= 5e-6


@torch.no_grad()
def test_input_stays_the_same():
    fast = deployed.Block(make_block())
    x = torch.randn(2, 9, 7, 100)
    before = x.clone()
    fast(x)
    assert torch.equal(x, before)


@torch.no_grad()
def test_no_samples():
    fast = deployed.Block(make_block())
    assert fast(torch.zeros(0, 4, 5, 100)).shape == (0, 4, 5, 100)


def test_layers_serve_a_gradient_and_other_dtypes():
    fast = deployed.Block(make_block())
    x = torch.randn(1, 5, 6, 100, requires_grad=True)
    fast(x).sum().backward()
    assert x.grad.isfinite().all()
    with torch.no_grad():
        assert fast.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_citizen_of_pytorch():
    """Schema and shapes without data are as its tools expect."""
    tests = ('test_schema', 'test_faketensor')
    arguments = tuple(block_inputs().values())
    opcheck(torch.ops.mmmamba.block.default, arguments, test_utils=tests)
