"""Tests of mmmamba/ops/transition.py against the trained one in float64."""

import pytest
import torch
from golden import randomize, relative_error
from torch.library import opcheck

from mmmamba.deploy import layers as deployed
from mmmamba.layers import Transition

pytestmark = pytest.mark.usefixtures('compiled')

# One sample that all threads share, samples that are no multiple of them,
# whole samples for each thread before the merging, behind it, too, and such
# that go through a few at a time.
SIZES = [(1, 9, 7), (1, 21, 30), (3, 12, 13), (6, 12, 13), (6, 21, 30)]


def make_transition() -> Transition:
    return randomize(Transition(36, 50)).eval()


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('threads', [1, 2, 3], indirect=True)
@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_transition(size, threads, mode, monkeypatch):
    transition = make_transition()
    fast = deployed.Transition(transition)
    calls = []
    op = deployed.transition
    monkeypatch.setattr(
        deployed, 'transition', lambda *args: calls.append(1) or op(*args)
    )
    batch, height, width = size
    x = torch.randn(batch, 36, height, width)
    with mode():
        found = fast(x.permute(0, 2, 3, 1))
    assert calls
    assert found.is_contiguous()
    with torch.no_grad():
        expected = transition.double()(x.double()).permute(0, 2, 3, 1)
    assert relative_error(found, expected) <= 5e-6


@torch.no_grad()
def test_input_stays_the_same():
    fast = deployed.Transition(make_transition())
    x = torch.randn(2, 9, 7, 36)
    before = x.clone()
    fast(x)
    assert torch.equal(x, before)


@torch.no_grad()
def test_no_samples():
    fast = deployed.Transition(make_transition())
    assert fast(torch.zeros(0, 5, 4, 36)).shape == (0, 3, 2, 50)


def test_layers_serve_a_gradient_and_other_dtypes():
    fast = deployed.Transition(make_transition())
    x = torch.randn(1, 5, 6, 36, requires_grad=True)
    fast(x).sum().backward()
    assert x.grad.isfinite().all()
    with torch.no_grad():
        assert fast.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_is_named():
    x = torch.randn(1, 5, 6, 36)
    fast = deployed.Transition(make_transition())
    arguments = list(fast._parameters_of_op())
    with pytest.raises(ValueError, match='transition: x must be'):
        torch.ops.mmmamba.transition(x[0], *arguments)
    with pytest.raises(ValueError, match='transition: conv1 must be 2 tens'):
        torch.ops.mmmamba.transition(x, [], *arguments[1:])
    with pytest.raises(ValueError, match='feed_forward: weight does not fit'):
        torch.ops.mmmamba.transition(
            x, arguments[0], arguments[1][::-1], *arguments[2:]
        )
    weight, bias = arguments[2]
    with pytest.raises(ValueError, match="expand's weight must have 2 dim"):
        torch.ops.mmmamba.transition(
            x, *arguments[:2], [weight[0], bias], *arguments[3:]
        )
    weight, bias = arguments[5]
    with pytest.raises(ValueError, match='fc2 must have as many channels'):
        torch.ops.mmmamba.transition(
            x, *arguments[:5], [weight[:, :1], bias[:1]], *arguments[6:]
        )


@pytest.mark.parametrize('size', [(2, 5, 6), (1, 8, 9)], ids=str)
def test_citizen_of_pytorch(size):
    arguments = tuple(
        deployed.Transition(make_transition())._parameters_of_op()
    )
    tests = ('test_schema', 'test_faketensor')
    x = torch.randn(*size, 36)
    opcheck(
        torch.ops.mmmamba.transition.default, (x, *arguments), test_utils=tests
    )
