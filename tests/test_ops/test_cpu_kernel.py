"""Tests of the vector functions of mmmamba/ops/csrc/common/cpu/simd.hpp."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / 'mmmamba' / 'ops' / 'csrc' / 'common' / 'cpu'
TARGETS = {
    'portable': (16, None),
    'avx2': (32, 'avx2,fma'),
    'avx512': (64, 'avx512f,avx512bw,avx512dq,avx512vl,fma'),
}
TINY = np.finfo(np.float32).tiny
COUNT = 2**20


def cpu_has(isa: str) -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    return isa == 'portable' or capability in {
        'avx2': ('AVX2', 'AVX512'),
        'avx512': ('AVX512',),
    }.get(isa, ())


@pytest.fixture(scope='module', params=TARGETS)
def functions(request, compile_library):
    """The functions, compiled for one instruction set."""
    isa = request.param
    if not cpu_has(isa):
        pytest.skip(f'this CPU is without {isa}')
    width, features = TARGETS[isa]
    flags = ['-O3', '-I', KERNELS]
    flags += [f'-DMMMAMBA_ISA={isa}', f'-DMMMAMBA_SIMD_BYTES={width}']
    if features:
        flags.append(f'-DTARGET="{features}"')
    library = compile_library(
        HERE / 'cpu_math.cpp', *flags, name=f'cpu_math_{isa}'
    )

    def call(name: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.zeros(-(-x.size // 16) * 16, np.float32)
        padded[: x.size] = x
        outs = np.empty((2, padded.size), np.float32)
        getattr(library, name)(
            *(
                a.ctypes.data_as(ctypes.c_void_p)
                for a in (padded, outs[0], outs[1])
            ),
            ctypes.c_int64(padded.size),
        )
        return outs[0][: x.size], outs[1][: x.size]

    return call


def sweep(low: float, high: float) -> np.ndarray:
    """Numbers between two bounds, and between every power of two of them."""
    linear = np.linspace(low, high, COUNT)
    sizes = np.geomspace(1e-38, max(-low, high), COUNT // 2)
    both = np.concatenate([linear, sizes, -sizes]).astype(np.float32)
    return both[(both >= low) & (both <= high)]


def ulps(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of the exact value."""
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return float((np.abs(found.astype(np.float64) - exact) / spacing).max())


def exact_softplus(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = x.astype(np.float64)
    tail = np.exp(-np.abs(x))
    slope = np.where(x > 0, 1, tail) / (1 + tail)
    return np.maximum(x, 0) + np.log1p(tail), slope


def test_softplus_and_its_slope(functions):
    """Within 2.5 ulp; found over 8e6 numbers: 2.4 and 2.3."""
    x = sweep(-104, 104)
    value, slope = functions('softplus_of', x)
    exact_value, exact_slope = exact_softplus(x)
    # Below, where the result is not normal or almost so, it may be 0.
    normal = x >= -87
    assert ulps(value[normal], exact_value[normal]) <= 2.5
    assert ulps(slope[normal], exact_slope[normal]) <= 2.5
    for found, exact in ((value, exact_value), (slope, exact_slope)):
        assert (found >= 0).all()
        assert np.abs(found - exact)[~normal].max() <= 4 * TINY


def test_softplus_of_special_values(functions):
    big = np.finfo(np.float32).max
    x = np.float32([0, -0.0, 80, -80, np.inf, -np.inf, np.nan, big, -big])
    value, slope = functions('softplus_of', x)
    tail = np.exp(-80.0)
    expected = [np.log(2), np.log(2), 80, tail, np.inf, 0, np.nan, big, 0]
    np.testing.assert_allclose(value, expected, rtol=2.5e-7)
    expected = [0.5, 0.5, 1, tail, 1, 0, np.nan, 1, 0]
    np.testing.assert_allclose(slope, expected, rtol=2.5e-7)


def test_decay(functions):
    """The sum of both parts is closer than float32 can be to e^x near 1."""
    x = sweep(-87, 0)
    high, low = (part.astype(np.float64) for part in functions('decay_of', x))
    exact = np.exp(x.astype(np.float64))
    assert np.abs((high + low) / exact - 1).max() <= 7.5e-8
    assert (np.abs(low) <= np.spacing(high.astype(np.float32)) / 2).all()

    near = x >= -1e-2
    error = (high - 1) + low - np.expm1(x.astype(np.float64))
    exact = np.expm1(x.astype(np.float64))
    moving = near & (x < 0)
    assert moving.sum() > 1000
    assert np.abs(error[moving] / exact[moving]).max() <= 6.5e-8

    x = np.float32([-88.1, -104, -1e30, -np.inf])
    gone, low = functions('decay_of', x)
    assert not gone.any() and not low.any()
    one, low = functions('decay_of', np.float32([0, -0.0]))
    assert (one == 1).all() and not low.any()
    high, low = functions('decay_of', np.float32([np.nan]))
    assert np.isnan(high + low).all()


def test_growth(functions):
    """A positive exponent is not what a scan has, but it is computed."""
    x = sweep(0, 88)
    high, low = (part.astype(np.float64) for part in functions('decay_of', x))
    assert np.abs((high + low) / np.exp(x.astype(np.float64)) - 1).max() < 2e-7
