"""Tests of mmmamba/ops/linear.py against float64."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from test_ops.test_backend import copy_ops, library
from torch import Tensor
from torch.library import opcheck

from mmmamba.ops import feed_forward, linear

# Rows around the kernels' blocks of 8 and 6, and beyond the number from which
# threads share rows and panels are packed; columns around vectors and panels.
SIZES = [(1, 1, 5), (2, 5, 3), (7, 9, 16), (8, 33, 47), (13, 48, 100)]
SIZES += [(64, 31, 17), (150, 24, 49), (700, 200, 66)]
# Of the seven products instead of eight: an odd row, columns beyond the whole
# vectors of two halves, smaller blocks of rows; both layers of an MLP.
SIZES += [(333, 40, 283), (700, 264, 280)]

RESULTS = """
import sys, torch
from mmmamba.ops import feed_forward, linear
found = []
for x, w1, b1, w2, b2 in torch.load(sys.argv[1]):
    found += [linear(x, w1, b1, True), feed_forward(x, w1, b1, w2, b2, x)]
torch.save((torch.backends.cpu.get_cpu_capability(), found), sys.argv[2])
"""


def inputs(rows: int, channels: int, out: int) -> list[Tensor]:
    """x, weight, bias and residual of a linear layer."""
    return [
        torch.randn(rows, channels),
        torch.randn(channels, out),
        torch.randn(out),
        torch.randn(rows, out),
    ]


def mlp_inputs(rows: int, channels: int, hidden: int) -> list[Tensor]:
    """x and both layers' parameters."""
    return [
        torch.randn(rows, channels),
        torch.randn(channels, hidden),
        torch.randn(hidden),
        torch.randn(hidden, channels),
        torch.randn(channels),
    ]


def linear_reference(x, weight, bias=None, relu=False, residual=None):
    y = F.linear(
        x.double(),
        weight.double().t(),
        None if bias is None else bias.double(),
    )
    y = F.relu(y) if relu else y
    return y if residual is None else y + residual


def feed_forward_reference(x, w1, b1, w2, b2, shortcut=None):
    y = linear_reference(linear_reference(x, w1, b1, True), w2, b2)
    y = y + x
    return y if shortcut is None else y + shortcut


def check(found: Tensor, expected: Tensor, bound: float = 5e-6) -> None:
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert relative_error(found, expected) <= bound


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.usefixtures('op_backend')
def test_linear(size, relu):
    x, weight, bias, residual = inputs(*size)
    for b in (bias, None):
        for r in (residual, None):
            check(
                linear(x, weight, b, relu, r),
                linear_reference(x, weight, b, relu, r),
            )


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('threads', [1, 3], indirect=True)
@pytest.mark.usefixtures('op_backend')
def test_feed_forward(size, threads):
    arguments = mlp_inputs(*size)
    shortcut = torch.randn_like(arguments[0])
    for s in (None, shortcut):
        check(
            feed_forward(*arguments, s),
            feed_forward_reference(*arguments, s),
        )


@pytest.mark.usefixtures('op_backend')
def test_maps_and_slices_of_them():
    wide = torch.full((2, 3, 5, 30), torch.nan)
    wide[..., 4:20] = torch.randn(2, 3, 5, 16)
    x, weight, bias = wide[..., 4:20], torch.randn(16, 23), torch.randn(23)
    residual = torch.randn(5, 3, 2, 23).transpose(0, 2)
    y = linear(x, weight, bias, residual=residual)
    assert y.shape == (2, 3, 5, 23)
    check(y, linear_reference(x, weight, bias, residual=residual))
    x = torch.randn(16, 5, 3).permute(2, 1, 0)
    check(linear(x, weight), linear_reference(x, weight))
    check(
        feed_forward(x, weight, bias, weight.t(), bias[:16]),
        feed_forward_reference(x, weight, bias, weight.t(), bias[:16]),
    )


@pytest.mark.usefixtures('op_backend')
def test_no_rows_and_nan():
    x, weight, bias, _ = inputs(0, 4, 6)
    assert linear(x, weight, bias).shape == (0, 6)
    assert feed_forward(x, weight, bias, weight.t(), bias[:4]).shape == (0, 4)
    x, weight, bias, _ = inputs(9, 20, 24)
    x[4, 7] = torch.nan
    found = linear(x, weight, bias, relu=True).isnan()
    assert found[4].all() and not found[[0, 3, 5, 8]].any()
    # Of seven products instead of eight, up to 16 rows share one.
    x, weight, bias, _ = inputs(333, 40, 283)
    x[100, 7] = torch.nan
    found = linear(x, weight, bias, relu=True).isnan()
    assert found[100].all()
    assert not found[:85].any() and not found[116:].any()


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16])
@pytest.mark.usefixtures('op_backend')
def test_other_dtypes(dtype):
    arguments = [t.to(dtype) for t in mlp_inputs(9, 20, 37)]
    found = feed_forward(*arguments, arguments[0])
    assert found.dtype == dtype
    expected = feed_forward_reference(*arguments, arguments[0])
    bound = 1e-14 if dtype == torch.float64 else 2e-2
    assert relative_error(found, expected) <= bound


@pytest.mark.usefixtures('op_backend')
def test_gradients():
    arguments = [t.requires_grad_() for t in mlp_inputs(9, 20, 37)]
    exact = [t.detach().double().requires_grad_() for t in arguments]
    feed_forward(*arguments).square().sum().backward()
    feed_forward_reference(*exact).square().sum().backward()
    for found, expected in zip(arguments, exact):
        assert relative_error(found.grad, expected.grad) <= 1e-5


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(weight=(5, 6)), 'weight'),
        (dict(weight=(6,)), 'weight'),
        (dict(bias=(5,)), 'bias'),
        (dict(residual=(3, 5)), 'residual'),
        (dict(x=(4,)), 'x'),
    ],
)
@pytest.mark.usefixtures('op_backend')
def test_what_does_not_fit_is_named(changes, message):
    shapes = dict(x=(3, 4), weight=(4, 6), bias=(6,), residual=(3, 6))
    tensors = {k: torch.zeros(s) for k, s in {**shapes, **changes}.items()}
    with pytest.raises(ValueError, match=message):
        linear(**tensors)
    with pytest.raises((TypeError, ValueError), match='float'):
        linear(torch.zeros(3, 4, dtype=torch.int32), torch.zeros(4, 6))


@pytest.mark.usefixtures('op_backend')
def test_nothing_between_the_layers_is_refused():
    x, w1, b1 = torch.zeros(3, 4), torch.zeros(4, 0), torch.zeros(0)
    with pytest.raises(ValueError, match='x must be|weight1 does not fit'):
        feed_forward(x, w1, b1, w1.t(), torch.zeros(4))


@pytest.mark.usefixtures('compiled')
def test_citizens_of_pytorch():
    """Schema, shapes without data and dispatch are as its tools expect."""
    tests = ('test_schema', 'test_faketensor', 'test_aot_dispatch_dynamic')
    x, weight, bias, residual = inputs(9, 20, 37)
    for arguments in (
        (x, weight, bias, True, residual),
        (x.view(3, 3, 20), weight, None, False, None),
    ):
        op = torch.ops.mmmamba.linear.default
        opcheck(op, arguments, test_utils=tests)
    op = torch.ops.mmmamba.feed_forward.default
    opcheck(op, (*mlp_inputs(9, 20, 37), None), test_utils=tests)


@pytest.mark.usefixtures('compiled')
def test_instruction_sets(tmp_path):
    """The portable kernels, and those this CPU has beside what it takes."""
    here = torch.backends.cpu.get_cpu_capability()
    package = copy_ops(tmp_path / 'packages')
    shutil.copy(library(), package)
    cases = [mlp_inputs(*size) for size in SIZES]
    expected = []
    for x, w1, b1, w2, b2 in cases:
        expected.append(linear_reference(x, w1, b1, True))
        expected.append(feed_forward_reference(x, w1, b1, w2, b2, x))
    torch.save(cases, tmp_path / 'cases')
    for capability in (
        'default',
        *(['avx2'] if here in ('AVX2', 'AVX512') else []),
    ):
        command = [sys.executable, '-c', RESULTS]
        result = subprocess.run(
            [*command, tmp_path / 'cases', tmp_path / capability],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={
                **os.environ,
                'PYTHONPATH': str(package.parent),
                'OMP_NUM_THREADS': '1',
                'MMMAMBA_OP_BACKEND': 'cpp',
                'ATEN_CPU_CAPABILITY': capability,
            },
        )
        assert result.returncode == 0, result.stderr[-1000:]
        chosen, results = torch.load(tmp_path / capability)
        assert chosen.lower() == capability or capability == 'default'
        for found, exact in zip(results, expected, strict=True):
            check(found, exact)
