"""Tests of the CUDA ops on a GPU; their twins run on the CPU.

test_cuda_kernel.py runs the same kernels in emulation, test_selective_scan.py
and test_bidirectional_scan.py the same checks with the other backends.
"""

import pytest
import torch
from golden import relative_error
from test_ops.scan_cases import bidirectional_inputs, selective_inputs
from test_ops.support import opcheck

from mmmamba.ops import (
    available_backends,
    bidirectional_scan,
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
