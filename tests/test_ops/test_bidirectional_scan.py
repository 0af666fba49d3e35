"""Tests of mmmamba.ops.bidirectional_scan, with each implementation."""

import math
import random
from functools import cache

import pytest
import torch
from golden import relative_error
from test_ops.scan_cases import (
    LAYOUTS,
    LENGTHS,
    TOLERANCE,
    bidirectional_inputs,
    bidirectional_reference,
    tolerance,
)
from test_ops.support import (
    doubled,
    with_gradients,
    worst_error,
)
from torch import Tensor

from mmmamba.ops import bidirectional_scan, selective_scan, use_backend

pytestmark = pytest.mark.usefixtures('op_backend')

# batch, D, R, N, L
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 3, 2, 2, 2),
    (3, 5, 3, 16, 3),
    (2, 17, 7, 1, 63),
    (1, 8, 4, 4, 64),
    (3, 7, 1, 3, 65),
    (1, 33, 17, 5, 65),
    (2, 4, 1, 256, 33),
    (2, 9, 5, 2, 1023),
    (3, 3, 6, 16, 257),
    (2, 4, 0, 2, 5),
]


def random_sizes(count: int) -> list[tuple[int, ...]]:
    """Sizes from the whole range, without those that take long."""
    rng = random.Random(1)
    drawn = []
    while len(drawn) < count:
        length = LENGTHS[len(drawn) % len(LENGTHS)]
        batch, D, N = (rng.randint(1, high) for high in (3, 33, 16))
        if batch * 2 * D * N * length < 2**19:
            drawn.append((batch, D, rng.choice([1, 2, 7, 17]), N, length))
    return drawn


def unfused(x, projected, dt_weight, dt_bias, A, D=None) -> Tensor:
    """What the fused op replaces, of copies that are flipped and stacked."""
    projected = torch.stack([projected[:, 0], projected[:, 1].flip(-1)], 1)
    ranks, d_state = dt_weight.shape[2], A.shape[1]
    dt, B, C = projected.split([ranks, d_state, d_state], dim=2)
    y = selective_scan(
        torch.cat([x, x.flip(-1)], dim=1),
        torch.einsum('bkrl,kdr->bkdl', dt, dt_weight).flatten(1, 2),
        A,
        B,
        C,
        D,
        dt_bias.flatten(),
        True,
    )
    first, second = y.chunk(2, dim=1)
    return first + second.flip(-1)


@cache
def case(sizes, dtype) -> tuple[dict, dict]:
    """Inputs and what is expected of them; not to be changed."""
    inputs = bidirectional_inputs(sizes, dtype)
    return inputs, with_gradients(
        bidirectional_reference, doubled(inputs), dtype
    )


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_equals_step_by_step(sizes, dtype):
    """The output, and the gradient of every input."""
    inputs, expected = case(sizes, dtype)
    found = with_gradients(bidirectional_scan, inputs, dtype)
    # F.softplus is the identity above 20, which is off by 1e-10 at most.
    bound = TOLERANCE[dtype] + 1e-10
    assert found['y'].dtype == dtype
    assert worst_error(found['y'], expected['y']) <= bound
    for name, grad in expected.items():
        if not grad.numel():
            assert found[name].shape == grad.shape
        elif not grad.any():  # A, where there is no state to decay
            assert not found[name].any(), name
        else:
            assert relative_error(found[name], grad) <= bound, name


def test_gradients_of_a_long_sequence():
    """In float64 PyTorch's version was found to be exact above."""
    inputs = bidirectional_inputs((1, 9, 2, 1, 4097))
    found = with_gradients(bidirectional_scan, inputs, torch.float32)
    with use_backend('torch'):
        expected = with_gradients(
            bidirectional_scan, doubled(inputs), torch.float32
        )
    for name, grad in expected.items():
        # A's is a sum over all positions, each with its own rounding; how
        # exp rounds differs between CPUs (1.8e-5 with AVX-512).
        bound = 4e-5 if name == 'A' else 1e-5
        assert relative_error(found[name], grad) <= bound, name


@cache
def random_case(sizes) -> tuple[dict, Tensor]:
    inputs = bidirectional_inputs(sizes)
    if sizes[1] % 2:
        del inputs['D']
    return inputs, bidirectional_reference(**inputs)


@pytest.mark.parametrize('sizes', random_sizes(22), ids=str)
def test_random_sizes(sizes, op_backend):
    inputs, expected = random_case(sizes)
    error = worst_error(bidirectional_scan(**inputs), expected)
    assert error <= tolerance(op_backend, sizes[-1])


@cache
def regime_case(sizes, decay, bias) -> tuple[dict, Tensor]:
    inputs = bidirectional_inputs(
        sizes, bias=(bias, bias), decays=(decay, decay)
    )
    inputs['projected'][:, :, : sizes[2]] = 0  # so that steps are alike
    return inputs, bidirectional_reference(**inputs)


@pytest.mark.parametrize('sizes', [(2, 9, 1, 2, 3), (1, 9, 2, 1, 4097)])
@pytest.mark.parametrize('bias', [-9.0, -4.0, 1.0, 10.0])
@pytest.mark.parametrize('decay', [1e-4, 1e-2, 1.0, 1e3])
def test_equals_step_by_step_in_one_regime(decay, bias, sizes, op_backend):
    """From no decay to a state that is gone at once, every step alike."""
    inputs, expected = regime_case(sizes, decay, bias)
    error = worst_error(bidirectional_scan(**inputs), expected)
    assert error <= tolerance(op_backend, sizes[-1])


@pytest.mark.parametrize('bias', [-80.0, -20.0, 20.0, 80.0])
def test_extreme_step_sizes(bias):
    inputs = bidirectional_inputs(bias=(bias, bias))
    del inputs['D']  # which would hide tiny step sizes
    inputs['projected'][:, :, :3] = 0  # a sum with 80 is rounded by 4e-6
    error = worst_error(
        bidirectional_scan(**inputs), bidirectional_reference(**inputs)
    )
    assert error <= TOLERANCE[torch.float32]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('skip', [True, False])
@pytest.mark.parametrize(
    'sizes', [(2, 5, 3, 4, 20), (3, 33, 7, 1, 65), (1, 9, 17, 2, 600)], ids=str
)
def test_fused_equals_unfused(sizes, skip, dtype):
    inputs = bidirectional_inputs(sizes, dtype)
    if not skip:
        del inputs['D']
    fused = with_gradients(bidirectional_scan, inputs, dtype)
    composed = with_gradients(unfused, inputs, dtype)
    bound = TOLERANCE[dtype] / 2
    assert fused.keys() == composed.keys()
    for name, tensor in composed.items():
        assert relative_error(fused[name], tensor) <= bound, name


def test_directions_are_mirror_images():
    """Exchanged directions read the reversed sequence alike."""
    inputs = bidirectional_inputs((2, 9, 3, 2, 300))
    mirrored = dict(
        x=inputs['x'].flip(-1),
        projected=inputs['projected'].flip(1, -1),
        dt_weight=inputs['dt_weight'].flip(0),
        dt_bias=inputs['dt_bias'].flip(0),
        A=inputs['A'].view(2, 9, 2).flip(0).flatten(0, 1),
        D=inputs['D'].view(2, 9).flip(0).flatten(),
    )
    out = bidirectional_scan(**mirrored).flip(-1)
    assert relative_error(out, bidirectional_scan(**inputs)) <= 1e-6


@pytest.mark.parametrize('sizes', [(1, 2, 2, 2, 1), (2, 2, 1, 2, 4)])
@pytest.mark.parametrize('skip', [True, False])
def test_gradcheck(skip, sizes):
    inputs = bidirectional_inputs(
        sizes, torch.float64, bias=(-2.0, 1.0), decays=(0.1, 10)
    )
    if not skip:
        del inputs['D']
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(bidirectional_scan, tensors)


@pytest.mark.parametrize('name', bidirectional_inputs())
def test_gradient_only_where_it_is_asked_for(name):
    inputs = bidirectional_inputs()
    inputs[name].requires_grad_()
    bidirectional_scan(**inputs).sum().backward()
    for other, tensor in inputs.items():
        assert (tensor.grad is not None) == (other == name)


def test_no_second_derivative(op_backend):
    """An error rather than a silent zero."""
    x, *others = bidirectional_inputs().values()
    x.requires_grad_()
    y = bidirectional_scan(x, *others)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    if op_backend == 'torch':
        error, message = RuntimeError, 'once_differentiable'
    else:
        error, message = RuntimeError, '_backward is not implemented'
    with pytest.raises(error, match=message):
        grad.sum().backward()


@pytest.mark.parametrize('only_x', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_inputs_lose_only_the_rounding_of_the_output(dtype, only_x):
    inputs = bidirectional_inputs(
        (2, 9, 7, 3, 300), bias=(-5, 1), decays=(1, 1e3)
    )
    for name in ['x'] if only_x else list(inputs):
        inputs[name] = inputs[name].to(dtype)
    found = with_gradients(bidirectional_scan, inputs, dtype)
    exact = with_gradients(bidirectional_reference, doubled(inputs), dtype)
    for name, tensor in found.items():
        assert tensor.dtype == inputs.get(name, inputs['x']).dtype
        limits = torch.finfo(tensor.dtype)
        rounding = exact[name].abs().clamp(limits.tiny) * limits.eps / 2
        allowed = rounding + TOLERANCE[torch.float32] * exact[name].abs().max()
        error = (tensor.double() - exact[name]).abs()
        assert (error <= allowed).all(), name


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    inputs = bidirectional_inputs()
    inputs['x'] = inputs['x'].to(dtype)
    inputs['projected'] = inputs['projected'].to(dtype)
    plain = with_gradients(bidirectional_scan, inputs, dtype)

    def scan(**tensors):
        with torch.autocast('cpu', torch.bfloat16):
            return bidirectional_scan(**tensors)

    found = with_gradients(scan, inputs, dtype)
    for name, tensor in plain.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(
    'sizes', [(2, 5, 3, 4, 20), (2, 16, 4, 2, 70), (3, 33, 7, 1, 300)], ids=str
)
def test_layout_of_the_inputs_does_not_matter(layout, sizes, op_backend):
    inputs = bidirectional_inputs(sizes)
    changed = {name: layout(tensor) for name, tensor in inputs.items()}
    for name in ('x', 'projected', 'dt_weight'):
        assert not changed[name].is_contiguous()
    found = with_gradients(bidirectional_scan, changed, torch.float32)
    plain = with_gradients(bidirectional_scan, inputs, torch.float32)
    for name, expected in plain.items():
        if op_backend == 'cpp':
            assert torch.equal(found[name], expected), name
        else:  # PyTorch sums what lies elsewhere in another order
            assert relative_error(found[name], expected) <= 2e-6, name


def test_layout_of_the_gradient_does_not_matter():
    inputs = bidirectional_inputs((2, 16, 3, 2, 70))
    grads = {}
    rng = torch.Generator().manual_seed(2)
    grad = torch.randn(2, 16, 70, generator=rng)
    for layout in (torch.clone, *LAYOUTS):
        tensors = [t.clone().requires_grad_() for t in inputs.values()]
        out = bidirectional_scan(*tensors)
        grads[layout] = torch.autograd.grad(out, tensors, layout(grad))
    plain = grads.pop(torch.clone)
    for layout, found in grads.items():
        for a, b in zip(found, plain):
            assert relative_error(a, b) <= 1e-6, layout.__name__


def test_expanded_inputs():
    """Broadcast along the batch, the channels and the positions."""
    inputs = bidirectional_inputs((3, 9, 3, 2, 20))
    inputs['x'] = inputs['x'][:1].expand(3, -1, -1)
    inputs['projected'] = inputs['projected'][..., :1].expand(-1, -1, -1, 20)
    inputs['dt_weight'] = inputs['dt_weight'][:, :1].expand(-1, 9, -1)
    inputs['dt_bias'] = inputs['dt_bias'][:1, :1].expand(2, 9)
    inputs['A'] = inputs['A'][:, :1].expand(-1, 2)
    inputs['D'] = inputs['D'][:1].expand(18)
    dense = {name: tensor.contiguous() for name, tensor in inputs.items()}
    found = with_gradients(bidirectional_scan, inputs, torch.float32)
    expected = with_gradients(bidirectional_scan, dense, torch.float32)
    assert torch.equal(found['y'], expected['y'])
    for name, tensor in expected.items():
        assert relative_error(found[name], tensor) <= 1e-6, name


@pytest.mark.parametrize('dtype', [*TOLERANCE, torch.bfloat16])
@pytest.mark.parametrize('layout', [torch.clone, *LAYOUTS])
def test_strides_of_the_output(layout, dtype, op_backend):
    """Those of ``x``, which the shapes without data promise."""
    if op_backend == 'torch':
        pytest.skip('PyTorch chooses them')
    x, *others = bidirectional_inputs(dtype=dtype).values()
    x = layout(x)
    out = bidirectional_scan(x, *others)
    assert out.stride() == torch.empty_like(x).stride()


@pytest.mark.parametrize(
    'name, value',
    [
        *((name, math.nan) for name in bidirectional_inputs()),
        *((name, math.inf) for name in ('x', 'projected', 'dt_bias', 'D')),
    ],
)
@pytest.mark.parametrize('channel', [0, 4])
def test_not_a_number_stays_in_its_sequence(name, value, channel):
    """Of 3 samples and 9 channels, it changes one or the other."""
    inputs = bidirectional_inputs(
        (3, 9, 2, 2, 20), bias=(-2, 1), decays=(0.1, 1)
    )
    expected = with_gradients(bidirectional_scan, inputs, torch.float32)
    bad = torch.zeros(3, 9, 20, dtype=torch.bool)
    if name == 'x':  # read by both directions: every position sees it
        inputs[name][1, channel, 7] = value
        bad[1, channel] = True
    elif name == 'projected':  # B of the first direction
        inputs[name][1, 0, 2, 7] = value
        bad[1, :, 7:] = True
    else:  # of one channel
        inputs[name].view(2, 9, -1)[0, channel] = value
        bad[:, channel] = True
    found = with_gradients(bidirectional_scan, inputs, torch.float32)
    late = slice(name == 'A', None)  # at first there is nothing to decay
    assert torch.equal(~found['y'].isfinite()[..., late], bad[..., late])
    assert torch.equal(found['y'][~bad], expected['y'][~bad])
    sequence = ~bad.any(-1)
    sample = sequence.all(-1)
    channel = sequence.all(0).repeat(2)
    for names, clean in (
        (['x'], sequence),
        (['projected'], sample),
        (['A', 'D'], channel),
    ):
        for other in names:
            a, b = found[other][clean], expected[other][clean]
            assert torch.equal(a, b), other
    for other in ('dt_weight', 'dt_bias'):
        a, b = (g[other].flatten(0, 1)[channel] for g in (found, expected))
        assert torch.equal(a, b), other
