"""Tests of the op stage against the trained stage in float64."""

import pytest
import torch
from golden import randomize, relative_error
from test_ops.support import opcheck

from mmmamba.deploy import network
from mmmamba.layers import Stage
from mmmamba.ops import BlockParameters, block, stage, use_backend

pytestmark = pytest.mark.usefixtures('compiled')

SETTINGS = [
    dict(),
    dict(local_ratio=0.0),
    dict(wavelet=False),
    dict(in_channels=None),  # no transition
]


def make_stage(**changes) -> Stage:
    settings = dict(
        in_channels=64,
        channels=100,
        drop_path_rates=(0, 0),
        global_ratio=0.6,
        local_ratio=0.3,
        kernel_size=5,
    )
    return randomize(Stage(**{**settings, **changes})).eval()


def run(fast: network.Stage, x):
    """Run it, and return the names of the ops as well."""
    with torch.autograd.profiler.profile() as profile:
        found = fast(x)
    return found, {e.key for e in profile.key_averages()}


@pytest.mark.parametrize('size', [(1, 9, 7), (2, 12, 13), (0, 4, 5)], ids=str)
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
@torch.no_grad()
def test_stage(size, settings):
    trained = make_stage(**settings)
    fast = network.Stage(trained)
    batch, height, width = size
    channels = 100 if 'in_channels' in settings else 64
    x = torch.randn(batch, channels, height, width)
    last = x.permute(0, 2, 3, 1)
    before = last.clone()
    found, ops = run(fast, last)
    assert 'mmmamba::stage' in ops
    assert torch.equal(last, before)
    assert found.is_contiguous()
    expected = trained.double()(x.double()).permute(0, 2, 3, 1)
    assert found.shape == expected.shape
    if batch:
        assert relative_error(found, expected) <= 5e-6


def test_layers_serve_a_gradient_and_other_dtypes():
    fast = network.Stage(make_stage())
    x = torch.randn(1, 5, 6, 64, requires_grad=True)
    found, ops = run(fast, x)
    assert 'mmmamba::stage' not in ops
    found.sum().backward()
    assert x.grad.isfinite().all()
    with torch.no_grad():
        assert fast.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize('settings', [dict(directions=1), dict(kernel_size=9)])
@torch.no_grad()
def test_layers_serve_what_is_not_compiled(settings):
    trained = make_stage(**settings)
    x = torch.randn(1, 64, 5, 6)
    found, ops = run(network.Stage(trained), x.permute(0, 2, 3, 1))
    assert 'mmmamba::stage' not in ops
    expected = trained.double()(x.double()).permute(0, 2, 3, 1)
    assert relative_error(found, expected) <= 5e-6


@torch.no_grad()
def test_parameters_that_are_missing():
    fast = network.Stage(make_stage())
    (parameters,) = fast._op_parameters.read()
    x = torch.randn(1, 5, 6, 64)
    for count in (1, 21, len(parameters) - 1):
        with pytest.raises(ValueError, match='too few tensors'):
            stage(x, parameters[:count], True, True, True, 1e-5)
    with pytest.raises(ValueError, match='weight must'):
        stage(x, parameters[1:], True, True, True, 1e-5)


@torch.no_grad()
def test_no_version_in_pytorch():
    """Nor for the ops that are compiled for GPUs."""
    with use_backend('torch'):
        with pytest.raises(RuntimeError, match='stage is there for CPUs'):
            stage(torch.zeros(1, 5, 6, 64), [], False, True, True, 1e-5)
        with pytest.raises(RuntimeError, match='block is there for CPUs'):
            block(torch.zeros(1, 5, 6, 64), BlockParameters(*[None] * 9))


@torch.no_grad()
def test_citizen_of_pytorch():
    """Schema and shapes without data are as its tools expect."""
    fast = network.Stage(make_stage())
    (parameters,) = fast._op_parameters.read()
    opcheck(
        torch.ops.mmmamba.stage.default,
        (torch.randn(2, 5, 6, 64), parameters, True, True, True, 1e-5),
        test_utils=('test_schema', 'test_faketensor'),
    )
