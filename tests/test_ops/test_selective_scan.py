"""Tests of mmmamba.ops.selective_scan, with each implementation."""

import math
import random
from functools import cache

import pytest
import torch
from golden import relative_error
from test_ops.scan_cases import (
    LENGTHS,
    TOLERANCE,
    selective_inputs,
    selective_reference,
    tolerance,
)
from test_ops.support import (
    doubled,
    permuted,
    strided,
    with_gradients,
    worst_error,
)
from torch import Tensor

from mmmamba.ops import selective_scan, use_backend

pytestmark = pytest.mark.usefixtures('op_backend')

# batch, K, D, N, L
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 2, 3, 2, 2),
    (3, 4, 5, 16, 3),
    (2, 2, 17, 1, 63),
    (1, 4, 8, 4, 64),
    (3, 1, 7, 3, 65),
    (1, 3, 33, 5, 65),
    (2, 1, 4, 256, 33),
    (2, 2, 5, 2, 1023),
    (3, 1, 4, 16, 1023),
    (1, 2, 9, 1, 4097),
]


def random_sizes(count: int) -> list[tuple[int, ...]]:
    """Sizes from the whole range, without those that take long."""
    rng = random.Random(0)
    drawn = []
    while len(drawn) < count:
        length = LENGTHS[len(drawn) % len(LENGTHS)]
        sizes = [rng.randint(1, high) for high in (3, 4, 33, 16)]
        if math.prod(sizes) * length < 2**19:
            drawn.append((*sizes, length))
    return drawn


@cache
def case(sizes, dtype=torch.float32, **kwargs) -> tuple[dict, Tensor]:
    """Inputs and what is expected of them; not to be changed."""
    kwargs = {
        name: (value, value) if isinstance(value, float) else value
        for name, value in kwargs.items()
    }
    inputs = selective_inputs(sizes, dtype, **kwargs)
    return inputs, selective_reference(**inputs)


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('sizes', SIZES)
def test_equals_step_by_step(sizes, dtype):
    inputs, expected = case(sizes, dtype)
    out = selective_scan(**inputs)
    assert out.dtype == dtype
    assert worst_error(out, expected) <= TOLERANCE[dtype]


@cache
def random_case(sizes) -> tuple[dict, Tensor]:
    rng = random.Random(str(sizes))
    inputs = selective_inputs(sizes, steps=(1e-4, 10), bias=rng.random() < 0.5)
    if rng.random() < 0.5:
        del inputs['D']
    inputs['delta_softplus'] = rng.random() < 0.5
    return inputs, selective_reference(**inputs)


@pytest.mark.parametrize('sizes', random_sizes(22), ids=str)
def test_random_sizes(sizes):
    inputs, expected = random_case(sizes)
    error = worst_error(selective_scan(**inputs), expected)
    assert error <= TOLERANCE[torch.float32]


@pytest.mark.parametrize('sizes', [SIZES[2], SIZES[9], SIZES[10]], ids=str)
@pytest.mark.parametrize('step', [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize('decay', [1e-4, 1e-2, 1.0, 1e3])
def test_equals_step_by_step_in_one_regime(step, decay, sizes, op_backend):
    """From no decay to a state that is gone at once, every step alike."""
    inputs, expected = case(sizes, steps=step, decays=decay)
    error = worst_error(selective_scan(**inputs), expected)
    assert error <= tolerance(op_backend, sizes[-1])


@pytest.mark.parametrize('decay', [10.0, 1e3])
@pytest.mark.parametrize('position', [0, 254, 255, 256])
def test_a_spike_is_forgotten(position, decay):
    """1e6 leaves 1e6 * exp(-decay) to the next state, and no rounding."""
    inputs = selective_inputs(
        (1, 2, 9, 2, 300), steps=(1, 1), decays=(decay,) * 2
    )
    for name in ('u', 'B', 'C'):
        inputs[name] = torch.ones_like(inputs[name])
    inputs['u'][..., position] = 1e6
    del inputs['D']
    error = selective_scan(**inputs) / selective_reference(**inputs) - 1
    assert error.abs().max() <= 1e-6


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('skip', [True, False])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('softplus', [True, False])
def test_optional_inputs(skip, bias, softplus, dtype):
    inputs = selective_inputs((2, 2, 5, 3, 65), dtype, bias=bias)
    if not skip:
        del inputs['D']
    inputs['delta_softplus'] = softplus
    # F.softplus is the identity above 20, which is off by 1e-10 at most.
    bound = TOLERANCE[dtype] + 1e-10 * softplus
    out = selective_scan(**inputs)
    assert worst_error(out, selective_reference(**inputs)) <= bound


@pytest.mark.parametrize('scale', [-80.0, -20.0, 20.0, 80.0])
def test_extreme_softplus_inputs(scale):
    inputs = selective_inputs((2, 2, 5, 3, 65))
    del inputs['D']  # which would hide tiny step sizes
    inputs['delta'] = torch.full_like(inputs['delta'], scale / 2)
    inputs['delta_bias'] = torch.full((10,), scale / 2)
    inputs['delta_softplus'] = True
    out = selective_scan(**inputs)
    ref = selective_reference(**inputs)
    assert worst_error(out, ref) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize('only_u', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_inputs_lose_only_the_rounding_of_the_output(dtype, only_u):
    # float16 has no room for the gradient of a decay rate of 1e-4.
    inputs = selective_inputs(
        (2, 2, 9, 3, 300), steps=(1e-3, 1e1), decays=(1, 1e3), bias=True
    )
    for name in ['u'] if only_u else list(inputs):
        inputs[name] = inputs[name].to(dtype)
    ours = with_gradients(selective_scan, inputs, dtype)
    exact = with_gradients(selective_reference, doubled(inputs), dtype)
    for name, found in ours.items():
        assert found.dtype == inputs.get(name, inputs['u']).dtype
        limits = torch.finfo(found.dtype)
        rounding = exact[name].abs().clamp(limits.tiny) * limits.eps / 2
        largest = exact[name].abs()
        if name in ('y', 'u', 'delta'):  # one scale a sequence
            largest = largest.amax(-1, keepdim=True)
        else:
            largest = largest.amax()
        allowed = rounding + TOLERANCE[torch.float32] * largest
        error = (found.double() - exact[name]).abs()
        assert (error <= allowed).all(), name


@pytest.mark.parametrize('u, other', [(0, 1), (1, 0), (2, 0), (0, 2)])
def test_mixed_dtypes(u, other):
    """float64 for a float64 u, and float32 for all others."""
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    inputs = selective_inputs(steps=(1e-3, 1e1), bias=True)
    inputs = {k: t.to(dtypes[other]) for k, t in inputs.items()}
    inputs['u'] = inputs['u'].to(dtypes[u])
    compute = torch.float64 if u == 1 else torch.float32
    same = {name: tensor.to(compute) for name, tensor in inputs.items()}
    found = with_gradients(selective_scan, inputs, dtypes[u])
    expected = with_gradients(selective_scan, same, dtypes[u])
    assert found['y'].dtype == dtypes[u]
    for name, tensor in found.items():
        assert tensor.dtype == inputs.get(name, inputs['u']).dtype
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name


def test_autocast_changes_nothing():
    inputs = selective_inputs()
    plain = [t.clone().requires_grad_() for t in inputs.values()]
    cast = [t.clone().requires_grad_() for t in inputs.values()]
    expected = selective_scan(*plain)
    expected.square().sum().backward()
    with torch.autocast('cpu', torch.bfloat16):
        out = selective_scan(*cast)
    out.square().sum().backward()
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    for a, b in zip(cast, plain):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize('layout', [strided, permuted])
@pytest.mark.parametrize('sizes', [(2, 2, 3, 4, 20), (1, 2, 16, 2, 300)])
def test_layout_of_the_inputs_does_not_matter(layout, sizes, op_backend):
    inputs = selective_inputs(sizes, steps=(1e-3, 10), bias=True)
    changed = {name: layout(tensor) for name, tensor in inputs.items()}
    for name in ('u', 'delta', 'B', 'C', 'A'):
        assert not changed[name].is_contiguous()

    def scan(**tensors):
        return selective_scan(**tensors, delta_softplus=True)

    found = with_gradients(scan, changed, torch.float32)
    for name, plain in with_gradients(scan, inputs, torch.float32).items():
        if op_backend == 'cpp' or name == 'y':
            assert torch.equal(found[name], plain), name
        else:  # PyTorch sums what lies elsewhere in another order
            assert relative_error(found[name], plain) <= 1e-6, name


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.clone, strided, permuted])
def test_strides_of_the_output(layout, dtype, op_backend):
    """Those of ``u``, which the shapes without data promise."""
    if op_backend == 'torch':
        pytest.skip('PyTorch chooses them')
    u, *others = (layout(t) for t in selective_inputs(dtype=dtype).values())
    out = selective_scan(u, *others)
    assert out.stride() == torch.empty_like(u).stride()


def test_expanded_inputs():
    inputs = selective_inputs()
    for name in ('u', 'B'):
        inputs[name] = inputs[name][:1].expand_as(inputs[name])
    dense = {name: tensor.clone() for name, tensor in inputs.items()}
    found = with_gradients(selective_scan, inputs, torch.float32)
    expected = with_gradients(selective_scan, dense, torch.float32)
    for name in found:
        assert relative_error(found[name], expected[name]) <= 1e-6, name
    assert torch.equal(found['y'], expected['y'])


@pytest.mark.parametrize(
    'name, value',
    [
        *((name, math.nan) for name in selective_inputs(bias=True)),
        *(
            (name, math.inf)
            for name in selective_inputs(bias=True)
            if name != 'A'
        ),
        *((name, -math.inf) for name in ('u', 'B', 'C', 'D')),
    ],
)
@pytest.mark.parametrize('channel', [3, 4])
def test_not_a_number_stays_in_its_sequence(name, value, channel):
    """It reaches the later positions of its own sequences, nothing else."""
    inputs = selective_inputs(
        (3, 2, 3, 2, 20), steps=(0.1, 1), decays=(0.1, 1), bias=True
    )

    def scan(**tensors):
        return selective_scan(**tensors, delta_softplus=True)

    expected = with_gradients(scan, inputs, torch.float32)
    bad = torch.zeros_like(expected['y'], dtype=torch.bool)
    if name in ('u', 'delta'):
        inputs[name][1, channel, 7] = value
        bad[1, channel, 7:] = True
    elif name == 'B':  # shared by the channels of one direction
        inputs[name][1, 1, 0, 7] = value
        bad[1, 3:, 7:] = True
    elif name == 'C':  # reads the state without changing it
        inputs[name][1, 1, 0, 7] = value
        bad[1, 3:, 7] = True
    else:  # of one channel
        inputs[name][channel] = value
        bad[:, channel] = True
    found = with_gradients(scan, inputs, torch.float32)
    late = slice(name == 'A', None)  # at first there is nothing to decay
    assert torch.equal(~found['y'].isfinite()[..., late], bad[..., late])
    assert torch.equal(found['y'][~bad], expected['y'][~bad])
    for gradient in ('u', 'delta'):
        other = ~bad.any(-1)
        a, b = found[gradient][other], expected[gradient][other]
        assert torch.equal(a, b), gradient
    for gradient in ('B', 'C'):
        other = ~bad.view(3, 2, 3, 20).any(-1).any(-1)
        a, b = found[gradient][other], expected[gradient][other]
        assert torch.equal(a, b), gradient
    for gradient in ('A', 'D', 'delta_bias'):
        other = ~bad.any(-1).any(0)
        a, b = found[gradient][other], expected[gradient][other]
        assert torch.equal(a, b), gradient


@pytest.mark.parametrize('sizes', [(2, 1, 2, 2, 1), (2, 2, 2, 2, 5)])
@pytest.mark.parametrize('softplus', [True, False])
def test_gradcheck(softplus, sizes):
    inputs = selective_inputs(
        sizes, torch.float64, steps=(1e-1, 1), decays=(1e-1, 10), bias=True
    )
    tensors = [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *args: selective_scan(*args, softplus), tensors
    )


@cache
def gradient_case(sizes, dtype, softplus) -> tuple[dict, dict]:
    inputs = selective_inputs(sizes, dtype, steps=(1e-3, 10), bias=True)
    inputs['delta_softplus'] = softplus
    return inputs, with_gradients(selective_reference, doubled(inputs), dtype)


@pytest.mark.parametrize('softplus', [True, False])
@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize(
    'sizes',
    [
        *((2, 2, 3, 4, length) for length in (1, 2, 3, 7, 64, 65, 257)),
        (1, 3, 33, 1, 63),
        (3, 1, 17, 16, 5),
        (1, 2, 9, 3, 1023),
    ],
    ids=str,
)
def test_gradients_equal_step_by_step(sizes, dtype, softplus):
    inputs, expected = gradient_case(sizes, dtype, softplus)
    found = with_gradients(selective_scan, inputs, dtype)
    # F.softplus is the identity above 20, which is off by 1e-10 at most.
    bound = TOLERANCE[dtype] + 1e-10 * softplus
    for name, grad in expected.items():
        if name == 'A' and sizes[-1] == 1:  # no state to decay
            assert not found[name].any()
        else:
            assert relative_error(found[name], grad) <= bound, name


def test_gradients_of_a_long_sequence():
    """In float64 PyTorch's version was found to be exact above."""
    inputs = selective_inputs((1, 2, 9, 1, 4097), steps=(1e-3, 10), bias=True)
    inputs['delta_softplus'] = True
    found = with_gradients(selective_scan, inputs, torch.float32)
    with use_backend('torch'):
        expected = with_gradients(
            selective_scan, doubled(inputs), torch.float32
        )
    for name, grad in expected.items():
        assert relative_error(found[name], grad) <= 1e-5, name


def test_gradients_without_optional_inputs():
    inputs = selective_inputs((2, 2, 3, 4, 20), steps=(1e-3, 10))
    del inputs['D']
    found = with_gradients(selective_scan, inputs, torch.float32)
    expected = with_gradients(
        selective_reference, doubled(inputs), torch.float32
    )
    for name, grad in expected.items():
        assert relative_error(found[name], grad) <= 1e-5, name


@pytest.mark.parametrize('name', selective_inputs(bias=True))
def test_gradient_only_where_it_is_asked_for(name):
    inputs = selective_inputs(bias=True)
    inputs[name].requires_grad_()
    selective_scan(**inputs).sum().backward()
    for other, tensor in inputs.items():
        assert (tensor.grad is not None) == (other == name)


def test_no_second_derivative(op_backend):
    """An error rather than a silent zero."""
    u, *others = selective_inputs().values()
    u.requires_grad_()
    y = selective_scan(u, *others)
    (grad,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
    if op_backend == 'torch':
        error, message = RuntimeError, 'once_differentiable'
    else:
        error, message = RuntimeError, '_backward is not implemented'
    with pytest.raises(error, match=message):
        grad.sum().backward()


def test_inference_mode():
    inputs = selective_inputs()
    expected = selective_scan(**inputs)
    with torch.inference_mode():
        assert torch.equal(selective_scan(**inputs), expected)
