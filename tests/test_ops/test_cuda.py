"""Tests of the CUDA ops on a GPU; their twins run on the CPU.

test_cuda_kernel.py and test_cuda_inference_kernel.py run the same kernels in
emulation, the other files the same checks with the other backends.
"""

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import LAYOUTS, arguments, case, linear_inputs
from test_ops.scan_cases import bidirectional_inputs, selective_inputs
from test_ops.support import opcheck

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
def exact(monkeypatch):
    """Products and convolutions in float32 and not in TensorFloat-32."""
    monkeypatch.setattr(torch.backends.cuda.matmul, 'allow_tf32', False)
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


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
@pytest.mark.parametrize('length', [2, 9, 33, 1023, 4097, 9000])
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
# The batches are those that scan_gate's kernel serves.
CASES = [((32, 5, 7), 37), ((32, 14, 14), 160), ((32, 7, 7), 272)]
CASES += [((33, 9, 1), 64), ((32, 3, 3), 224)]


def inference_case(name: str, size, channels: int) -> tuple:
    """The function, its inputs on the CPU, and whatever else it takes."""
    if name != 'linear':
        return case(name, size, channels)
    rows = size[0] * size[1] * size[2]
    x, weight, bias, residual = linear_inputs(rows, channels, 3 * channels)
    return linear, [x, weight, bias], (False, residual)


def to_gpu(values, dtype: torch.dtype, layout=torch.clone) -> list:
    """Maps in a layout."""
    return [
        t
        if not isinstance(t, torch.Tensor)
        else (layout(t) if t.dim() > 2 else t).to('cuda', dtype)
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


@pytest.mark.parametrize('name', [n for n in INFERENCE_OPS if n != 'linear'])
@torch.no_grad()
def test_inference_opcheck(name):
    _, inputs, others = inference_case(name, (2, 5, 7), 36)
    op = getattr(torch.ops.mmmamba, name).default
    inputs = to_gpu(inputs, torch.float32)
    opcheck(op, arguments(name, inputs, others))


@torch.no_grad()
def test_linear_with_relu():
    x, weight, bias, _ = to_gpu(linear_inputs(300, 48, 96), torch.float32)
    found = linear(x[:, 8:40], weight[:32], bias, relu=True)
    expected = x[:, 8:40].double() @ weight[:32].double() + bias.double()
    assert relative_error(found.cpu(), expected.relu().cpu()) <= 1e-5
    found = linear(x, weight)
    expected = x.double() @ weight.double()
    assert relative_error(found.cpu(), expected.cpu()) <= 1e-5
