"""Tests of mmmamba.ops.selective_scan, with each implementation."""

import math
import random
from functools import cache

import pytest
import torch
from golden import relative_error
from torch import Tensor

from mmmamba.ops import scan_torch, selective_scan

pytestmark = pytest.mark.usefixtures('op_backend')

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
LENGTHS = (1, 2, 3, 63, 64, 65, 255, 256, 257, 1023, 4097)
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


def reference(
    u, delta, A, B, C, D=None, delta_bias=None, delta_softplus=False
) -> Tensor:
    """The definition, position by position, in float64."""
    u, delta, A, B, C = (t.double() for t in (u, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias.double()[:, None]
    if delta_softplus:
        delta = torch.logaddexp(delta, torch.zeros_like(delta))
    repeats = u.shape[1] // B.shape[1]
    B = B.repeat_interleave(repeats, dim=1)
    C = C.repeat_interleave(repeats, dim=1)
    h = torch.zeros(*u.shape[:2], A.shape[1], dtype=torch.float64)
    ys = []
    for t in range(u.shape[-1]):
        step = delta[..., t, None]
        h = torch.exp(step * A) * h + step * B[..., t] * u[..., t, None]
        ys.append((h * C[..., t]).sum(-1))
    y = torch.stack(ys, dim=-1)
    return y if D is None else y + D.double()[:, None] * u


def make_inputs(
    sizes=(2, 2, 3, 4, 20),
    dtype=torch.float32,
    steps=(1e-4, 1e2),
    decays=(1e-4, 1e3),
    bias=False,
) -> dict[str, Tensor]:
    """Random inputs; step sizes and decay rates are log-uniform."""
    batch, K, D, N, L = sizes
    rng = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    def log_uniform(low, high, *shape):
        low, high = math.log(low), math.log(high)
        x = torch.rand(shape, generator=rng, dtype=torch.float64)
        return torch.exp(low + (high - low) * x)

    inputs = dict(
        u=normal(batch, K * D, L),
        delta=log_uniform(*steps, batch, K * D, L),
        A=-log_uniform(*decays, K * D, N),
        B=normal(batch, K, N, L),
        C=normal(batch, K, N, L),
        D=normal(K * D),
    )
    if bias:
        inputs['delta_bias'] = normal(K * D).abs()
    return {name: tensor.to(dtype) for name, tensor in inputs.items()}


def with_gradients(scan, inputs: dict, dtype: torch.dtype) -> dict:
    """Run a scan; its output ``y`` and the gradient of every tensor.

    The output's gradient is random, rounded to ``dtype``, so that neither a
    position nor a channel is like another.
    """
    inputs = {
        name: value.detach().requires_grad_()
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }
    y = scan(**inputs)
    rng = torch.Generator().manual_seed(1)
    grad = torch.randn(y.shape, generator=rng, dtype=torch.float64)
    y.backward(grad.to(dtype).to(y.dtype))
    grads = {
        name: value.grad
        for name, value in inputs.items()
        if isinstance(value, Tensor)
    }
    return {'y': y.detach(), **grads}


def doubled(inputs: dict) -> dict:
    """The same values in float64."""
    return {
        name: value.double() if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


def tolerance(op_backend: str, length: int) -> float:
    """What float32 may be off by where all steps of a sequence are alike.

    A decay near 1 is rounded by up to 2**-25, each time alike. The compiled
    ops keep what the rounding takes away, and PyTorch's do not.
    """
    rounding = length * 2**-25 if op_backend == 'torch' else 0
    return TOLERANCE[torch.float32] + rounding


def worst_error(out: Tensor, ref: Tensor) -> float:
    """Relative error of the worst sequence, since their scales differ."""
    assert out.shape == ref.shape
    error = (out.double() - ref).abs().amax(-1) / ref.abs().amax(-1)
    return float(error.max())


def strided(t: Tensor) -> Tensor:
    """The same values with a stride of 2 on the last axis."""
    return torch.stack([t, torch.full_like(t, math.nan)], -1)[..., 0]


def permuted(t: Tensor) -> Tensor:
    """The same values stored with the axes in reverse order."""
    axes = tuple(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


@cache
def case(sizes, dtype=torch.float32, **kwargs) -> tuple[dict, Tensor]:
    """Inputs and what is expected of them; not to be changed."""
    kwargs = {
        name: (value, value) if isinstance(value, float) else value
        for name, value in kwargs.items()
    }
    inputs = make_inputs(sizes, dtype, **kwargs)
    return inputs, reference(**inputs)


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
    inputs = make_inputs(sizes, steps=(1e-4, 10), bias=rng.random() < 0.5)
    if rng.random() < 0.5:
        del inputs['D']
    inputs['delta_softplus'] = rng.random() < 0.5
    return inputs, reference(**inputs)


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
    inputs = make_inputs((1, 2, 9, 2, 300), steps=(1, 1), decays=(decay,) * 2)
    for name in ('u', 'B', 'C'):
        inputs[name] = torch.ones_like(inputs[name])
    inputs['u'][..., position] = 1e6
    del inputs['D']
    error = selective_scan(**inputs) / reference(**inputs) - 1
    assert error.abs().max() <= 1e-6


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('skip', [True, False])
@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('softplus', [True, False])
def test_optional_inputs(skip, bias, softplus, dtype):
    inputs = make_inputs((2, 2, 5, 3, 65), dtype, bias=bias)
    if not skip:
        del inputs['D']
    inputs['delta_softplus'] = softplus
    # F.softplus is the identity above 20, which is off by 1e-10 at most.
    bound = TOLERANCE[dtype] + 1e-10 * softplus
    out = selective_scan(**inputs)
    assert worst_error(out, reference(**inputs)) <= bound


@pytest.mark.parametrize('scale', [-80.0, -20.0, 20.0, 80.0])
def test_extreme_softplus_inputs(scale):
    inputs = make_inputs((2, 2, 5, 3, 65))
    del inputs['D']  # which would hide tiny step sizes
    inputs['delta'] = torch.full_like(inputs['delta'], scale / 2)
    inputs['delta_bias'] = torch.full((10,), scale / 2)
    inputs['delta_softplus'] = True
    out = selective_scan(**inputs)
    ref = reference(**inputs)
    assert worst_error(out, ref) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize('only_u', [True, False])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_inputs_lose_only_the_rounding_of_the_output(dtype, only_u):
    # float16 has no room for the gradient of a decay rate of 1e-4.
    inputs = make_inputs(
        (2, 2, 9, 3, 300), steps=(1e-3, 1e1), decays=(1, 1e3), bias=True
    )
    for name in ['u'] if only_u else list(inputs):
        inputs[name] = inputs[name].to(dtype)
    ours = with_gradients(selective_scan, inputs, dtype)
    exact = with_gradients(reference, doubled(inputs), dtype)
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
    inputs = make_inputs(steps=(1e-3, 1e1), bias=True)
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
    inputs = make_inputs()
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
    inputs = make_inputs(sizes, steps=(1e-3, 10), bias=True)
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
    u, *others = (layout(t) for t in make_inputs(dtype=dtype).values())
    out = selective_scan(u, *others)
    assert out.stride() == torch.empty_like(u).stride()


def test_expanded_inputs():
    inputs = make_inputs()
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
        *((name, math.nan) for name in make_inputs(bias=True)),
        *((name, math.inf) for name in make_inputs(bias=True) if name != 'A'),
        *((name, -math.inf) for name in ('u', 'B', 'C', 'D')),
    ],
)
@pytest.mark.parametrize('channel', [3, 4])
def test_not_a_number_stays_in_its_sequence(name, value, channel):
    """It reaches the later positions of its own sequences, nothing else."""
    inputs = make_inputs(
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
    inputs = make_inputs(
        sizes, torch.float64, steps=(1e-1, 1), decays=(1e-1, 10), bias=True
    )
    tensors = [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *args: selective_scan(*args, softplus), tensors
    )


@cache
def gradient_case(sizes, dtype, softplus) -> tuple[dict, dict]:
    inputs = make_inputs(sizes, dtype, steps=(1e-3, 10), bias=True)
    inputs['delta_softplus'] = softplus
    return inputs, with_gradients(reference, doubled(inputs), dtype)


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
    inputs = make_inputs((1, 2, 9, 1, 4097), steps=(1e-3, 10), bias=True)
    inputs['delta_softplus'] = True
    found = with_gradients(selective_scan, inputs, torch.float32)
    expected = with_gradients(
        scan_torch.selective_scan, doubled(inputs), torch.float32
    )
    for name, grad in expected.items():
        assert relative_error(found[name], grad) <= 1e-5, name


def test_gradients_without_optional_inputs():
    inputs = make_inputs((2, 2, 3, 4, 20), steps=(1e-3, 10))
    del inputs['D']
    found = with_gradients(selective_scan, inputs, torch.float32)
    expected = with_gradients(reference, doubled(inputs), torch.float32)
    for name, grad in expected.items():
        assert relative_error(found[name], grad) <= 1e-5, name


@pytest.mark.parametrize('name', make_inputs(bias=True))
def test_gradient_only_where_it_is_asked_for(name):
    inputs = make_inputs(bias=True)
    inputs[name].requires_grad_()
    selective_scan(**inputs).sum().backward()
    for other, tensor in inputs.items():
        assert (tensor.grad is not None) == (other == name)


def test_no_second_derivative(op_backend):
    """An error rather than a silent zero."""
    u, *others = make_inputs().values()
    u.requires_grad_()
    y = selective_scan(u, *others)
    (grad,) = torch.autograd.grad(y.square().sum(), u, create_graph=True)
    if op_backend == 'torch':
        error, message = RuntimeError, 'once_differentiable'
    else:
        error, message = NotImplementedError, 'no second derivative'
    with pytest.raises(error, match=message):
        grad.sum().backward()


def test_inference_mode():
    inputs = make_inputs()
    expected = selective_scan(**inputs)
    with torch.inference_mode():
        assert torch.equal(selective_scan(**inputs), expected)


# The inputs are u (2, 6, 20), A (6, 4), B and C (2, 2, 4, 20).
@pytest.mark.parametrize(
    'name, shape, message',
    [
        ('u', (2, 6, 0), r'u must be .* L >= 1, got shape \(2, 6, 0\)'),
        ('u', (6, 20), r'u must be \(batch, K\*D, L\).*\(6, 20\)'),
        ('u', (2, 6, 4, 5), r'u must be \(batch, K\*D, L\).*\(2, 6, 4, 5\)'),
        ('delta', (2, 6, 19), r'delta must have shape \(2, 6, 20\).*19'),
        ('delta', (6,), r'delta must have shape \(2, 6, 20\).*\(6,\)'),
        ('A', (6,), r'A must be \(K\*D, N\) with K\*D = 6.*\(6,\)'),
        ('A', (5, 4), r'A must be \(K\*D, N\) with K\*D = 6.*\(5, 4\)'),
        ('B', (2, 4, 20), r'B must be \(batch, K, N, L\).*\(2, 4, 20\)'),
        ('B', (2, 4, 4, 20), r'B must .* dividing the 6 .*\(2, 4, 4, 20\)'),
        ('B', (2, 0, 4, 20), r'B must .* dividing the 6 .*\(2, 0, 4, 20\)'),
        ('B', (2, 2, 3, 20), r'B must have shape \(2, 2, 4, 20\).*3, 20\)'),
        ('B', (1, 2, 4, 20), r'B must have shape \(2, 2, 4, 20\).*\(1, 2'),
        ('B', (2, 2, 4, 21), r'B must have shape \(2, 2, 4, 20\).*21\)'),
        ('C', (2, 1, 4, 20), r'C must have shape \(2, 2, 4, 20\).*\(2, 1'),
        ('C', (2, 4, 20), r'C must have shape \(2, 2, 4, 20\).*\(2, 4, 20\)'),
        ('D', (3,), r'D must have shape \(6,\), got \(3,\)'),
        ('D', (6, 1), r'D must have shape \(6,\), got \(6, 1\)'),
        ('delta_bias', (2, 3), r'delta_bias must have shape \(6,\).*\(2, 3\)'),
    ],
)
def test_wrong_shape(name, shape, message):
    inputs = make_inputs() | {name: torch.zeros(shape)}
    with pytest.raises(ValueError, match=f'selective_scan: {message}'):
        selective_scan(**inputs)


@pytest.mark.parametrize('name', make_inputs(bias=True))
@pytest.mark.parametrize('dtype', [torch.int64, torch.bool, torch.complex64])
def test_wrong_dtype(dtype, name):
    inputs = make_inputs(bias=True)
    inputs[name] = inputs[name].to(dtype)
    message = f'selective_scan: {name} must be floating point, got {dtype}'
    with pytest.raises(TypeError, match=message):
        selective_scan(**inputs)


@pytest.mark.parametrize('name', list(make_inputs(bias=True))[1:])
def test_wrong_device(name):
    inputs = make_inputs(bias=True)
    inputs[name] = inputs[name].to('meta')
    message = f'selective_scan: {name} is on meta, and the input on cpu'
    with pytest.raises(ValueError, match=message):
        selective_scan(**inputs)
