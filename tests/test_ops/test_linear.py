"""Tests of the matrix products, linear and feed_forward, in float64."""

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import (
    check,
    feed_forward_reference,
    linear_inputs,
    linear_reference,
    mlp_inputs,
)
from test_ops.support import opcheck

from mmmamba.ops import feed_forward, linear

# Rows around the kernels' tiles of 8 and 6 rows, and beyond the number from
# which threads share rows and panels are packed; columns around vectors and
# panels. Each row is a sample of its own, so that Strassen's step, which stays
# within a sample, is not taken: test_samples_of_many_rows has that.
SIZES = [(1, 1, 5), (2, 5, 3), (7, 9, 16), (8, 33, 47), (13, 48, 100)]
SIZES += [(64, 31, 17), (150, 24, 49), (700, 200, 66), (333, 40, 283)]
# More rows than pass all panels of an MLP at once.
SIZES += [(700, 264, 280)]


def check_product(found, expected) -> None:
    check(found, expected, 5e-6)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.usefixtures('op_backend')
def test_linear(size, relu):
    x, weight, bias, residual = linear_inputs(*size)
    for b in (bias, None):
        for r in (residual, None):
            check_product(
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
        check_product(
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
    check_product(y, linear_reference(x, weight, bias, residual=residual))
    x = torch.randn(16, 5, 3).permute(2, 1, 0)
    check_product(linear(x, weight), linear_reference(x, weight))
    check_product(
        feed_forward(x, weight, bias, weight.t(), bias[:16]),
        feed_forward_reference(x, weight, bias, weight.t(), bias[:16]),
    )


@pytest.mark.usefixtures('op_backend')
def test_no_rows_and_nan():
    x, weight, bias, _ = linear_inputs(0, 4, 6)
    assert linear(x, weight, bias).shape == (0, 6)
    assert feed_forward(x, weight, bias, weight.t(), bias[:4]).shape == (0, 4)
    x, weight, bias, _ = linear_inputs(9, 20, 24)
    x[4, 7] = torch.nan
    found = linear(x, weight, bias, relu=True).isnan()
    assert found[4].all() and not found[[0, 3, 5, 8]].any()
    x, weight, bias, _ = linear_inputs(333, 40, 283)
    x[100, 7] = torch.nan
    found = linear(x, weight, bias, relu=True).isnan()
    assert found[100].all()
    assert not found[:100].any() and not found[101:].any()


# Columns that are no whole vectors of two halves, and some that are. Of the
# last, both layers of an MLP take Strassen's step.
@pytest.mark.parametrize(
    'width', [(40, 283), (64, 256), (200, 400), (264, 280)]
)
@pytest.mark.parametrize(
    'samples',
    [(1, 333), (8, 49), (5, 36), (3, 36), (17, 9), (9, 16), (2, 91)]
    # Which threads cut where nothing is left for a pair of tiles, and where.
    + [(1, 256), (3, 144), (1, 520), (4, 131)],
)
@pytest.mark.parametrize('threads', [1, 2, 3], indirect=True)
@pytest.mark.usefixtures('op_backend')
def test_samples_of_many_rows(samples, width, threads):
    """Large products take two tiles of a sample together (Strassen)."""
    rows = samples[0] * samples[1]
    x, weight, bias, residual = linear_inputs(rows, *width)
    # A part of a wider map, whose rows are farther apart.
    wide = torch.randn(*samples, width[0] + 8)
    wide[..., 4:-4] = x.view(*samples, -1)
    residual = residual.view(*samples, -1)
    found = linear(wide[..., 4:-4], weight, bias, True, residual)
    expected = linear_reference(x, weight, bias, True, residual.flatten(0, 1))
    check(found.flatten(0, 1), expected)
    back, last = torch.randn(width[1], width[0]), torch.randn(width[0])
    shortcut = torch.randn_like(x)
    arguments = (weight, bias, back, last)
    found = feed_forward(
        x.view(*samples, -1), *arguments, shortcut.view(*samples, -1)
    )
    expected = feed_forward_reference(x, *arguments, shortcut)
    check(found.flatten(0, 1), expected)


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


@pytest.mark.usefixtures('compiled')
@pytest.mark.slow
def test_citizens_of_pytorch():
    """Schema, shapes without data and dispatch are as its tools expect."""
    tests = ('test_schema', 'test_faketensor', 'test_aot_dispatch_dynamic')
    x, weight, bias, residual = linear_inputs(9, 20, 37)
    for arguments in (
        (x, weight, bias, True, residual),
        (x.view(3, 3, 20), weight, None, False, None),
    ):
        op = torch.ops.mmmamba.linear.default
        opcheck(op, arguments, test_utils=tests)
    op = torch.ops.mmmamba.feed_forward.default
    opcheck(op, (*mlp_inputs(9, 20, 37), None), test_utils=tests)
