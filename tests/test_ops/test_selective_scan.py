"""Tests of mmmamba/ops/selective_scan.py."""

import math

import pytest
import torch
from golden import relative_error
from torch import Tensor

from mmmamba.ops import selective_scan

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}
# batch, K, D, N, L
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 2, 3, 2, 2),
    (3, 4, 5, 16, 3),
    (2, 2, 17, 1, 63),
    (1, 4, 8, 4, 64),
    (3, 1, 7, 3, 65),
    (2, 2, 5, 2, 1023),
    (3, 1, 4, 16, 1023),
    (1, 2, 9, 1, 4097),
]


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


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('sizes', SIZES)
def test_equals_step_by_step(sizes, dtype):
    inputs = make_inputs(sizes, dtype)
    out = selective_scan(**inputs)
    assert out.dtype == dtype
    assert worst_error(out, reference(**inputs)) <= TOLERANCE[dtype]


@pytest.mark.parametrize('sizes', [SIZES[2], SIZES[6]])
@pytest.mark.parametrize('step', [1e-4, 1e-2, 1.0, 1e2])
@pytest.mark.parametrize('decay', [1e-4, 1e-2, 1.0, 1e3])
def test_equals_step_by_step_in_one_regime(step, decay, sizes):
    """From no decay to a state that is gone at once, every step alike.

    A decay near 1 is rounded by up to 2**-25 in float32, each time alike.
    """
    inputs = make_inputs(sizes, steps=(step, step), decays=(decay, decay))
    tolerance = TOLERANCE[torch.float32] + sizes[-1] * 2**-25
    out = selective_scan(**inputs)
    assert worst_error(out, reference(**inputs)) <= tolerance


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
    tolerance = TOLERANCE[dtype] + 1e-10 * softplus
    out = selective_scan(**inputs)
    assert worst_error(out, reference(**inputs)) <= tolerance


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
    inputs = make_inputs((2, 2, 5, 3, 1023), steps=(1e-3, 1e1))
    for name in ['u'] if only_u else list(inputs):
        inputs[name] = inputs[name].to(dtype)
    out = selective_scan(**inputs)
    ref = reference(**inputs)
    assert out.dtype == dtype
    rounding = ref.abs() * torch.finfo(dtype).eps / 2
    allowed = rounding + TOLERANCE[torch.float32] * ref.abs().amax(
        -1, keepdim=True
    )
    assert ((out.double() - ref).abs() <= allowed).all()


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
def test_layout_of_the_inputs_does_not_matter(layout):
    inputs = make_inputs(bias=True)
    changed = {name: layout(tensor) for name, tensor in inputs.items()}
    assert not any(changed[n].is_contiguous() for n in ('u', 'B', 'C', 'A'))
    out = selective_scan(**changed, delta_softplus=True)
    assert torch.equal(out, selective_scan(**inputs, delta_softplus=True))


def test_expanded_inputs():
    inputs = make_inputs()
    for name in ('u', 'B'):
        inputs[name] = inputs[name][:1].expand_as(inputs[name])
    dense = {name: tensor.clone() for name, tensor in inputs.items()}
    assert torch.equal(selective_scan(**inputs), selective_scan(**dense))


@pytest.mark.parametrize('name', ['u', 'delta', 'B', 'C'])
def test_nan_stays_in_its_sequence(name):
    """It reaches the later positions of its own sequences, nothing else."""
    inputs = make_inputs((3, 2, 3, 2, 20), steps=(0.1, 1), decays=(0.1, 1))
    expected = selective_scan(**inputs)
    bad = torch.zeros_like(expected, dtype=torch.bool)
    if name in ('u', 'delta'):
        inputs[name][1, 4, 7] = math.nan
        bad[1, 4, 7:] = True
    elif name == 'B':  # shared by the channels of one direction
        inputs[name][1, 1, 0, 7] = math.nan
        bad[1, 3:, 7:] = True
    else:  # reads the state without changing it
        inputs[name][1, 1, 0, 7] = math.nan
        bad[1, 3:, 7] = True
    out = selective_scan(**inputs)
    assert torch.equal(out.isnan(), bad)
    assert torch.equal(out[~bad], expected[~bad])


@pytest.mark.parametrize('length', [1, 2, 5])
@pytest.mark.parametrize('directions', [1, 2])
def test_gradcheck(directions, length):
    inputs = make_inputs(
        (2, directions, 2, 2, length),
        torch.float64,
        steps=(1e-1, 1),
        decays=(1e-1, 10),
        bias=True,
    )
    tensors = [t.requires_grad_() for t in inputs.values()]
    for softplus in (True, False):
        assert torch.autograd.gradcheck(
            lambda *args, s=softplus: selective_scan(*args, s), tensors
        )


@pytest.mark.parametrize(
    'dtype, tolerance', [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
@pytest.mark.parametrize('length', [1, 2, 7, 64, 65, 257])
def test_gradients_equal_step_by_step(length, dtype, tolerance):
    inputs = make_inputs(
        (2, 2, 3, 4, length), dtype, steps=(1e-3, 10), bias=True
    )
    ours = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    theirs = {k: v.double().requires_grad_() for k, v in inputs.items()}
    out = selective_scan(**ours)
    weight = torch.randn(
        out.shape,
        generator=torch.Generator().manual_seed(1),
        dtype=torch.float64,
    )
    out.backward(weight.to(dtype))
    reference(**theirs).backward(weight.to(dtype).double())
    for name in inputs:
        if name == 'A' and length == 1:  # no state to decay
            assert not ours[name].grad.any()
            continue
        error = relative_error(ours[name].grad, theirs[name].grad)
        assert error <= tolerance, name


def test_gradient_only_where_it_is_asked_for():
    inputs = make_inputs()
    inputs['B'].requires_grad_()
    selective_scan(**inputs).sum().backward()
    assert inputs['B'].grad is not None
    assert inputs['u'].grad is None


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


@pytest.mark.parametrize('dtype', [torch.int64, torch.bool])
def test_wrong_dtype(dtype):
    inputs = make_inputs()
    inputs['u'] = inputs['u'].to(dtype)
    with pytest.raises(TypeError, match=f'u must be floating.*{dtype}'):
        selective_scan(**inputs)
