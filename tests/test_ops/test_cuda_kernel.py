"""Tests of the CUDA kernels, run on the CPU.

The kernels of mmmamba/ops/csrc/common/cuda are compiled by the host compiler
on top of cuda_emulation/, which runs CUDA's threads one at a time, and are
launched as on a device. What needs a device is not tested here: speed, the
launchers of csrc/pytorch/cuda and the compiler's view of the code.
"""

import ctypes
import math
import os
from pathlib import Path

import pytest
import torch
from golden import relative_error
from test_ops.scan_cases import (
    bidirectional_reference,
    selective_inputs,
    selective_reference,
)
from test_ops.support import Guarded, permuted, strided, worst_error

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / 'mmmamba' / 'ops' / 'csrc' / 'common' / 'cuda'

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
SMALL, LARGE = 1, 132  # processors of the device that is launched for
SIZES = ['batch', 'directions', 'channels', 'states', 'length', 'rank']
INPUTS = ['x', 'delta', 'B', 'C', 'A', 'D', 'bias', 'weight', 'projected']
OUTPUTS = ['y', 'dx', 'd_delta', 'rows', 'parameters', 'summary']


class Call(ctypes.Structure):
    """`struct Call` of emulate.cpp."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in SIZES),
        ('softplus', ctypes.c_int64),
        ('processors', ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in [*INPUTS, 'dy', *OUTPUTS]),
        ('x_strides', ctypes.c_int64 * 3),
        ('y_strides', ctypes.c_int64 * 3),
    ]


@pytest.fixture(scope='session')
def library(compile_library):
    folder = HERE / 'cuda_emulation'
    return compile_library(
        *(folder / 'emulate.cpp', '-O2', '-I', folder, '-I', KERNELS),
        *os.environ.get('CXXFLAGS', '').split(),
        name='cuda_emulation',
    )


def run(library, call, dtype, sizes, tensors):
    """Allocate outputs and workspaces, run; returns the outputs by name.

    The outputs that correspond to x and the gradient have the strides of x,
    if that has no gaps.
    """
    batch, K, D, N, L = sizes
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    call.batch, call.directions, call.channels = batch, K, D
    call.states, call.length = N, L
    tensors = {k: v for k, v in tensors.items() if v is not None}
    for name in tensors.keys() & {'A', 'D', 'bias', 'weight'}:
        tensors[name] = tensors[name].to(compute).contiguous()
    for name in tensors.keys() & {'delta', 'B', 'C', 'projected'}:
        tensors[name] = tensors[name].contiguous()
    for name, tensor in tensors.items():
        setattr(call, name, tensor.data_ptr())

    plan = (ctypes.c_int64 * 8)()
    code = DTYPES.index(dtype)
    library.plan_call(ctypes.byref(call), code, plan)
    guarded = Guarded()
    x = tensors['x']
    outputs = {}
    if 'dy' in tensors:
        outputs['dx'] = guarded.empty(*x.shape, dtype=dtype, like=x)
        outputs['d_delta'] = guarded.empty(batch, K * D, L, dtype=dtype)
        shape = plan[0], batch, K, 2 * N, L
        outputs['rows'] = guarded.empty(*shape, dtype=compute)
        shape = plan[1], K * D, N + 2
        outputs['parameters'] = guarded.empty(*shape, dtype=compute)
        if 'D' not in tensors:  # its gradient is not computed
            outputs['parameters'][..., N] = 0
    else:
        outputs['y'] = guarded.empty(*x.shape, dtype=dtype, like=x)
    # The summary of a forward pass has no gradients.
    summary = torch.full((plan[2],), math.nan, dtype=compute)
    call.summary = summary.data_ptr()
    for name, tensor in outputs.items():
        setattr(call, name, tensor.data_ptr())
    call.x_strides[:] = x.stride()
    y = outputs['dx'] if 'dy' in tensors else outputs['y']
    call.y_strides[:] = y.stride()
    if 'dy' in tensors:
        dy = torch.empty_like(y).copy_(tensors['dy'])
        call.dy = dy.data_ptr()
    assert library.run_call(ctypes.byref(call), code) == 0
    guarded.check()
    return outputs


def selective(
    library, inputs, K, dtype, softplus=False, dy=None, processors=LARGE
):
    """Run the selective scan; its output or the gradients by input."""
    u, A = inputs['u'], inputs['A']
    sizes = u.shape[0], K, u.shape[1] // K, A.shape[1], u.shape[2]
    tensors = dict(inputs, x=u, bias=inputs.get('delta_bias'), dy=dy)
    del tensors['u']
    tensors.pop('delta_bias', None)
    call = Call(softplus=softplus, processors=processors)
    out = run(library, call, dtype, sizes, tensors)
    if dy is None:
        return out['y']
    N = A.shape[1]
    rows = out['rows'].sum(0)
    parameters = out['parameters'].sum(0)
    return dict(
        u=out['dx'],
        delta=out['d_delta'],
        A=parameters[:, :N],
        B=rows[:, :, :N],
        C=rows[:, :, N:],
        D=parameters[:, N],
        delta_bias=parameters[:, N + 1],
    )


def bidirectional(library, inputs, dtype, dy=None, processors=LARGE):
    """Run the bidirectional scan; its output or the gradients by input."""
    x, weight, A = inputs['x'], inputs['dt_weight'], inputs['A']
    (batch, D, L), N, R = x.shape, A.shape[1], weight.shape[2]
    tensors = dict(
        x=x,
        projected=inputs['projected'],
        weight=weight,
        bias=inputs['dt_bias'],
        A=A,
        D=inputs.get('D'),
        dy=dy,
    )
    call = Call(softplus=True, processors=processors, rank=R)
    out = run(library, call, dtype, (batch, 2, D, N, L), tensors)
    if dy is None:
        return out['y']
    # What the launcher leaves to matrix products.
    d_delta = out['d_delta'].view(batch, 2, D, L)
    dt = inputs['projected'][:, :, :R].to(dtype)
    parameters = out['parameters'].sum(0)
    rows = out['rows'].sum(0)
    d_dt = torch.einsum('kdr,bkdl->bkrl', weight.to(dtype), d_delta)
    return dict(
        x=out['dx'],
        projected=torch.cat([d_dt.to(rows.dtype), rows], 2),
        dt_weight=torch.einsum('bkdl,bkrl->kdr', d_delta, dt),
        dt_bias=parameters[:, N + 1].view(2, D),
        A=parameters[:, :N],
        D=parameters[:, N],
    )


def bidirectional_inputs(sizes, rank=3, dtype=torch.float32):
    """Random inputs whose step sizes span from 1e-4 to 10 or so."""
    batch, D, N, L = sizes
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    inputs = dict(
        x=normal(batch, D, L),
        projected=normal(batch, 2, rank + 2 * N, L),
        dt_weight=normal(2, D, rank) * 2 / math.sqrt(rank),
        dt_bias=normal(2, D) - 3,
        A=-torch.exp(2 * normal(2 * D, N)),
        D=normal(2 * D),
    )
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def gradients(function, inputs, dy, *args):
    """Of the reference, by autograd in float64."""
    leaves = {k: v.double().requires_grad_() for k, v in inputs.items()}
    function(*leaves.values(), *args).backward(dy.double())
    return {name: leaf.grad for name, leaf in leaves.items()}


def weights(out_shape, dtype):
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn(out_shape, generator=rng, dtype=torch.float64)
    return noise.to(dtype)


def assert_gradients(ours, theirs, tolerance):
    for name, expected in theirs.items():
        # No state to decay in a sequence of one, or too small for float32.
        if expected.abs().max() < 1e-38:
            assert (ours[name].abs() < 1e-38).all(), name
            continue
        error = relative_error(ours[name], expected)
        assert error <= tolerance, (name, error)


# batch, D, N, L; a CUDA thread block holds 2048 positions of a sequence
BIDIRECTIONAL_SIZES = [
    *((2, 3, 1, length) for length in (1, 2, 3, 9, 31, 32, 33, 63, 64, 65)),
    (3, 16, 1, 9),
    (2, 33, 2, 20),
    (1, 1, 16, 64),
    (3, 5, 1, 128),
    (2, 3, 2, 257),
]
LONG_BIDIRECTIONAL_SIZES = [
    (1, 3, 2, 1023),
    (2, 2, 1, 1025),
    (1, 5, 1, 2048),
    (1, 2, 1, 2049),
    (2, 1, 1, 4097),
    (1, 1, 1, 8200),
]
# batch, K, D, N, L
SELECTIVE_SIZES = [
    *((2, 2, 3, 1, length) for length in (1, 2, 3, 31, 33, 64, 65)),
    (3, 4, 16, 16, 9),
    (1, 3, 33, 2, 20),
    (2, 1, 1, 16, 65),
    (2, 2, 3, 2, 257),
]
LONG_SELECTIVE_SIZES = [
    (1, 4, 3, 2, 1023),
    (2, 2, 1, 1, 1025),
    (1, 1, 2, 2, 4097),
    (1, 1, 1, 1, 8200),
]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('sizes', SELECTIVE_SIZES + LONG_SELECTIVE_SIZES)
def test_selective(library, sizes, dtype):
    inputs = selective_inputs(sizes, dtype)
    out = selective(library, inputs, sizes[1], dtype)
    assert worst_error(out, selective_reference(**inputs)) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    'sizes, dtype',
    [(sizes, dtype) for sizes in SELECTIVE_SIZES for dtype in TOLERANCE]
    + [(sizes, torch.float32) for sizes in LONG_SELECTIVE_SIZES[:3]],
)
def test_selective_backward(library, sizes, dtype):
    inputs = selective_inputs(sizes, dtype, (1e-3, 10), bias=True)
    dy = weights(inputs['u'].shape, dtype)
    softplus = sizes[-1] % 2 == 0
    ours = selective(library, inputs, sizes[1], dtype, softplus, dy)
    theirs = gradients(selective_reference, inputs, dy, softplus)
    assert_gradients(ours, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize(
    'sizes', BIDIRECTIONAL_SIZES + LONG_BIDIRECTIONAL_SIZES
)
def test_bidirectional(library, sizes, dtype):
    inputs = bidirectional_inputs(sizes, dtype=dtype)
    out = bidirectional(library, inputs, dtype)
    expected = bidirectional_reference(**inputs)
    assert worst_error(out, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize(
    'sizes, dtype',
    [(sizes, dtype) for sizes in BIDIRECTIONAL_SIZES for dtype in TOLERANCE]
    + [(sizes, torch.float64) for sizes in LONG_BIDIRECTIONAL_SIZES[:5]],
)
def test_bidirectional_backward(library, sizes, dtype):
    inputs = bidirectional_inputs(sizes, dtype=dtype)
    dy = weights(inputs['x'].shape, dtype)
    ours = bidirectional(library, inputs, dtype, dy)
    theirs = gradients(bidirectional_reference, inputs, dy)
    assert_gradients(ours, theirs, TOLERANCE[dtype])


@pytest.mark.parametrize('step', [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize('decay', [1e-4, 1e-2, 1.0, 1e3])
def test_one_regime(library, step, decay):
    """From no decay to a state that is gone at once, every step alike."""
    sizes = (1, 1, 2, 1, 4097 if step == decay == 1e-4 else 300)
    inputs = selective_inputs(sizes, steps=(step, step), decays=(decay, decay))
    out = selective(library, inputs, 1, torch.float32)
    assert worst_error(out, selective_reference(**inputs)) <= 1e-5


@pytest.mark.parametrize('value', [-80.0, -20.0, 0.0, 20.0, 80.0])
def test_extreme_softplus_inputs(library, value):
    inputs = selective_inputs((2, 2, 5, 3, 65))
    del inputs['D']  # which would hide tiny step sizes
    inputs['delta'] = torch.full_like(inputs['delta'], value / 2)
    inputs['delta_bias'] = torch.full((10,), value / 2)
    args = library, inputs, 2, torch.float32, True
    expected = selective_reference(**inputs, delta_softplus=True)
    assert worst_error(selective(*args), expected) <= 1e-5
    dy = weights(inputs['u'].shape, torch.float32)
    ours = selective(*args, dy)
    theirs = gradients(
        lambda u, delta, A, B, C, bias: selective_reference(
            u, delta, A, B, C, None, bias, True
        ),
        inputs,
        dy,
    )
    assert_gradients(ours, theirs, 1e-5)


@pytest.mark.parametrize('processors', [SMALL, LARGE])
@pytest.mark.parametrize('length', [9, 140])
def test_work_of_a_team(library, length, processors):
    """A small device gives a team many channels, a large one a few."""
    inputs = bidirectional_inputs((8, 17, 2, length), dtype=torch.float64)
    args = library, inputs, torch.float64
    dy = weights(inputs['x'].shape, torch.float64)
    out = bidirectional(*args, processors=processors)
    assert worst_error(out, bidirectional_reference(**inputs)) <= 1e-12
    ours = bidirectional(*args, dy, processors)
    theirs = gradients(bidirectional_reference, inputs, dy)
    assert_gradients(ours, theirs, 1e-12)


@pytest.mark.parametrize('length', [20, 33])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_loses_only_the_rounding_of_the_output(library, dtype, length):
    inputs = bidirectional_inputs((2, 5, 2, length))
    for name in ('x', 'projected'):
        inputs[name] = inputs[name].to(dtype)
    out = bidirectional(library, inputs, dtype)
    expected = bidirectional_reference(**inputs)
    allowed = expected.abs() * torch.finfo(dtype).eps / 2
    allowed += 1e-5 * expected.abs().amax(-1, keepdim=True)
    assert ((out.double() - expected).abs() <= allowed).all()

    dy = weights(inputs['x'].shape, dtype)
    ours = bidirectional(library, inputs, dtype, dy)
    theirs = gradients(bidirectional_reference, inputs, dy)
    assert_gradients(ours, theirs, torch.finfo(dtype).eps)


@pytest.mark.parametrize('length', [64, 63])
@pytest.mark.parametrize('layout', [permuted, strided])
def test_layout_does_not_matter(library, layout, length):
    inputs = bidirectional_inputs((2, 6, 1, length))
    dy = weights(inputs['x'].shape, torch.float32)
    args = library, inputs, torch.float32
    expected = bidirectional(*args), bidirectional(*args, dy)
    inputs['x'] = layout(inputs['x'])
    assert not inputs['x'].is_contiguous()
    assert torch.equal(bidirectional(*args), expected[0])
    for name, grad in bidirectional(*args, dy).items():
        assert torch.equal(grad, expected[1][name]), name


@pytest.mark.parametrize('length', [20, 300])
def test_nan_stays_in_its_sequence(library, length):
    inputs = bidirectional_inputs((3, 5, 1, length))
    expected = bidirectional(library, inputs, torch.float32)
    inputs['x'][1, 3, 7] = math.nan
    out = bidirectional(library, inputs, torch.float32)
    bad = torch.zeros_like(out, dtype=torch.bool)
    bad[1, 3] = True  # the later positions of either direction
    assert torch.equal(out.isnan(), bad)
    assert torch.equal(out[~bad], expected[~bad])


def test_no_skip_connection(library):
    inputs = bidirectional_inputs((2, 3, 2, 65), dtype=torch.float64)
    del inputs['D']
    dy = weights(inputs['x'].shape, torch.float64)
    args = library, inputs, torch.float64
    expected = bidirectional_reference(**inputs)
    assert worst_error(bidirectional(*args), expected) <= 1e-12
    theirs = gradients(bidirectional_reference, inputs, dy)
    assert_gradients(bidirectional(*args, dy), theirs, 1e-12)


def test_backward_gives_the_same_bits_every_time(library):
    inputs = bidirectional_inputs((2, 7, 1, 300))
    dy = weights(inputs['x'].shape, torch.float32)
    first = bidirectional(library, inputs, torch.float32, dy)
    second = bidirectional(library, inputs, torch.float32, dy)
    for name, grad in first.items():
        assert torch.equal(grad, second[name]), name


@pytest.mark.parametrize('decay', [10.0, 1e3])
@pytest.mark.parametrize('position', [0, 3, 4, 127, 255])
def test_a_spike_is_forgotten(library, position, decay):
    """1e6 leaves 1e6 * exp(-decay) to the next state, and no rounding."""
    inputs = selective_inputs(
        (1, 2, 3, 1, 300), steps=(1, 1), decays=(decay,) * 2
    )
    for name in ('u', 'B', 'C'):
        inputs[name] = torch.ones_like(inputs[name])
    inputs['u'][..., position] = 1e6
    del inputs['D']
    out = selective(library, inputs, 2, torch.float32)
    assert (out / selective_reference(**inputs) - 1).abs().max() <= 1e-6


# Around the limits between the cases.
POINTS = torch.cat(
    [
        torch.linspace(-110, 87.9, 20001),
        torch.linspace(-1, 1, 2001),
        torch.logspace(-30, 1, 1000),
        -torch.logspace(-30, 1, 1000),
        torch.zeros(1),
    ]
)


def evaluate(library, name, x, numbers=1):
    """Call a function of emulate.cpp that gives some numbers for each x."""
    out = torch.empty(len(x), numbers)
    arguments = [ctypes.c_void_p(t.data_ptr()) for t in (x, out)]
    getattr(library, name)(*arguments, ctypes.c_int64(len(x)))
    return out.double()


def test_decay(library):
    x = POINTS[POINTS > -87]
    high, low = evaluate(library, 'decay', x, 2).unbind(1)
    error = (high + low) / x.double().exp() - 1
    assert error.abs().max() <= 1e-7
    # What matters near 1: the error relative to the difference from 1.
    expected = torch.expm1(x.double())[x.abs() < 0.3]
    error = (high - 1 + low)[x.abs() < 0.3] - expected
    assert (error.abs() <= 2e-7 * expected.abs()).all()
    limits = torch.tensor([-1e30, -math.inf, -100.0, 89, math.inf, math.nan])
    high = evaluate(library, 'decay', limits, 2)[:, 0]
    assert (high[:3] <= 2e-38).all()
    assert (high[3:5] == math.inf).all()
    assert high[5].isnan()


@pytest.mark.parametrize('name', ['softplus', 'softplus_slope'])
def test_softplus(library, name):
    z = POINTS.double()
    if name == 'softplus':
        expected = z.clamp_min(0) + torch.log1p(torch.exp(-z.abs()))
    else:
        expected = -torch.expm1(-z.abs())
        z = z.abs()
    error = evaluate(library, name, z.float())[:, 0] - expected
    # Below 1e-38 there are fewer digits.
    assert (error.abs() <= 4e-7 * expected.abs() + 1e-44).all()
    assert evaluate(library, name, torch.tensor([math.nan])).isnan()
