"""The compiled ops and the backbone under PyTorch's own tools."""

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from golden import randomize, relative_error
from test_ops import test_bidirectional_scan as bidirectional
from test_ops import test_selective_scan as general
from torch.library import opcheck
from torch.utils.checkpoint import checkpoint

from mmmamba.backbones import MobileMamba
from mmmamba.ops import bidirectional_scan, selective_scan, use_backend

pytestmark = pytest.mark.usefixtures('compiled')

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _cpp(compiled):
    with use_backend('cpp'):
        yield


def selective_inputs(optional=True, **kwargs) -> list:
    inputs = general.make_inputs(
        (2, 2, 3, 4, 20), steps=(0.1, 1), decays=(0.1, 1), bias=True, **kwargs
    )
    if not optional:
        inputs.update(D=None, delta_bias=None)
    return list(inputs.values())


def bidirectional_inputs(optional=True, **kwargs) -> list:
    inputs = bidirectional.make_inputs(bias=(-2, 1), decays=(0.1, 1), **kwargs)
    if not optional:
        inputs['D'] = None
    return list(inputs.values())


def apply(function, inputs: list) -> list:
    return [None if t is None else function(t) for t in inputs]


def require_grad(inputs: list) -> list:
    return apply(lambda t: t.detach().clone().requires_grad_(), inputs)


SCANS = {
    'selective': (selective_inputs, (True,)),
    'bidirectional': (bidirectional_inputs, ()),
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
        (True, torch.bfloat16, bidirectional.strided),
        (False, torch.float32, bidirectional.permuted),
    ],
)
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
@pytest.mark.parametrize('layout', [torch.clone, *bidirectional.LAYOUTS])
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
        inputs = general.make_inputs(sizes, steps=(1e-3, 1), bias=True)
    else:
        sizes = (batch, channels, 3, 3, 300)
        inputs = bidirectional.make_inputs(sizes)
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(
                general.with_gradients(FACES[name], inputs, torch.float32)
            )
        finally:
            torch.set_num_threads(1)
    for other in results[1:]:
        for key, tensor in results[0].items():
            assert torch.equal(other[key], tensor), key


# Of the arguments of test_selective_scan.make_inputs(): u (2, 6, 20),
# A (6, 4), B and C (2, 2, 4, 20); of those of test_bidirectional_scan:
# x (2, 5, 20), projected (2, 2, 11, 20), dt_weight (2, 5, 3), A (10, 4).
@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize(
    'name, position, shape, message',
    [
        ('selective', 0, (2, 6, 0), 'u must have a length of at least 1'),
        ('selective', 0, (6, 20), 'u must have 3 dimensions'),
        ('selective', 0, (2, 5, 20), 'divides the 5 channels'),
        ('selective', 0, (2, 6, 21), 'delta must have shape .*6, 21'),
        ('selective', 1, (2, 6, 19), r'delta must have shape .*, got .*19\]'),
        ('selective', 1, (), 'delta must have shape'),
        ('selective', 2, (6,), 'A must have 2 dimensions'),
        ('selective', 2, (5, 4), r'A must have shape \[6, 4\], got \[5, 4\]'),
        ('selective', 2, (6, 5), r'B must have shape \[2, 2, 5, 20\], got'),
        ('selective', 3, (2, 4, 20), 'B must have 4 dimensions'),
        ('selective', 3, (2, 2, 3, 20), 'B must have shape .*3, 20'),
        ('selective', 3, (2, 0, 4, 20), 'directions that divides'),
        ('selective', 3, (2, 4, 4, 20), 'directions that divides'),
        ('selective', 3, (1, 2, 4, 20), 'B must have shape'),
        ('selective', 4, (2, 1, 4, 20), 'C must have shape'),
        ('selective', 4, (2, 2, 4, 19), 'C must have shape'),
        ('selective', 5, (5,), r'D must have shape \[6\], got \[5\]'),
        ('selective', 6, (2, 3), r'delta_bias must have shape \[6\], got'),
        ('bidirectional', 0, (2, 5, 0), 'x must have a length of at least 1'),
        ('bidirectional', 0, (2, 5, 4, 5), 'x must have 3 dimensions'),
        ('bidirectional', 0, (2, 5, 21), 'projected must have shape'),
        ('bidirectional', 0, (2, 6, 20), 'dt_weight must have shape'),
        ('bidirectional', 1, (2, 2, 10, 20), 'projected must have shape'),
        ('bidirectional', 1, (2, 1, 11, 20), 'projected must have shape'),
        ('bidirectional', 1, (2, 22, 20), 'projected must have shape'),
        ('bidirectional', 2, (2, 5), 'dt_weight must have 3 dimensions'),
        ('bidirectional', 2, (1, 5, 3), 'dt_weight must have shape'),
        ('bidirectional', 2, (2, 5, 4), 'projected must have shape'),
        ('bidirectional', 3, (10,), 'dt_bias must have shape'),
        ('bidirectional', 4, (5, 4), r'A must have shape \[10, 4\], got'),
        ('bidirectional', 4, (10,), 'A must have 2 dimensions'),
        ('bidirectional', 5, (5,), r'D must have shape \[10\], got \[5\]'),
    ],
)
def test_the_ops_themselves_check_shapes(
    name, position, shape, message, device
):
    """An exported program calls them without the functions in Python."""
    make, flags = SCANS[name]
    inputs = make()
    inputs[position] = torch.zeros(shape)
    inputs = apply(lambda t: t.to(device), inputs)
    with pytest.raises(ValueError, match=f'{name}_scan: .*{message}'):
        ops(name)[0](*inputs, *flags)


@pytest.mark.parametrize('name', SCANS)
def test_the_ops_themselves_check_dtypes_and_devices(name):
    make, flags = SCANS[name]
    for position in range(len(make())):
        inputs = make()
        inputs[position] = inputs[position].long()
        with pytest.raises(TypeError, match='must be floating point, got'):
            ops(name)[0](*inputs, *flags)
    # With the first on another device, that device's op would be called.
    for position in range(1, len(make())):
        inputs = make()
        inputs[position] = inputs[position].to('meta')
        with pytest.raises((ValueError, RuntimeError)):
            ops(name)[0](*inputs, *flags)


SCRIPT = """
    import itertools, sys
    import torch
    from mmmamba.ops import bidirectional_scan, selective_scan

    def zeros(*shape):
        return torch.zeros(shape)

    def attempt(function, *inputs):
        try:
            return function(*inputs)
        except (ValueError, RuntimeError, IndexError):
            return None

    # No batch, no channels, no states: nothing to do is no reason to crash.
    for batch, K, D, N, L in itertools.product(
        (0, 1), (1, 2), (0, 3), (0, 2), (1, 5)
    ):
        print('selective', batch, K, D, N, L, flush=True)
        u, delta = torch.ones(2, batch, K * D, L)
        skip = torch.full((K * D,), 2.)
        A = zeros(K * D, N)
        B, C = zeros(2, batch, K, N, L)
        for t in (u, delta, A, B, C, skip):
            t.requires_grad_()
        u.retain_grad()
        y = attempt(selective_scan, u, delta, A, B, C, skip)
        if y is not None:
            assert torch.equal(y, 2 * u)
            grads = torch.autograd.grad(y.sum(), [u, A, B], allow_unused=True)
            assert (grads[0] == 2).all()
    for batch, D, R, N in itertools.product((0, 1), (0, 3), (0, 2), (0, 2)):
        print('bidirectional', batch, D, R, N, flush=True)
        x = torch.ones(batch, D, 5, requires_grad=True)
        y = attempt(
            bidirectional_scan,
            x,
            zeros(batch, 2, R + 2 * N, 5),
            zeros(2, D, R),
            zeros(2, D),
            zeros(2 * D, N),
            torch.full((2 * D,), 2.),
        )
        if y is not None:
            assert torch.equal(y, 4 * x)
            y.sum().backward()
            assert (x.grad == 4).all()

    # The op of the gradient checks its inputs too.
    ops = torch.ops.mmmamba
    u, A, B = zeros(2, 6, 90), zeros(6, 4), zeros(2, 2, 4, 90)
    arguments = [u, u, u, A, B, B, zeros(6), zeros(6)]
    wrong = [zeros(1, 1, 1), zeros(2, 6, 89), zeros(6), zeros(2, 7, 90)]
    for i, bad in itertools.product(range(len(arguments)), wrong):
        if bad.shape == arguments[i].shape:
            continue
        print('selective_backward', i, bad.shape, flush=True)
        inputs = list(arguments)
        inputs[i] = bad
        result = attempt(ops.selective_scan_backward, *inputs, True)
        assert result is None, 'no error'
    x, rows = zeros(2, 6, 90), zeros(2, 2, 10, 90)
    arguments = [x, x, rows, zeros(2, 6, 2), zeros(2, 6), zeros(12, 4)]
    wrong += [zeros(2, 6)]
    for i, bad in itertools.product(range(len(arguments)), wrong):
        if bad.shape == arguments[i].shape:
            continue
        print('bidirectional_backward', i, bad.shape, flush=True)
        inputs = list(arguments)
        inputs[i] = bad
        result = attempt(ops.bidirectional_scan_backward, *inputs, None)
        assert result is None, 'no error'
"""


def test_odd_calls_do_not_crash():
    """In a process of its own, which a crash would end."""
    result = run(SCRIPT)
    last = result.stdout.strip().splitlines()[-1:]
    assert result.returncode == 0, (last, result.stderr[-500:])


def run(script: str, **env) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', **env},
    )


# ---------------------------------------------------------------------------
# The backbone
# ---------------------------------------------------------------------------


def make_backbone(directions: int = 2, **kwargs) -> MobileMamba:
    """Small, and with every parameter audible."""
    torch.manual_seed(0)
    arch = dict(base='t2', channels=(16, 24, 32), depths=(1, 1, 1))
    arch.update(d_state=2, directions=directions)
    return randomize(MobileMamba(arch, **kwargs)).eval()


def make_image(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def gradients(model, outs) -> dict[str, torch.Tensor]:
    model.zero_grad()
    sum(out.square().mean() for out in outs).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


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


DISTRIBUTED = """
    import sys
    sys.path.insert(0, 'tests')
    import torch
    import torch.distributed as dist
    from test_ops.test_citizen import gradients, make_backbone, make_image
    from torch.nn.parallel import DistributedDataParallel
    from mmmamba.ops import available_backends

    torch.set_num_threads(1)
    path, rank = sys.argv[1], int(sys.argv[2])
    dist.init_process_group(
        'gloo', init_method=f'file://{path}', rank=rank, world_size=2
    )
    assert available_backends()['cpp-cpu']
    model = make_backbone()
    x = make_image(2, 3, 64, 80)
    expected = gradients(model, model(x))
    parallel = DistributedDataParallel(model)
    found = gradients(model, parallel(x[rank : rank + 1]))
    for name, grad in expected.items():
        error = (found[name] - grad).abs().max() / grad.abs().max()
        assert error <= 1e-4, (name, error)
    dist.destroy_process_group()
    print('equal')
"""


def test_distributed_data_parallel(tmp_path):
    """Two processes with a sample each have the gradients of both."""
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, '-c', textwrap.dedent(DISTRIBUTED)),
                *(tmp_path / 'store', str(rank)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
        )
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, err[-1000:]
            assert 'equal' in out
    finally:
        for process in processes:
            process.kill()
