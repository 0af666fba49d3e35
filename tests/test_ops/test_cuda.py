"""Tests of the CUDA ops on a GPU; their twins run on the CPU.

test_cuda_kernel.py and test_cuda_inference_kernel.py run the same kernels in
emulation, the other files the same checks with the other backends.
"""

import math

import pytest
import torch
from golden import relative_error
from test_ops import bad_inputs
from test_ops.inference_cases import (
    LAYOUTS,
    arguments,
    case,
    conv_inputs,
    conv_reference,
    linear_inputs,
    linear_reference,
    mixer_case,
    stem,
    stem_case,
)
from test_ops.scan_cases import LAYOUTS as SCAN_LAYOUTS
from test_ops.scan_cases import bidirectional_inputs, selective_inputs
from test_ops.support import mapped, opcheck

from mmmamba import ops
from mmmamba.ops import (
    available_backends,
    bidirectional_scan,
    linear,
    selective_scan,
)

pytestmark = pytest.mark.skipif(
    not available_backends()['cuda'],
    reason='no GPU, or the ops are built without CUDA',
)
TOLERANCE = {
    torch.float32: 1e-5,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}
SCANS = {
    'selective': (selective_scan, selective_inputs),
    'bidirectional': (bidirectional_scan, bidirectional_inputs),
}


@pytest.fixture(autouse=True)
def exact():
    """Products and convolutions in float32 and not in TensorFloat-32."""
    # Not by monkeypatch, which takes attributes away that are no attributes.
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before):
        switch.allow_tf32 = value


def on_gpu(inputs: dict, dtype: torch.dtype = torch.float32) -> dict:
    """Activations in a dtype, parameters in float32; all want gradients."""
    halves = ('u', 'x', 'delta', 'B', 'C', 'projected')
    return {
        name: tensor.to(
            'cuda', dtype if name in halves else torch.float32
        ).requires_grad_()
        for name, tensor in inputs.items()
    }


def run(scan, inputs: dict) -> list:
    y = scan(**inputs)
    return [y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('length', [2, 9, 33, 36, 260, 1023, 4097, 9000])
@pytest.mark.parametrize('name', SCANS)
def test_equals_the_cpu(name, length, dtype):
    scan, make_inputs = SCANS[name]
    # Small enough that no gradient leaves the range of float16.
    if name == 'selective':
        sizes, options = (2, 2, 5, 2, length), dict(steps=(1e-2, 1))
    else:
        sizes, options = (2, 5, 3, 2, length), dict(bias=(-6.0, 0.0))
    inputs = make_inputs(sizes, decays=(1e-1, 10), **options)
    inputs = on_gpu(inputs, dtype)
    exact = {
        k: v.detach().double().cpu().requires_grad_()
        for k, v in inputs.items()
    }
    for out, expected in zip(run(scan, inputs), run(scan, exact)):
        # Gradients sum rounded terms.
        assert relative_error(out.cpu(), expected) <= 10 * TOLERANCE[dtype]


@pytest.mark.parametrize('name', SCANS)
def test_same_bits_twice(name):
    scan, make_inputs = SCANS[name]
    inputs = on_gpu(make_inputs())
    for first, second in zip(run(scan, inputs), run(scan, inputs)):
        assert torch.equal(first, second)


@pytest.mark.parametrize('layout', SCAN_LAYOUTS)
@pytest.mark.parametrize('name', SCANS)
def test_scan_layout(name, layout):
    scan, make_inputs = SCANS[name]
    inputs = on_gpu(make_inputs())
    laid_out = {
        k: layout(v.detach()).requires_grad_() for k, v in inputs.items()
    }
    for found, expected in zip(run(scan, laid_out), run(scan, inputs)):
        assert relative_error(found, expected.double()) <= 1e-6


@pytest.mark.parametrize('name', SCANS)
def test_opcheck(name):
    _, make_inputs = SCANS[name]
    inputs = list(on_gpu(make_inputs()).values())
    if name == 'selective':
        inputs += [None, True]
    opcheck(getattr(torch.ops.mmmamba, f'{name}_scan').default, tuple(inputs))


@pytest.mark.parametrize('name', SCANS)
@torch.no_grad()
def test_cuda_graph(name):
    scan, make_inputs = SCANS[name]
    inputs = on_gpu(make_inputs())
    expected = scan(**inputs)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        scan(**inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = scan(**inputs)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)


# ---------------------------------------------------------------------------
# The ops for inference
# ---------------------------------------------------------------------------

INFERENCE_OPS = ['depthwise_conv', 'mixer_conv', 'scan_gate', 'linear']
INFERENCE_OPS += ['stem_conv']
# (batch, height, width) and channels: of scan_gate D is twice as many.
CASES = [((32, 5, 7), 37), ((32, 14, 14), 160), ((32, 7, 7), 272)]
CASES += [((33, 9, 1), 64), ((32, 3, 3), 224)]
# What scan_gate's kernel does not serve: few sequences, many channels.
CASES += [((2, 5, 7), 37), ((32, 3, 3), 300)]


def inference_case(name: str, size, channels: int) -> tuple:
    """The function, its inputs on the CPU, and whatever else it takes."""
    if name != 'linear':
        return case(name, size, channels)
    rows = size[0] * size[1] * size[2]
    x, weight, bias, residual = linear_inputs(rows, channels, 3 * channels)
    return linear, [x, weight, bias], (False, residual)


def to_gpu(values, dtype: torch.dtype, layout=torch.clone) -> list:
    """Maps in a layout, which a copy to the GPU may not keep."""
    return [
        t
        if not isinstance(t, torch.Tensor)
        else (layout if t.dim() > 2 else torch.clone)(t.to('cuda', dtype))
        for t in values
    ]


@pytest.mark.parametrize('dtype', TOLERANCE)
@pytest.mark.parametrize('size, channels', CASES)
@pytest.mark.parametrize('name', INFERENCE_OPS)
@torch.no_grad()
def test_inference_op(name, size, channels, dtype):
    function, inputs, others = inference_case(name, size, channels)
    inputs, others = to_gpu(inputs, dtype), to_gpu(others, dtype)
    found = function(*inputs, *others)
    double = [
        t.double().cpu() if isinstance(t, torch.Tensor) else t
        for t in (*inputs, *others)
    ]
    assert found.dtype == dtype and found.is_contiguous()
    error = relative_error(found.cpu(), function(*double))
    assert error <= 3 * TOLERANCE[dtype]


@pytest.mark.parametrize('name', [n for n in INFERENCE_OPS if n != 'linear'])
@pytest.mark.parametrize('layout', LAYOUTS)
@torch.no_grad()
def test_inference_layout(name, layout):
    function, inputs, others = inference_case(name, (32, 5, 7), 36)
    expected = function(*to_gpu(inputs, torch.float32), *others)
    found = function(*to_gpu(inputs, torch.float32, layout), *others)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('kernel', [1, 5, 7])
@torch.no_grad()
def test_other_kernels(kernel):
    inputs = conv_inputs((32, 5, 7), 36, kernel)
    found = ops.depthwise_conv(*to_gpu(inputs, torch.float32))
    assert relative_error(found.cpu(), conv_reference(*inputs)) <= 1e-5
    inputs, expected = mixer_case((32, 5, 7), [36, 20, 5], kernel)
    found = ops.mixer_conv(*to_gpu(inputs, torch.float32))
    assert relative_error(found.cpu(), expected) <= 1e-5


@pytest.mark.parametrize('name', [n for n in INFERENCE_OPS if n != 'linear'])
@torch.no_grad()
def test_inference_opcheck(name):
    _, inputs, others = inference_case(name, (2, 5, 7), 36)
    op = getattr(torch.ops.mmmamba, name).default
    inputs = to_gpu(inputs, torch.float32)
    opcheck(op, arguments(name, inputs, others))


def call(name: str, inputs: list, others: tuple) -> torch.Tensor:
    """The registered op, called directly."""
    op = getattr(torch.ops.mmmamba, name).default
    if name == 'linear':
        return op(*inputs, *others)
    return op(*arguments(name, inputs, others))


@pytest.mark.parametrize('size', [(2, 5, 7), (32, 5, 7)])
@pytest.mark.parametrize('name', INFERENCE_OPS)
@torch.no_grad()
def test_autocast_around_an_op(name, size):
    """It has no say inside the op, nor has autograd."""
    _, inputs, others = inference_case(name, size, 36)
    inputs, others = (to_gpu(t, torch.float32) for t in (inputs, others))
    expected = call(name, inputs, others)
    with torch.autocast('cuda', torch.bfloat16), torch.enable_grad():
        found = call(name, [t.requires_grad_() for t in inputs], others)
    torch.testing.assert_close(found.detach(), expected)


@pytest.mark.parametrize('size', [(2, 5, 7), (32, 5, 7)])
@pytest.mark.parametrize('name', INFERENCE_OPS)
@torch.no_grad()
def test_nan_stays_in_its_sample(name, size):
    function, inputs, others = inference_case(name, size, 36)
    inputs, others = (to_gpu(t, torch.float32) for t in (inputs, others))
    rows = inputs[0].shape[0] // size[0]  # of linear, those of a sample
    expected = function(*inputs, *others)
    inputs[0][rows : 2 * rows] = math.nan
    found = function(*inputs, *others)
    assert found[rows : 2 * rows].isnan().any()
    for part in (slice(rows), slice(2 * rows, None)):
        torch.testing.assert_close(found[part], expected[part])


@pytest.mark.parametrize('name', INFERENCE_OPS)
@torch.no_grad()
def test_no_samples(name):
    function, inputs, others = inference_case(name, (32, 5, 7), 36)
    inputs, others = (to_gpu(t, torch.float32) for t in (inputs, others))
    shape = function(*inputs, *others).shape[1:]
    batch = inputs[0].shape[0]

    def without_samples(values) -> list:
        return [
            t[:0] if isinstance(t, torch.Tensor) and t.shape[0] == batch else t
            for t in values
        ]

    empty = function(*without_samples(inputs), *without_samples(others))
    assert empty.shape == (0, *shape)


def on_a_gpu(bad) -> list:
    """The faces of an op that refuse bad inputs there."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    faces = []
    if 'gpu' in bad.faces:
        faces.append(getattr(ops, bad.op))
    if has_kernel(f'mmmamba::{bad.op}', 'CUDA'):
        op = getattr(torch.ops.mmmamba, bad.op).default
        faces.append(lambda **inputs: op(*inputs.values()))
    return faces


@pytest.mark.parametrize(
    'bad',
    bad_inputs.SHAPES + bad_inputs.OPTIONS + bad_inputs.DTYPES,
    ids=str,
)
def test_bad_input(bad):
    inputs = mapped(torch.Tensor.cuda, bad.inputs())
    for face in on_a_gpu(bad):
        with pytest.raises(bad.error, match=bad.message):
            face(**inputs)


# ---------------------------------------------------------------------------
# linear
# ---------------------------------------------------------------------------


def check_linear(*inputs, relu: bool = False, residual=None) -> None:
    found = linear(*inputs, relu=relu, residual=residual)
    cpu = [t.cpu() for t in inputs]
    rest = None if residual is None else residual.cpu()
    expected = linear_reference(*cpu, relu=relu, residual=rest)
    assert relative_error(found.cpu(), expected) <= 1e-5


@torch.no_grad()
def test_what_linear_adds():
    inputs = to_gpu(linear_inputs(300, 48, 96), torch.float32)
    x, weight, bias, residual = inputs
    check_linear(x[:, 8:40], weight[:32], bias, relu=True)
    check_linear(x, weight)
    check_linear(x, weight, residual=residual)
    check_linear(x, weight, bias, relu=True, residual=residual)


@pytest.mark.parametrize('dtype', TOLERANCE)
@torch.no_grad()
def test_bias_anywhere(dtype):
    """An epilogue reads a bias by 16 bytes."""
    x, weight, bias, _ = to_gpu(linear_inputs(300, 48, 96), dtype)
    expected = linear(x, weight, bias)
    for first in range(1, 8):
        elsewhere = bias.new_empty(bias.numel() + first)[first:]
        elsewhere.copy_(bias)
        assert torch.equal(linear(x, weight, elsewhere), expected)


@pytest.mark.parametrize('sizes', [(1, 48, 96), (300, 1, 96), (300, 48, 1)])
@pytest.mark.parametrize('relu', [False, True])
@torch.no_grad()
def test_linear_of_a_single(sizes, relu):
    """A single row, channel or output, for which PyTorch has any stride."""
    x, weight, bias, residual = to_gpu(linear_inputs(*sizes), torch.float32)
    if len(x) == 1:
        x = x.flatten().as_strided(x.shape, (0, 1))
    check_linear(x, weight, bias, relu=relu)
    check_linear(x, weight, residual=residual)


@pytest.mark.skipif(
    not hasattr(torch.backends.cuda.matmul, 'fp32_precision'),
    reason='PyTorch has it since 2.9',
)
@torch.no_grad()
def test_fp32_precision():
    """PyTorch's newer switch of TensorFloat-32, beside the older one."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip('a GPU without TensorFloat-32')
    x, weight, bias, _ = to_gpu(linear_inputs(300, 512, 96), torch.float32)
    exact = linear_reference(*(t.cpu() for t in (x, weight, bias)))
    switch = torch.backends.cuda.matmul
    errors = {}
    try:
        for precision in ('tf32', 'ieee'):
            switch.fp32_precision = precision
            found = linear(x, weight, bias).cpu()
            errors[precision] = relative_error(found, exact)
    finally:
        switch.fp32_precision = 'ieee'
    assert errors['ieee'] <= 1e-5 < errors['tf32'] <= 1e-2


# ---------------------------------------------------------------------------
# stem_conv
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('channels', [(25, 50, 100, 200), (18, 20), (17,)])
@torch.no_grad()
def test_padded_channels(channels):
    """Between the convolutions they are multiples of 8."""
    inputs, expected = stem_case((2, 40, 35), *channels)
    found = stem(*to_gpu(inputs, torch.float32))
    assert relative_error(found.cpu(), expected) <= 1e-5


@pytest.mark.parametrize('dtype', TOLERANCE)
@torch.no_grad()
def test_stem_where_nans_were(dtype):
    """PyTorch hands cuDNN its output as a summand, times 0."""
    inputs, _ = stem_case((16, 128, 96), 24, 32, 40, 48)
    inputs = to_gpu(inputs, dtype)
    expected = stem(*(t.double().cpu() for t in inputs))
    # Memory of both kinds that PyTorch keeps: of a megabyte at most, and more.
    sizes = [2**24] + 64 * [2**17]
    nans = [torch.full((n,), torch.nan, device='cuda') for n in sizes]
    del nans
    found = stem(*inputs).cpu()
    assert relative_error(found, expected) <= 5 * TOLERANCE[dtype]


@pytest.mark.parametrize(
    'flags, fused',
    [
        ({}, True),
        (dict(enabled=False), False),
        (dict(deterministic=True), False),
    ],
    ids=str,
)
@torch.no_grad()
def test_switches_of_cudnn(flags, fused):
    """They hold where one of PyTorch's ops is asked to do more than one."""
    inputs, expected = stem_case((2, 40, 35), 24, 32, 40)
    inputs = to_gpu(inputs, torch.float32)
    flags = dict(enabled=True, allow_tf32=False) | flags
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.backends.cudnn.flags(**flags),
        torch.profiler.profile(activities=activities) as profile,
    ):
        found = stem(*inputs)
    names = {event.key for event in profile.key_averages()}
    assert ('aten::cudnn_convolution_relu' in names) == fused
    assert relative_error(found.cpu(), expected) <= 1e-5
