"""The ops as nodes of ONNX Runtime and OpenVINO, against those of PyTorch."""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import relative_error
from test_ops import inference_cases as cases
from test_ops.scan_cases import bidirectional_inputs
from torch import Tensor

from mmmamba.deploy.libraries import openvino_extension, ort_library
from mmmamba.deploy.runtimes import openvino_core
from mmmamba.ops import pack_weight

pytestmark = pytest.mark.usefixtures('compiled')
onnx = pytest.importorskip('onnx')

NAME = 'stage1/the_node'
ONNX_TYPES = {
    torch.float32: 'FLOAT',
    torch.int8: 'INT8',
    torch.int16: 'INT16',
    torch.float64: 'DOUBLE',
}
SIZES = [(1, 7, 9), (3, 12, 5), (3, 1, 1), (2, 33, 17)]


# ---------------------------------------------------------------------------
# Graphs of one node
# ---------------------------------------------------------------------------


def graph(op: str, inputs: list[Tensor | None], **attributes):
    """A model of one node, whose inputs have any sizes."""

    def value(name: str, sizes: list | None = None, dtype=torch.float32):
        kind = getattr(onnx.TensorProto, ONNX_TYPES[dtype])
        return onnx.helper.make_tensor_value_info(name, kind, sizes)

    names = ['' if t is None else f'x{i}' for i, t in enumerate(inputs)]
    while not names[-1]:
        names.pop()
    node = onnx.helper.make_node(
        op, names, ['y'], name=NAME, domain='mmmamba', **attributes
    )
    present = [
        value(name, [f'{name}_{axis}' for axis in range(t.dim())], t.dtype)
        for name, t in zip(names, inputs)
        if name
    ]
    return onnx.helper.make_model(
        onnx.helper.make_graph([node], 'graph', present, [value('y')]),
        opset_imports=[
            onnx.helper.make_opsetid('', 17),
            onnx.helper.make_opsetid('mmmamba', 1),
        ],
        ir_version=8,
    )


def feed(inputs: list[Tensor | None]) -> dict[str, np.ndarray]:
    return {
        f'x{i}': t.contiguous().numpy()
        for i, t in enumerate(inputs)
        if t is not None
    }


def onnxruntime_session(model, threads: int) -> Callable:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.register_custom_ops_library(ort_library())
    session = onnxruntime.InferenceSession(
        model.SerializeToString(),
        options,
        providers=['CPUExecutionProvider'],
    )
    return lambda inputs: torch.tensor(session.run(None, feed(inputs))[0])


def openvino_session(model, threads: int) -> Callable:
    core = openvino_core(custom_ops=True)
    return openvino_request(
        core, core.read_model(model.SerializeToString()), threads
    )


def openvino_request(core, model, threads: int = 1) -> Callable:
    compiled = core.compile_model(
        model,
        'CPU',
        {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads},
    )

    def run(inputs):
        return torch.tensor(
            compiled.create_infer_request().infer(feed(inputs))[0]
        )

    return run


def skip_without(package: str, library: Callable) -> None:
    """Skip a test where a runtime, or our library for it, is missing."""
    pytest.importorskip(package)
    try:
        library()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def with_openvino():
    skip_without('openvino', openvino_extension)


@pytest.fixture(params=['onnxruntime', 'openvino'])
def session(request) -> Callable:
    """Makes a function of one node, in each of the runtimes."""
    start, library = dict(
        onnxruntime=(onnxruntime_session, ort_library),
        openvino=(openvino_session, openvino_extension),
    )[request.param]
    skip_without(request.param, library)

    def make(op, inputs, threads: int = 1, **attributes) -> Callable:
        return start(graph(op, inputs, **attributes), threads)

    return make


def check(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    assert relative_error(found, expected) <= 1e-6


def op(name: str) -> Callable:
    return getattr(torch.ops.mmmamba, name).default


# ---------------------------------------------------------------------------
# Each node
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('length', [1, 2, 3, 9, 64, 65, 1024])
@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('d_state', [1, 2])
def test_bidirectional_scan(session, length, batch, d_state):
    inputs = bidirectional_inputs((batch, 37, 3, d_state, length))
    inputs = list(inputs.values())
    for given in (inputs, [*inputs[:5], None]):
        found = session('BidirectionalScan', given)(given)
        check(found, op('bidirectional_scan')(*given))


@pytest.mark.parametrize('size', [(1, 70, 51), (3, 33, 40), (2, 1, 1)])
def test_stem_conv(session, size):
    inputs, _ = cases.stem_case(size, 16, 31, 64, 50)
    expected = op('stem_conv')(inputs[0], inputs[1::2], inputs[2::2])
    check(session('StemConv', inputs)(inputs), expected)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'kernel, stride, act',
    [(3, 1, 'none'), (3, 2, 'relu'), (5, 1, 'silu'), (7, 1, 'relu')],
)
def test_depthwise_conv(session, size, kernel, stride, act):
    inputs = cases.conv_inputs(size, 37, kernel)
    for given in (inputs, [*inputs[:2], None]):
        run = session('DepthwiseConv', given, stride=stride, act=act)
        check(run(given), op('depthwise_conv')(*given, stride, act))


@pytest.mark.parametrize('rows', [(1,), (70,), (3, 9, 20)])
@pytest.mark.parametrize('relu', [0, 1])
def test_linear(session, rows, relu):
    x, weight, bias, residual = cases.linear_inputs(1, 40, 283)
    x, residual = torch.randn(*rows, 40), torch.randn(*rows, 283)
    for given in (
        [x, weight, bias, residual],
        [x, weight, None, residual],
        [x, weight, bias, None],
        [x, weight, None, None],
    ):
        found = session('Linear', given, relu=relu)(given)
        check(found, op('linear')(*given[:3], bool(relu), given[3]))


@pytest.mark.parametrize('rows', [(1,), (70,), (3, 9, 20)])
def test_feed_forward(session, rows):
    _, *parameters = cases.mlp_inputs(1, 40, 283)
    x, shortcut = torch.randn(2, *rows, 40)
    for given in ([x, *parameters, shortcut], [x, *parameters, None]):
        found = session('FeedForward', given)(given)
        check(found, op('feed_forward')(*given))


def block_case(size, d_state=1, wavelet=True, local=True) -> tuple:
    """Arguments of the op, and inputs and attributes of the node."""
    arguments = cases.block_inputs()
    batch, height, width = size
    arguments['x'] = torch.randn(batch, height, width, 100)
    arguments['eps'] = 1e-3
    ssm = arguments['ssm']
    ssm[4] = torch.randn(120, 8 + 4 * d_state) / 11
    ssm[7] = -torch.rand(240, d_state)
    if not wavelet:
        arguments['wavelet'] = None
    if not local:
        arguments['local'] = []
    inputs = []
    for name, value in arguments.items():
        if name == 'local' and not value:
            inputs += [None] * 4
        elif name != 'eps':
            inputs += value if isinstance(value, list) else [value]
    return arguments, inputs, dict(eps=1e-3)


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'settings',
    [
        {},
        dict(d_state=2),
        dict(wavelet=False),
        dict(local=False),
        dict(wavelet=False, local=False),
    ],
    ids=str,
)
def test_block(session, size, settings):
    arguments, inputs, attributes = block_case(size, **settings)
    assert len(inputs) == 33
    found = session('Block', inputs, **attributes)(inputs)
    check(found, op('block')(*arguments.values()))


@pytest.mark.parametrize('rows', [(1,), (70,), (3, 9, 20)])
def test_linear_in_int8(session, rows):
    x, weight, bias, _ = cases.linear_inputs(1, 41, 283)
    given = [torch.randn(*rows, 41), pack_weight(weight, 'int8'), bias, None]
    found = session('Linear', given, relu=1)(given)
    check(found, op('linear')(*given[:3], True, None))


@pytest.mark.parametrize('size', SIZES)
def test_block_in_int8(session, size):
    """The linear layers but x_proj, as switch_to_deploy('int8') packs them."""
    arguments, _, attributes = block_case(size)
    for name, places in dict(
        ffn1=(0, 2), ssm=(0, 11), proj=(0,), ffn2=(0, 2)
    ).items():
        for place in places:
            weight = pack_weight(arguments[name][place], 'int8')
            arguments[name][place] = weight
    inputs = []
    for name, value in arguments.items():
        if name != 'eps':
            inputs += value if isinstance(value, list) else [value]
    found = session('Block', inputs, **attributes)(inputs)
    check(found, op('block')(*arguments.values()))


def test_stem_conv_in_bfloat16(session):
    """The attribute does what bfloat16 weights do for the op."""
    inputs, _ = cases.stem_case((2, 70, 51), 16, 31, 64, 50)
    weights = [t.bfloat16() for t in inputs[1::2]]
    expected = op('stem_conv')(inputs[0], weights, inputs[2::2])
    inputs[1::2] = [t.float() for t in weights]
    found = session('StemConv', inputs, bfloat16=1)(inputs)
    check(found, expected)


# ---------------------------------------------------------------------------
# All nodes
# ---------------------------------------------------------------------------


def test_one_session_for_all_sizes(session):
    run = None
    for size in SIZES:
        arguments, inputs, attributes = block_case(size)
        run = run or session('Block', inputs, **attributes)
        check(run(inputs), op('block')(*arguments.values()))


@pytest.mark.parametrize('count', [2, 3])
def test_threads(session, count):
    """Samples for each thread, and layers that threads share."""
    for size in ((1, 20, 21), (6, 20, 21)):
        arguments, inputs, attributes = block_case(size)
        run = session('Block', inputs, threads=count, **attributes)
        expected = op('block')(*arguments.values())
        for _ in range(5):
            check(run(inputs), expected)


def test_sessions_at_once(session):
    _, inputs, attributes = block_case((2, 20, 21))
    runs = [
        session('Block', inputs, threads=2, **attributes) for _ in range(2)
    ]
    expected = runs[0](inputs)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda i: runs[i % 2](inputs), range(20)):
            check(found, expected)


# On one thread OpenVINO 2026.4 loses errors, those of its own operations too.
ENOUGH_FOR_ERRORS = 2

# The place of a changed input, its shape, and what the message names.
BAD = [
    ('BidirectionalScan', 1, (2, 2, 12, 20), 'projected'),
    ('BidirectionalScan', 0, (2, 5), 'x'),
    ('StemConv', 3, (3, 3, 17, 31), r'weights\[1\]'),
    ('StemConv', 0, (7, 11), 'x'),
    ('DepthwiseConv', 1, (3, 3, 36), 'weight'),
    ('DepthwiseConv', 1, (4, 4, 37), 'weight'),
    ('DepthwiseConv', 0, (7, 37), 'x'),
    ('Linear', 1, (39, 283), 'weight'),
    ('Linear', 3, (8, 283), 'residual'),
    ('Linear', 0, (40,), 'x'),
    ('FeedForward', 4, (41,), 'bias2'),
    ('FeedForward', 0, (), 'x'),
    ('Block', 0, (1, 5, 6, 101), 'x|conv1.weight'),
    ('Block', 14, (241, 1), r'ssm\.A'),
    ('Block', 20, (4, 3, 3, 61), 'wavelet'),
    ('Block', 22, None, r'local\.bias'),
    ('Block', 32, (99,), r'ffn2\.bias2'),
]


def good(op: str) -> list[Tensor]:
    return {
        'BidirectionalScan': lambda: list(bidirectional_inputs().values()),
        'StemConv': lambda: cases.stem_case((2, 7, 11), 16, 31, 16, 16)[0],
        'DepthwiseConv': lambda: cases.conv_inputs((2, 5, 7), 37, 3),
        'Linear': lambda: cases.linear_inputs(9, 40, 283),
        'FeedForward': lambda: [*cases.mlp_inputs(9, 40, 80), None],
        'Block': lambda: block_case((1, 5, 6))[1],
    }[op]()


@pytest.mark.parametrize('op, place, shape, named', BAD)
def test_bad_shapes(session, op, place, shape, named):
    inputs = good(op)
    inputs[place] = None if shape is None else torch.zeros(shape)
    message = rf'(?s)mmmamba\.{op} .*{NAME}.*: .*({named})(?!\w)'
    with pytest.raises(Exception, match=message):
        session(op, inputs, threads=ENOUGH_FOR_ERRORS)(inputs)


def packed(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int8)


@pytest.mark.parametrize(
    'op, place, value, named',
    [
        ('Linear', 1, packed(11, 283, 4), 'weight must have shape'),
        ('Linear', 1, packed(40, 283), 'weight must have shape'),
        ('Linear', 2, packed(283), 'bias must be float32'),
        ('Block', 7, packed(5, 240, 4), r'ssm\.in_weight must have shape'),
        ('Block', 11, packed(120, 12), r'ssm\.x_proj must be float32'),
    ],
)
def test_bad_packed_weights(session, op, place, value, named):
    inputs = good(op)
    inputs[place] = value
    with pytest.raises(Exception, match=rf'(?s){NAME}.*: .*{named}'):
        session(op, inputs, threads=ENOUGH_FOR_ERRORS)(inputs)


@pytest.mark.parametrize('dtype', [torch.int16, torch.float64])
def test_other_types_are_refused(session, dtype):
    inputs = good('Linear')
    inputs[1] = inputs[1].to(dtype)
    with pytest.raises(Exception, match='packed weight'):
        session('Linear', inputs, threads=ENOUGH_FOR_ERRORS)(inputs)


@pytest.mark.parametrize(
    'attributes, named',
    [(dict(stride=3), 'stride'), (dict(act='gelu'), 'act')],
)
def test_bad_values(session, attributes, named):
    inputs = good('DepthwiseConv')
    with pytest.raises(Exception, match=rf'{NAME}.*: {named} must be'):
        run = session(
            'DepthwiseConv', inputs, threads=ENOUGH_FOR_ERRORS, **attributes
        )
        run(inputs)


def test_attribute_of_another_type(session):
    inputs = good('Linear')
    with pytest.raises(Exception, match=NAME):
        session('Linear', inputs, relu='yes')(inputs)


# ---------------------------------------------------------------------------
# The libraries
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('settings', [{}, dict(wavelet=False)], ids=str)
@pytest.mark.usefixtures('with_openvino')
def test_file_of_openvino(settings, tmp_path):
    """OpenVINO's own format keeps attributes, and which inputs there are."""
    import openvino

    arguments, inputs, attributes = block_case((1, 5, 6), **settings)
    core = openvino_core(custom_ops=True)
    model = graph('Block', inputs, **attributes)
    openvino.save_model(
        core.read_model(model.SerializeToString()), tmp_path / 'model.xml'
    )
    run = openvino_request(core, core.read_model(tmp_path / 'model.xml'))
    check(run(inputs), op('block')(*arguments.values()))


@pytest.mark.slow
@pytest.mark.parametrize('capability', ['default', 'avx2'])
def test_other_instruction_sets(capability):
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', __file__, '-k', 'sizes or stem'],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-2000:]


def test_library_is_free_of_torch_and_python():
    library = Path(ort_library()).read_bytes()
    assert b'RegisterCustomOps' in library
    assert b'libtorch' not in library and b'PyObject' not in library


@pytest.mark.parametrize('find', [ort_library, openvino_extension])
def test_library_is_missing(find, monkeypatch):
    monkeypatch.setattr(Path, 'is_file', lambda _: False)
    with pytest.raises(FileNotFoundError, match=r'_ops.so is not .* pip inst'):
        find()


@pytest.mark.usefixtures('with_openvino')
def test_library_for_another_openvino(monkeypatch):
    monkeypatch.setattr(importlib.metadata, 'version', lambda _: '2020.1')
    with pytest.raises(RuntimeError, match='openvino==.*2020.1|2020.1.*=='):
        openvino_extension()
