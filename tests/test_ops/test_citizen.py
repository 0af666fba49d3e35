"""The compiled ops and the backbone under PyTorch's own tools."""

import io
import sys

import pytest
import torch
from golden import relative_error
from test_ops.backbone_case import gradients, make_backbone, make_image
from test_ops.scan_cases import LAYOUTS, bidirectional_inputs, selective_inputs
from test_ops.support import (
    finish_program,
    opcheck,
    permuted,
    run_program,
    start_program,
    strided,
    with_gradients,
)
from torch.utils.checkpoint import checkpoint

from mmmamba.ops import bidirectional_scan, selective_scan, use_backend

pytestmark = pytest.mark.usefixtures('compiled')


@pytest.fixture(autouse=True)
def _cpp(compiled):
    with use_backend('cpp'):
        yield


def selective_case(optional=True, **kwargs) -> list:
    inputs = selective_inputs(
        (2, 2, 3, 4, 20), steps=(0.1, 1), decays=(0.1, 1), bias=True, **kwargs
    )
    if not optional:
        inputs.update(D=None, delta_bias=None)
    return list(inputs.values())


def bidirectional_case(optional=True, **kwargs) -> list:
    inputs = bidirectional_inputs(bias=(-2, 1), decays=(0.1, 1), **kwargs)
    if not optional:
        inputs['D'] = None
    return list(inputs.values())


def apply(function, inputs: list) -> list:
    return [None if t is None else function(t) for t in inputs]


def require_grad(inputs: list) -> list:
    return apply(lambda t: t.detach().clone().requires_grad_(), inputs)


SCANS = {
    'selective': (selective_case, (True,)),
    'bidirectional': (bidirectional_case, ()),
}
FACES = {'selective': selective_scan, 'bidirectional': bidirectional_scan}


def ops(name: str) -> tuple:
    namespace = torch.ops.mmmamba
    return (
        getattr(namespace, f'{name}_scan').default,
        getattr(namespace, f'{name}_scan_backward').default,
    )


# ---------------------------------------------------------------------------
# The ops
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('name', SCANS)
@pytest.mark.parametrize(
    'optional, dtype, layout',
    [
        (True, torch.float32, torch.clone),
        (False, torch.float64, torch.clone),
        (True, torch.bfloat16, strided),
        (False, torch.float32, permuted),
    ],
)
@pytest.mark.slow
def test_opcheck(optional, dtype, layout, name):
    make, flags = SCANS[name]
    inputs = apply(layout, make(optional, dtype=dtype))
    forward, backward = ops(name)
    result = opcheck(forward, (*require_grad(inputs), *flags))
    assert set(result.values()) == {'SUCCESS'}
    grad = layout(torch.ones_like(inputs[0]))
    result = opcheck(backward, (grad, *inputs, *flags))
    assert set(result.values()) == {'SUCCESS'}


@pytest.mark.parametrize('name', SCANS)
@pytest.mark.parametrize('optional', [True, False])
@pytest.mark.parametrize('layout', [torch.clone, *LAYOUTS])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_shapes_without_data(dtype, layout, optional, name):
    """On ``meta`` the ops promise what they return on ``cpu``."""
    make, flags = SCANS[name]
    inputs = apply(layout, make(optional, dtype=dtype))
    grad = torch.ones_like(inputs[0])
    forward, backward = ops(name)
    for op, arguments in ((forward, inputs), (backward, [grad, *inputs])):
        meta = op(*apply(lambda t: t.to('meta'), arguments), *flags)
        real = op(*arguments, *flags)
        if op is forward:
            meta, real = [meta], [real]
        assert len(meta) == len(real)
        for a, b in zip(meta, real):
            assert a.device.type == 'meta'
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.stride() == b.stride()


@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.parametrize('name', SCANS)
@pytest.mark.slow
def test_compile(name, dynamic):
    make, flags = SCANS[name]
    compiled = torch.compile(
        FACES[name], fullgraph=True, backend='aot_eager', dynamic=dynamic
    )
    inputs = make()
    if name == 'selective':
        flags = (inputs.pop(), *flags)
    for length in (20, 13) if dynamic else (20,):
        shorter = [t[..., :length] if t.dim() > 2 else t for t in inputs]
        if name == 'bidirectional':
            shorter[2] = inputs[2]
        found, expected = require_grad(shorter), require_grad(shorter)
        out, ref = compiled(*found, *flags), FACES[name](*expected, *flags)
        assert torch.equal(out, ref)
        out.square().sum().backward()
        ref.square().sum().backward()
        for a, b in zip(found, expected):
            assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize('name', SCANS)
def test_checkpoint(name):
    make, flags = SCANS[name]
    plain, saved = require_grad(make()), require_grad(make())
    FACES[name](*plain, *flags).square().sum().backward()
    out = checkpoint(FACES[name], *saved, *flags, use_reentrant=False)
    out.square().sum().backward()
    for a, b in zip(saved, plain):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize('name', SCANS)
@pytest.mark.parametrize('batch, channels', [(1, 40), (3, 9), (2, 64)])
def test_number_of_threads_does_not_matter(batch, channels, name):
    if name == 'selective':
        sizes = (batch, 2, channels, 3, 300)
        inputs = selective_inputs(sizes, steps=(1e-3, 1), bias=True)
    else:
        sizes = (batch, channels, 3, 3, 300)
        inputs = bidirectional_inputs(sizes)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(with_gradients(FACES[name], inputs, torch.float32))
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        for key, tensor in results[0].items():
            assert torch.equal(other[key], tensor), key


@pytest.mark.slow
def test_odd_calls_do_not_crash():
    """In a process of its own, which a crash would end."""
    run_program('odd_calls')


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='memory: limits of Linux')
def test_no_memory_in_the_threads():
    """What goes wrong in one of several threads is an error of the call."""
    assert run_program('low_memory').startswith('MemoryError')


# ---------------------------------------------------------------------------
# The backbone
# ---------------------------------------------------------------------------


def compiled_scans(graph: torch.fx.Graph) -> int:
    op = torch.ops.mmmamba.bidirectional_scan.default
    return sum(node.target is op for node in graph.nodes)


@pytest.mark.parametrize('directions', [1, 2, 4])
def test_backbone_equals_the_one_in_pytorch(directions):
    model = make_backbone(directions)
    x = make_image(2, 3, 65, 97)
    found = model(x)
    found_gradients = gradients(model, found)
    with use_backend('torch'):
        expected = model(x)
    for out, ref in zip(found, expected):
        assert relative_error(out, ref) <= 1e-5
    for name, grad in gradients(model, expected).items():
        assert relative_error(found_gradients[name], grad) <= 1e-4, name


@pytest.mark.slow
def test_compiled_backbone():
    """One graph, forwards and backwards, for any batch."""
    model = make_backbone()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    for batch in (2, 3):
        x = make_image(batch, 3, 64, 80)
        torch._dynamo.mark_dynamic(x, 0)
        outs, expected = compiled(x), model(x)
        for out, ref in zip(outs, expected):
            assert relative_error(out, ref) <= 1e-6
        found = gradients(model, outs)
        for name, grad in gradients(model, expected).items():
            assert relative_error(found[name], grad) <= 1e-5, name


@torch.no_grad()
@pytest.mark.slow
def test_exported_backbone():
    model = make_backbone()
    x = make_image(2, 3, 64, 80)
    exported = torch.export.export(
        model, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},)
    )
    assert compiled_scans(exported.graph) == 3
    for batch in (2, 5):
        x = make_image(batch, 3, 64, 80)
        for out, ref in zip(exported.module()(x), model(x)):
            assert relative_error(out, ref) <= 1e-6


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@torch.no_grad()
@pytest.mark.slow
def test_traced_backbone():
    model = make_backbone()
    traced = torch.jit.trace(model, make_image(2, 3, 64, 80))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    loaded = torch.jit.load(file)
    assert 'mmmamba::bidirectional_scan' in str(loaded.inlined_graph)
    for batch in (1, 2, 3):
        x = make_image(batch, 3, 64, 80)
        for out, ref in zip(loaded(x), model(x)):
            assert relative_error(out, ref) <= 1e-6


def test_checkpointed_backbone():
    x = make_image(2, 3, 64, 80)
    plain, saving = make_backbone(), make_backbone(with_cp=True)
    expected = gradients(plain, plain.train()(x))
    for name, grad in gradients(saving, saving.train()(x)).items():
        assert torch.equal(grad, expected[name]), name


@pytest.mark.slow
def test_distributed_data_parallel(tmp_path):
    """Two processes with a sample each have the gradients of both."""
    store = tmp_path / 'store'
    processes = [start_program('distributed', store, r) for r in (0, 1)]
    try:
        for process in processes:
            assert 'equal' in finish_program(process)
    finally:
        for process in processes:
            process.kill()
