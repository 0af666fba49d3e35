"""What all ops for inference have in common."""

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import LAYOUTS, OPS, arguments, case, check
from test_ops.support import opcheck, pretended_gpu
from torch import nn

from mmmamba.ops import depthwise_conv, mixer_conv


@pytest.mark.parametrize('name', OPS)
def test_gradients(op_backend, name):
    """They are those of PyTorch's version, whichever serves without."""
    function, inputs, others = case(name)
    expected = [t.double().requires_grad_() for t in inputs]
    found = [t.clone().requires_grad_() for t in inputs]
    for tensors in (expected, found):
        function(*tensors, *others).square().sum().backward()
    for a, b in zip(found, expected):
        assert relative_error(a.grad, b.grad) <= 2e-5
    with torch.no_grad():
        check(
            function(*found, *others), function(*expected, *others), bound=1e-5
        )


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize(
    'dtype, bound',
    [
        (torch.float64, 1e-12),
        (torch.float16, 2e-3),
        (torch.bfloat16, 2e-2),
    ],
)
def test_other_dtypes(op_backend, name, dtype, bound):
    """PyTorch's version serves where the compiled one does not."""
    if dtype == torch.float16 and torch.__version__.startswith('2.1.'):
        pytest.skip('PyTorch 2.1 has no float16 on CPUs')
    for size, channels in (((2, 5, 7), 37), ((1, 16, 6), 64)):
        function, inputs, others = case(name, size, channels)
        inputs = [t.to(dtype) for t in inputs]
        found = function(*inputs, *others)
        assert found.dtype == dtype and found.is_contiguous()
        expected = function(*(t.double() for t in inputs), *others)
        assert relative_error(found, expected) <= bound


@pytest.mark.usefixtures('compiled')
@pytest.mark.parametrize('name', [n for n in OPS if n != 'stem_conv'])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_bfloat16(name, layout):
    """The compiled version rounds once, and takes float32 parameters.

    There is none of the stem.
    """
    function, inputs, others = case(name)
    maps = {'depthwise_conv': [0], 'mixer_conv': [0, 1], 'scan_gate': [0, 8]}
    for i in maps[name]:
        inputs[i] = layout(inputs[i].bfloat16())
    found = function(*inputs, *others)
    assert found.dtype == torch.bfloat16
    exact = function(*(t.double() for t in inputs), *others)
    # The rest is what is rounded to the other side of a tie.
    assert (found == exact.bfloat16()).double().mean() > 0.99
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=2e-5)


@pytest.mark.usefixtures('compiled')
def test_special_values():
    """A NaN and infinities pass through what copies and what rounds."""
    values = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0, -1, 1])
    expected = torch.tensor([torch.nan, torch.inf, 0, 0, 0, 1])
    x = values.repeat(7)[:40].expand(1, 2, 3, 40)
    expected = expected.repeat(7)[:40].expand(1, 2, 3, 40)
    for dtype in (torch.float32, torch.bfloat16):
        map = x.to(dtype)
        found = mixer_conv(map, map[..., :16])
        torch.testing.assert_close(
            found, expected.to(dtype), rtol=0, atol=0, equal_nan=True
        )
        weight = torch.ones(1, 1, 40)
        found = depthwise_conv(map, weight, act='relu')
        torch.testing.assert_close(
            found, expected.to(dtype), rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize('name', OPS)
def test_empty_batch(op_backend, name):
    function, inputs, others = case(name)
    shape = function(*inputs, *others).shape[1:]
    batch = inputs[0].shape[0]
    empty = [t[:0] if t.shape[0] == batch else t for t in inputs]
    if name == 'scan_gate':  # what has two directions
        empty[2:6] = inputs[2:6]
    assert function(*empty, *others).shape == (0, *shape)


@pytest.mark.parametrize('name', OPS)
def test_meta(name):
    function, inputs, others = case(name)
    meta = function(*(t.to('meta') for t in inputs), *others)
    assert meta.device.type == 'meta'
    assert meta.shape == function(*inputs, *others).shape


@pytest.mark.usefixtures('compiled')
@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.slow
def test_opcheck(layout, name):
    _, inputs, others = case(name)
    inputs = [layout(t) if t.dim() > 2 else t for t in inputs]
    op = getattr(torch.ops.mmmamba, name).default
    result = opcheck(op, arguments(name, inputs, others))
    assert set(result.values()) == {'SUCCESS'}
    on_meta = [t.to('meta') for t in inputs]
    meta = op(*arguments(name, on_meta, others))
    real = op(*arguments(name, inputs, others))
    assert (meta.shape, meta.stride()) == (real.shape, real.stride())


@pytest.mark.usefixtures('compiled')
@pytest.mark.parametrize('name', OPS)
def test_number_of_threads_does_not_matter(name):
    for size, channels in (((1, 33, 9), 37), ((2, 4, 4), 64), ((3, 5, 7), 16)):
        function, inputs, others = case(name, size, channels)
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            try:
                results.append(function(*inputs, *others))
            finally:
                torch.set_num_threads(1)
        for other in results[1:]:
            assert torch.equal(other, results[0])


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('dynamic', [False, True])
@pytest.mark.slow
def test_compile(op_backend, dynamic, name):
    """Without a break; with one graph for all sizes where that is asked."""
    if dynamic and op_backend == 'torch':
        pytest.skip("PyTorch's own operations, whose shapes take it long")
    torch._dynamo.reset()
    function = case(name)[0]
    compiled = torch.compile(
        function, fullgraph=True, backend='aot_eager', dynamic=dynamic
    )
    for size in ((2, 6, 8), (3, 9, 5)):
        _, inputs, others = case(name, size)
        with torch.no_grad():
            found = compiled(*inputs, *others)
            assert torch.equal(found, function(*inputs, *others))


@pytest.mark.parametrize('name', OPS)
@pytest.mark.slow
def test_export(op_backend, name):
    function, inputs, others = case(name)

    class Module(nn.Module):
        def forward(self, *tensors):
            return function(*tensors, *others)

    program = torch.export.export(Module(), tuple(inputs))
    targets = {str(node.target) for node in program.graph.nodes}
    assert (f'mmmamba.{name}.default' in targets) == (op_backend == 'cpp')
    found = program.module()(*inputs)
    assert torch.equal(found, function(*inputs, *others))


@pytest.mark.usefixtures('compiled')
@pytest.mark.skipif(
    not hasattr(torch.export, 'Dim'), reason='PyTorch 2.1 exports one size'
)
@pytest.mark.parametrize('name', OPS)
@pytest.mark.slow
def test_export_for_a_gpu(name):
    """The op chooses its kernels itself, so that the batch stays free."""
    function, inputs, others = case(name)

    class Module(nn.Module):
        def forward(self, tensors):
            return function(*tensors, *others)

    batch = torch.export.Dim('batch')
    sizes = [
        {0: batch} if t.shape[0] == inputs[0].shape[0] else {} for t in inputs
    ]
    if name == 'scan_gate':  # what has two directions
        sizes[2:6] = [{}] * 4
    with pretended_gpu(inputs) as tensors:
        program = torch.export.export(
            Module(), (tensors,), dynamic_shapes=(sizes,), strict=False
        )
    targets = {str(node.target) for node in program.graph.nodes}
    assert f'mmmamba.{name}.default' in targets
