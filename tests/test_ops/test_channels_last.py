"""Tests of the channels-last ops against the plain layers in float64."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from golden import relative_error
from test_ops.test_backend import copy_ops, library
from torch import Tensor, nn
from torch.library import opcheck

from mmmamba.layers.multi_kernel_conv import MultiKernelDWConv
from mmmamba.layers.ssm import SSM
from mmmamba.layers.wavelet import WaveletConv
from mmmamba.ops import depthwise_conv, mixer_conv, scan_gate, stem_conv

# (batch, height, width): one pixel, one column, one row, odd and even sizes,
# and one that is wider than the kernels' blocks.
SIZES = [(1, 1, 1), (2, 5, 1), (1, 1, 6), (2, 3, 3), (1, 7, 14), (1, 6, 37)]
# Fewer than the lanes of any vector, as many, and some more.
CHANNELS = [3, 16, 37]


def channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def slice_of_wider(x: Tensor) -> Tensor:
    """The same numbers as some of the channels of a wider map."""
    wide = torch.full((*x.shape[:-1], x.shape[-1] + 5), torch.nan)
    wide = wide.to(x.dtype)
    wide[..., 2 : 2 + x.shape[-1]] = x
    return wide[..., 2 : 2 + x.shape[-1]]


def rows_apart(x: Tensor) -> Tensor:
    """The same numbers as every other row and column of a larger map."""
    large = x.repeat_interleave(2, 1)
    return (
        large.repeat_interleave(2, 2)[:, ::2, ::2]
        if x.dim() == 4
        else (large[:, ::2])
    )


def permuted(x: Tensor) -> Tensor:
    """The same numbers with the channels far apart."""
    return x.movedim(-1, 1).contiguous().movedim(1, -1)


LAYOUTS = [torch.clone, slice_of_wider, rows_apart, permuted]


def check(found: Tensor, expected: Tensor, bound: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    assert found.is_contiguous()
    assert found.shape == expected.shape
    assert relative_error(found, expected) <= bound


# ---------------------------------------------------------------------------
# Depthwise convolution
# ---------------------------------------------------------------------------


def conv_inputs(size, channels: int, kernel: int) -> list[Tensor]:
    batch, height, width = size
    return [
        torch.randn(batch, height, width, channels),
        torch.randn(kernel, kernel, channels),
        torch.randn(channels),
    ]


def conv_reference(x, weight, bias, stride=1, act='none') -> Tensor:
    channels, kernel = weight.shape[-1], weight.shape[0]
    conv = nn.Conv2d(
        *(channels, channels, kernel, stride, kernel // 2),
        groups=channels,
        bias=bias is not None,
    ).double()
    conv.weight.data.copy_(weight.permute(2, 0, 1)[:, None])
    if bias is not None:
        conv.bias.data.copy_(bias)
    y = conv(x.double().permute(0, 3, 1, 2)).detach()
    y = {'none': lambda y: y, 'relu': F.relu, 'silu': F.silu}[act](y)
    return channels_last(y)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_depthwise_conv(op_backend, size, channels, kernel):
    inputs = conv_inputs(size, channels, kernel)
    for stride in (1, 2):
        check(
            depthwise_conv(*inputs, stride=stride),
            conv_reference(*inputs, stride),
        )


@pytest.mark.parametrize('act', ['none', 'relu', 'silu'])
@pytest.mark.parametrize('channels', CHANNELS)
@pytest.mark.parametrize('stride', [1, 2])
def test_activation(op_backend, act, channels, stride):
    x, weight, bias = conv_inputs((2, 9, 11), channels, 3)
    x = 10 * x
    for b in (bias, None):
        check(
            depthwise_conv(x, weight, b, stride, act),
            conv_reference(x, weight, b, stride, act),
        )


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', CHANNELS)
def test_layout_of_conv(op_backend, layout, channels):
    x, weight, bias = conv_inputs((2, 5, 7), channels, 3)
    found = depthwise_conv(layout(x), layout(weight), bias)
    check(found, conv_reference(x, weight, bias))
    if op_backend == 'cpp' and channels >= 16:
        assert torch.equal(found, depthwise_conv(x, weight, bias))


# ---------------------------------------------------------------------------
# Mixer
# ---------------------------------------------------------------------------


def mixer_case(size, split, kernel: int, wavelet: bool = True) -> tuple:
    """Inputs of the op, and what the layers make of them."""
    batch, height, width = size
    x = torch.randn(batch, sum(split), height, width).double()
    ssm = torch.randn(batch, split[0], height, width).double()
    x_global, x_local, x_rest = x.split(split, dim=1)
    parts = [ssm]
    weights = [None] * 5
    if wavelet:
        layer = WaveletConv(split[0], kernel).double()
        nn.init.normal_(layer.conv.weight)
        nn.init.normal_(layer.scale)
        parts = [ssm + layer(x_global)]
        weight = layer.conv.weight[:, 0] * layer.scale.view(-1, 1, 1)
        weights[0] = weight.unflatten(0, (-1, 4)).permute(1, 2, 3, 0)
    if split[1]:
        layer = MultiKernelDWConv(split[1], kernel).double().eval()
        (conv, pointwise) = layer.parts[0]
        for module in (conv.norm, pointwise.norm):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
        parts.append(layer(x_local))
        scale = (1 + conv.norm.eps) ** -0.5
        weight = conv.conv.weight[:, 0].permute(1, 2, 0)
        weights[1:] = (
            weight * (scale * conv.norm.weight),
            conv.norm.bias,
            pointwise.conv.weight.flatten() * scale * pointwise.norm.weight,
            pointwise.norm.bias,
        )
    expected = F.relu(torch.cat([*parts, x_rest], dim=1))
    inputs = [channels_last(x), channels_last(ssm), *weights]
    inputs = [
        None if t is None else t.detach().float().contiguous() for t in inputs
    ]
    return inputs, channels_last(expected).detach()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'split', [[16, 3, 1], [3, 0, 4], [37, 20, 0], [32, 16, 16]]
)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7, 9])
def test_mixer_conv(op_backend, size, split, kernel):
    inputs, expected = mixer_case(size, split, kernel)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('split', [[16, 3, 1], [37, 20, 0], [5, 0, 0]])
def test_mixer_without_wavelet(op_backend, split):
    inputs, expected = mixer_case((2, 4, 7), split, 3, wavelet=False)
    check(mixer_conv(*inputs), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('split', [[16, 16, 16], [3, 9, 5]])
def test_layout_of_mixer(op_backend, layout, split):
    inputs, expected = mixer_case((2, 5, 7), split, 3)
    x, ssm, *weights = inputs
    found = mixer_conv(layout(x), layout(ssm), *weights)
    check(found, expected)
    if op_backend == 'cpp' and min(split) >= 16:
        assert torch.equal(found, mixer_conv(*inputs))


# ---------------------------------------------------------------------------
# Scan and gate
# ---------------------------------------------------------------------------


def scan_case(size, channels: int, d_state: int = 1) -> tuple:
    """Inputs of the op, and what the layer makes of them."""
    batch, height, width = size
    layer = SSM(channels, d_state=d_state).double().eval()
    for parameter in (layer.A_log, layer.D, *layer.out_norm.parameters()):
        nn.init.normal_(parameter)
    inner = 2 * channels
    x = torch.randn(batch, inner, height, width).double()
    z = torch.randn(batch, inner, height, width).double()
    y = layer.scan(x)
    y = layer.out_norm(y.transpose(1, 2)) * F.silu(z.flatten(2)).mT
    x, z = x.flatten(2).mT, z.flatten(2).mT
    inputs = [
        x,
        x @ layer.x_proj_weight.flatten(0, 1).mT,
        layer.dt_proj_weight,
        layer.dt_proj_bias,
        -layer.A_log.exp(),
        layer.D,
        layer.out_norm.weight,
        layer.out_norm.bias,
        z,
    ]
    return [t.detach().float().contiguous() for t in inputs], y.detach()


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('channels', [1, 5, 16, 37])
@pytest.mark.parametrize('d_state', [1, 3])
def test_scan_gate(op_backend, size, channels, d_state):
    inputs, expected = scan_case(size, channels, d_state)
    check(scan_gate(*inputs), expected, 1e-5)


def test_epsilon(op_backend):
    """It is what is left where all channels are alike."""
    inputs, _ = scan_case((1, 2, 3), 8)
    x, projected, dt_weight, *_ = inputs
    inputs[1] = projected * 0
    inputs[5] = torch.ones(inputs[5].shape)
    inputs[0] = torch.zeros_like(x)
    inputs[0][..., 0] = 1
    for eps in (1e-5, 1.0):
        y = 2 * inputs[0].double()
        y = F.layer_norm(
            y, y.shape[-1:], inputs[6].double(), inputs[7].double(), eps
        )
        expected = y * F.silu(inputs[8].double())
        check(scan_gate(*inputs, eps), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('channels', [5, 16])
def test_layout_of_scan(op_backend, layout, channels):
    inputs, expected = scan_case((2, 5, 4), channels)
    moved = list(inputs)
    for i in (0, 1, 8):
        moved[i] = layout(inputs[i])
    found = scan_gate(*moved)
    check(found, expected, 1e-5)
    if op_backend == 'cpp' and 2 * channels >= 16:
        assert torch.equal(found, scan_gate(*inputs))


# ---------------------------------------------------------------------------
# The first convolutions
# ---------------------------------------------------------------------------


def stem(x: Tensor, *parameters: Tensor) -> Tensor:
    """The op, with weight and bias of each convolution in turn."""
    return stem_conv(x, parameters[::2], parameters[1::2])


def stem_case(size, *channels: int) -> tuple:
    """Inputs of the above, and what PyTorch makes of them."""
    batch, height, width = size
    x = torch.randn(batch, 3, height, width)
    inputs, expected = [x], x.double()
    for i, (before, after) in enumerate(zip((3, *channels), channels)):
        conv = nn.Conv2d(before, after, 3, stride=2, padding=1).double()
        expected = conv(expected.relu() if i else expected)
        weight = conv.weight.detach().permute(2, 3, 1, 0)
        inputs += [weight.float().contiguous(), conv.bias.detach().float()]
    return inputs, channels_last(expected).detach()


@pytest.mark.parametrize('size', [*SIZES, (2, 9, 40), (1, 2, 26)])
@pytest.mark.parametrize('channels', [3, 16, 18, 25, 40, 50])
def test_stem_conv(op_backend, size, channels):
    inputs, expected = stem_case(size, channels)
    check(stem(*inputs), expected)


# Rows of a map that are more than are kept at a time, maps that are larger
# and smaller than what is computed in one go, bands of uneven height.
@pytest.mark.parametrize('size', [(1, 70, 50), (2, 33, 129), (3, 17, 300)])
@pytest.mark.parametrize('channels', [(18, 36), (16, 31, 64, 50)])
@pytest.mark.parametrize('threads', [1, 2, 5], indirect=True)
def test_stem_of_several_convs(op_backend, size, channels, threads):
    inputs, expected = stem_case(size, *channels)
    check(stem(*inputs), expected)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layout_of_stem(op_backend, layout):
    inputs, expected = stem_case((2, 7, 11), 24, 40)
    found = stem(layout(inputs[0]), *inputs[1:])
    check(found, expected)
    if op_backend == 'cpp':
        assert torch.equal(found, stem(*inputs))


def test_stem_without_its_parameters(op_backend):
    inputs, _ = stem_case((2, 7, 11), 24, 40)
    for weights, biases in (([], []), (inputs[1::2], inputs[2:3])):
        with pytest.raises(ValueError, match='stem_conv: as many biases as'):
            stem_conv(inputs[0], weights, biases)


# ---------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------


def case(name: str, size=(2, 5, 7), channels: int = 37) -> tuple:
    """The function, inputs of it, and whatever else it takes."""
    if name == 'depthwise_conv':
        return depthwise_conv, conv_inputs(size, channels, 3), (2, 'silu')
    if name == 'mixer_conv':
        split = [channels, channels - 1, 5]
        return mixer_conv, mixer_case(size, split, 3)[0], ()
    if name == 'stem_conv':
        return stem, stem_case(size, channels, channels)[0], ()
    return scan_gate, scan_case(size, channels)[0], (1e-5,)


OPS = ['depthwise_conv', 'mixer_conv', 'scan_gate', 'stem_conv']


def arguments(name: str, inputs: list, others: tuple) -> tuple:
    """What the registered op takes."""
    if name == 'stem_conv':
        return (inputs[0], inputs[1::2], inputs[2::2])
    return (*inputs, *others)


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


# What does not fit: position of an input, its new shape, what the error says.
ERRORS = [
    ('depthwise_conv', 0, (5, 7, 37), 'x must'),
    ('depthwise_conv', 0, (2, 0, 7, 37), 'x must'),
    ('depthwise_conv', 0, (2, 5, 7, 36), 'weight must have shape'),
    ('depthwise_conv', 1, (3, 37), 'weight must'),
    ('depthwise_conv', 1, (3, 5, 37), 'weight must'),
    ('depthwise_conv', 1, (4, 4, 37), 'weight must'),
    ('depthwise_conv', 2, (36,), 'bias must have shape'),
    ('mixer_conv', 0, (2, 5, 37), 'x must'),
    ('mixer_conv', 0, (2, 5, 7, 72), 'more than the 72'),
    ('mixer_conv', 1, (2, 5, 6, 37), 'ssm must have shape'),
    ('mixer_conv', 1, (2, 5, 7, 36), 'wavelet_weight must have shape'),
    ('mixer_conv', 1, (2, 5, 7, 79), 'wavelet_weight must|more than the 78'),
    ('mixer_conv', 2, (3, 3, 3, 37), 'wavelet_weight must have shape'),
    ('mixer_conv', 2, (4, 3, 5, 37), 'wavelet_weight must'),
    ('mixer_conv', 3, (3, 3, 35), 'local_bias must have shape'),
    ('mixer_conv', 3, (3, 5, 36), 'local_weight must'),
    ('mixer_conv', 4, (35,), 'local_bias must have shape'),
    ('mixer_conv', 5, (35,), 'local_scale must have shape'),
    ('mixer_conv', 6, (1,), 'local_shift must have shape'),
    ('scan_gate', 0, (2, 35), 'x must'),
    ('scan_gate', 0, (2, 0, 74), 'x must'),
    ('scan_gate', 1, (2, 35, 9), 'projected must have shape'),
    ('scan_gate', 2, (3, 74, 3), 'dt_weight must have shape'),
    ('scan_gate', 2, (2, 74), 'dt_weight'),
    ('scan_gate', 3, (74,), 'dt_bias must have shape'),
    ('scan_gate', 4, (74, 1), 'A must have shape'),
    ('scan_gate', 4, (148,), 'A must'),
    ('scan_gate', 5, (74,), 'D must have shape'),
    ('scan_gate', 6, (73,), 'norm_weight must have shape'),
    ('scan_gate', 7, (148,), 'norm_bias must have shape'),
    ('scan_gate', 8, (2, 34, 74), 'z must have shape'),
    ('stem_conv', 0, (3, 5, 7), 'x must'),
    ('stem_conv', 0, (2, 3, 0, 7), 'x must'),
    ('stem_conv', 0, (2, 4, 5, 7), r'weights\[0\] must have shape'),
    ('stem_conv', 1, (3, 1, 3, 37), r'weights\[0\] must have shape'),
    ('stem_conv', 1, (3, 3, 37), r'weights\[0\] must'),
    ('stem_conv', 1, (3, 3, 3, 36), r'biases\[0\] must have shape'),
    ('stem_conv', 2, (36,), r'biases\[0\] must have shape'),
    ('stem_conv', 3, (3, 3, 36, 37), r'weights\[1\] must have shape'),
    ('stem_conv', 4, (36,), r'biases\[1\] must have shape'),
]


@pytest.mark.parametrize('name, position, shape, message', ERRORS)
def test_shapes_that_do_not_fit(op_backend, name, position, shape, message):
    function, inputs, others = case(name)
    inputs[position] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f'{name}: .*({message})'):
        function(*inputs, *others)


@pytest.mark.parametrize('name', OPS)
def test_inputs_that_do_not_fit(op_backend, name):
    function, inputs, others = case(name)
    with pytest.raises(TypeError, match=f'{name}: .* must be floating point'):
        function(inputs[0], inputs[1].long(), *inputs[2:], *others)
    with pytest.raises(ValueError, match=f'{name}: .* is on meta'):
        function(inputs[0], inputs[1].to('meta'), *inputs[2:], *others)


def test_options_that_do_not_fit(op_backend):
    inputs = conv_inputs((1, 4, 4), 16, 3)
    for stride in (0, 3):
        with pytest.raises(ValueError, match='stride must be 1'):
            depthwise_conv(*inputs, stride=stride)
    with pytest.raises(ValueError, match='act must be .*none.*gelu'):
        depthwise_conv(*inputs, act='gelu')
    inputs, _ = mixer_case((1, 4, 4), [16, 16, 0], 3)
    inputs[5] = None
    with pytest.raises(ValueError, match='all there or all None'):
        mixer_conv(*inputs)


# ---------------------------------------------------------------------------
# Instruction sets
# ---------------------------------------------------------------------------

RESULTS = """
import sys
import torch
from mmmamba import ops

torch.set_num_threads(1)
results = [
    getattr(ops, name)(*arguments)
    for name, arguments in torch.load(sys.argv[1])
]
torch.save((torch.backends.cpu.get_cpu_capability(), results), sys.argv[2])
"""


@pytest.mark.usefixtures('compiled')
def test_instruction_sets(tmp_path):
    """The portable kernels, and those this CPU has beside what it takes."""
    here = torch.backends.cpu.get_cpu_capability()
    package = copy_ops(tmp_path / 'packages')
    shutil.copy(library(), package)
    cases, expected = [], []
    for name in OPS:
        for size, channels in (((2, 5, 9), 37), ((1, 16, 17), 66)):
            function, inputs, others = case(name, size, channels)
            cases.append((name, arguments(name, inputs, others)))
            doubled = (t.double() for t in inputs)
            expected.append(function(*doubled, *others))
    torch.save(cases, tmp_path / 'cases')
    sets = ['default', *(['avx2'] if here in ('AVX2', 'AVX512') else [])]
    for capability in sets:
        result = subprocess.run(
            [
                *(sys.executable, '-c', RESULTS),
                *(tmp_path / 'cases', tmp_path / capability),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env={
                **os.environ,
                'PYTHONPATH': str(package.parent),
                'OMP_NUM_THREADS': '1',
                'MMMAMBA_OP_BACKEND': 'cpp',
                'ATEN_CPU_CAPABILITY': capability,
            },
        )
        assert result.returncode == 0, result.stderr[-1000:]
        chosen, results = torch.load(tmp_path / capability)
        assert chosen.lower() == capability or capability == 'default'
        assert not (capability == 'default' and chosen.startswith('AVX'))
        for found, exact in zip(results, expected):
            check(found, exact, 1e-5)
