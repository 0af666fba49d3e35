"""Tests of mmmamba/ops/block.py against the trained block in float64."""

import pytest
import torch
from golden import randomize, relative_error
from torch.library import opcheck

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


def parameters(block: deployed.Block) -> tuple:
    return tuple(block._parameters_of_op())


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('threads', [1, 2, 3], indirect=True)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@torch.no_grad()
def test_block(size, threads, settings, monkeypatch):
    block = make_block(**settings)
    fast = deployed.Block(block)
    calls = []
    op = deployed.block
    monkeypatch.setattr(
        deployed, 'block', lambda *args: calls.append(1) or op(*args)
    )
    batch, height, width = size
    x = torch.randn(batch, 100, height, width)
    found = fast(x.permute(0, 2, 3, 1))
    assert calls
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


def test_what_does_not_fit_is_named():
    x = torch.randn(1, 5, 6, 100)
    arguments = list(parameters(deployed.Block(make_block())))
    with pytest.raises(ValueError, match='block: x must be'):
        torch.ops.mmmamba.block(x[0], *arguments)
    with pytest.raises(ValueError, match='block: conv1 must be 2 tensors'):
        torch.ops.mmmamba.block(x, [], *arguments[1:])
    with pytest.raises(ValueError, match='feed_forward: weight does not fit'):
        torch.ops.mmmamba.block(
            x, arguments[0], arguments[1][::-1], *arguments[2:]
        )


def test_citizen_of_pytorch():
    arguments = parameters(deployed.Block(make_block()))
    tests = ('test_schema', 'test_faketensor')
    x = torch.randn(2, 5, 6, 100)
    opcheck(torch.ops.mmmamba.block.default, (x, *arguments), test_utils=tests)
