"""Tests of linear layers with fewer bits, against rounded ones in float64."""

import os
import subprocess
import sys

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import feed_forward_reference, linear_reference
from test_ops.support import opcheck

from mmmamba.ops import (
    backend,
    feed_forward,
    has_dot_products,
    is_packed,
    linear,
    pack_weight,
    unpack_weight,
    use_backend,
)
from mmmamba.ops.packed_weight import round_rows

DTYPES = ['bfloat16', 'int8']
# Rows around the tiles, in and beyond what passes all panels at once; channels
# that fill words and vectors, and that do not.
SIZES = [(1, 1, 5), (2, 5, 3), (7, 9, 16), (8, 33, 47), (13, 48, 100)]
SIZES += [(64, 31, 17), (150, 26, 49), (700, 200, 66), (333, 40, 283)]
SIZES += [(700, 264, 280)]


def steps(rows: int, channels: int) -> torch.Tensor:
    """Rows whose numbers int8 has exactly: 256 steps of a power of two."""
    x = torch.randint(0, 256, (rows, channels)).float()
    x[:, 0], x[:, -1] = 0, 255
    return (x - torch.randint(0, 256, (rows, 1))) * 2.0 ** torch.randint(
        -3, 3, (rows, 1)
    )


def inputs(rows: int, channels: int, out: int, dtype: str) -> list:
    """x, the packed weight, a bias and a residual of ``linear``."""
    exact = dtype == 'int8' and channels > 1
    x = steps(rows, channels) if exact else torch.randn(rows, channels)
    weight = pack_weight(torch.randn(channels, out), dtype)
    return [x, weight, torch.randn(out), torch.randn(rows, out)]


def rounded(x: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """What is multiplied: x and the weight with as few bits."""
    return [round_rows(x, weight), unpack_weight(weight, x.shape[-1])]


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 37])
def test_weights_are_rounded(dtype, channels):
    weight = torch.randn(channels, 21) * torch.logspace(-5, 5, 21)
    weight[:, 3] = 0
    packed = pack_weight(weight, dtype)
    assert is_packed(packed) and not is_packed(weight)
    assert packed.is_contiguous()
    found = unpack_weight(packed, channels)
    assert found.shape == weight.shape
    if dtype == 'bfloat16':
        assert torch.equal(found, weight.bfloat16().float())
    else:
        step = weight.abs().amax(0) / 127
        assert ((found - weight).abs() <= step * 0.5001).all()
        sums = packed[-1].contiguous().view(torch.float32)[:, 0]
        torch.testing.assert_close(sums, found.sum(0), rtol=1e-5, atol=1e-5)


def test_others_are_refused():
    with pytest.raises(ValueError, match='as bfloat16 or int8, not as int4'):
        pack_weight(torch.randn(3, 4), 'int4')
    for dtype in DTYPES:
        packed = pack_weight(torch.randn(9, 4), dtype)
        with pytest.raises(ValueError, match='packed weight of 40 channels'):
            unpack_weight(packed, 40)
        for shape in ((4,), (0, 4), (1, 1, 3, 4)):
            with pytest.raises(ValueError, match='must have shape'):
                pack_weight(torch.zeros(shape), dtype)
    with pytest.raises(ValueError, match='hold 66311 products'):
        pack_weight(torch.zeros(66312, 1), 'int8')


@pytest.mark.usefixtures('compiled')
def test_dot_products_whatever_is_forced(monkeypatch):
    expected = [has_dot_products(dtype) for dtype in DTYPES]
    monkeypatch.setattr(backend, '_forced', 'cuda')
    assert [has_dot_products(dtype) for dtype in DTYPES] == expected
    with use_backend('torch'):
        assert not any(has_dot_products(dtype) for dtype in DTYPES)


@pytest.mark.slow
@pytest.mark.parametrize(
    'name, allowed',
    [('SSE41', set()), ('avx2', set()), ('AVX512_CORE_VNNI', {'int8'})],
)
def test_older_instructions(compiled, name, allowed):
    """oneDNN's variable takes small letters, too."""
    asked = 'from mmmamba.ops import has_dot_products as has; '
    asked += f'print(*map(has, {DTYPES}))'
    result = subprocess.run(
        [sys.executable, '-c', asked],
        capture_output=True,
        text=True,
        env={**os.environ, 'ONEDNN_MAX_CPU_ISA': name},
    )
    here = [has_dot_products(dtype) and dtype in allowed for dtype in DTYPES]
    assert result.stdout.split() == [str(has) for has in here], result.stderr


def test_infinity_in_bfloat16():
    """What fills the words of an odd number of channels is 0."""
    weight = pack_weight(torch.ones(17, 20), 'bfloat16')
    x = torch.ones(2, 17)
    x[1, 0] = torch.inf
    assert torch.equal(linear(x, weight)[1], torch.full((20,), torch.inf))


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.usefixtures('op_backend')
def test_linear(size, dtype, relu):
    x, weight, bias, residual = inputs(*size, dtype)
    for b in (bias, None):
        for r in (residual, None):
            found = linear(x, weight, b, relu, r)
            expected = linear_reference(*rounded(x, weight), b, relu, r)
            assert found.dtype == torch.float32
            assert relative_error(found, expected) <= 5e-6


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('dtype, bound', [('bfloat16', 1e-3), ('int8', 1e-2)])
@pytest.mark.parametrize('threads', [1, 3], indirect=True)
@pytest.mark.usefixtures('op_backend')
def test_feed_forward(size, dtype, bound, threads):
    """Where a number between the layers is halfway, either step is right."""
    rows, channels, hidden = size
    x, weight1, bias1, _ = inputs(rows, channels, hidden, dtype)
    weight2 = pack_weight(torch.randn(hidden, channels), dtype)
    bias2, shortcut = torch.randn(channels), torch.randn(rows, channels)
    hidden = linear_reference(*rounded(x, weight1), bias1, True)
    expected = linear_reference(*rounded(hidden.float(), weight2), bias2)
    found = feed_forward(x, weight1, bias1, weight2, bias2, shortcut)
    assert relative_error(found, expected + x + shortcut) <= bound


@pytest.mark.parametrize('dtype', DTYPES)
def test_float16(dtype):
    """Rows whose range float16 cannot divide by, too."""
    x = torch.randn(4, 16) * torch.tensor([[1], [1e-3], [1e-6], [0]])
    weight, bias = pack_weight(torch.randn(16, 8), dtype), torch.randn(8)
    found = linear(x.half(), weight, bias)
    assert found.dtype == torch.float16
    torch.testing.assert_close(
        found.float(), linear(x, weight, bias), rtol=0, atol=2e-2
    )


@pytest.mark.parametrize('dtype, bound', [('bfloat16', 1e-2), ('int8', 2e-2)])
@pytest.mark.usefixtures('op_backend')
def test_what_the_bits_cost(dtype, bound):
    """Against float64 without any rounding; a size of S6."""
    x, weight = torch.randn(98, 384), torch.randn(384, 768)
    back, shift = torch.randn(768, 384) / 28, torch.zeros(384)
    bias = torch.randn(768)
    packed, packed_back = pack_weight(weight, dtype), pack_weight(back, dtype)
    found = linear(x, packed, bias)
    error = relative_error(found, linear_reference(x, weight, bias))
    assert 1e-4 < error <= bound
    found = feed_forward(x, packed, bias, packed_back, shift)
    expected = feed_forward_reference(x, weight, bias, back, shift)
    assert 1e-4 < relative_error(found, expected) <= bound


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.usefixtures('op_backend')
def test_slices_no_rows_and_equal_numbers(dtype):
    wide = torch.full((2, 3, 5, 30), torch.nan)
    wide[..., 4:20] = torch.randn(2, 3, 5, 16)
    weight = pack_weight(torch.randn(16, 23), dtype)
    x = wide[..., 4:20]
    assert torch.equal(linear(x, weight), linear(x.contiguous(), weight))
    assert linear(x[:0], weight).shape == (0, 3, 5, 23)
    for value in (0.0, 1.5, -2.0):
        x = torch.full((9, 16), value)
        bias = torch.randn(23)
        expected = linear_reference(*rounded(x, weight), bias)
        assert relative_error(linear(x, weight, bias), expected) <= 1e-6


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('wrong', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.usefixtures('op_backend')
def test_a_row_that_is_not_finite_stays_alone(dtype, wrong):
    x, weight, bias, _ = inputs(333, 40, 283, dtype)
    clean = linear(x, weight, bias)
    for column in (0, 7, 39):
        broken = x.clone()
        broken[100, column] = wrong
        found = linear(broken, weight, bias)
        assert not found[100].isfinite().any()
        others = torch.arange(333) != 100
        assert torch.equal(found[others], clean[others])


@pytest.mark.parametrize('dtype', DTYPES)
def test_the_gradient_passes(dtype):
    """For attribution maps: as if nothing was rounded."""
    x, weight, bias, _ = inputs(5, 12, 7, dtype)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(linear(x, weight, bias).sum(), x)
    expected = unpack_weight(weight, 12).sum(1).expand(5, -1)
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize('dtype', DTYPES)
def test_shapes(compiled, dtype):
    x, weight, bias, _ = inputs(5, 12, 7, dtype)
    other = pack_weight(torch.randn(30, 7), dtype)
    op = torch.ops.mmmamba.linear.default
    for device in ('cpu', 'meta'):
        given = [t.to(device) for t in (x, other, bias)]
        with pytest.raises(ValueError, match='linear: weight must have'):
            op(*given, False, None)
    with use_backend('torch'), pytest.raises(ValueError, match='12 channels'):
        linear(x, other, bias)
    opcheck(op, (x, weight, bias, True, None))


@pytest.mark.parametrize('dtype', DTYPES)
def test_integers_stay_integers(dtype):
    """``Module.to`` of another dtype leaves a packed weight alone."""
    layer = torch.nn.Module()
    weight = pack_weight(torch.randn(8, 4), dtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    assert torch.equal(layer.half().double().weight, weight)
