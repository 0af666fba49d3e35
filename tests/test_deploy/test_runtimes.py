"""ONNX Runtime and OpenVINO behind one face."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mmmamba.deploy.runtimes import ORT, OpenVINO

TWO_MODELS = """
import gc, os, signal, sys, time
import numpy as np
import openvino
from openvino import opset13
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from mmmamba.deploy.runtimes import OpenVINO, openvino_core

with ThreadPoolExecutor(4) as pool:
    cores = list(pool.map(lambda _: openvino_core(), range(4)))
assert len(set(map(id, cores))) == 1
file = Path(sys.argv[1])
x = opset13.parameter([1, 3, 4, 4], np.float32)
openvino.save_model(openvino.Model([opset13.relu(x)], [x]), file)
first, second = OpenVINO(file, 1, 'cpu'), OpenVINO(file, 1, 'cpu')
ones = np.ones((1, 3, 4, 4), np.float32)
assert (first(ones)[0] == second(ones)[0]).all()
del first
gc.collect()
del second
gc.collect()
# A process in the background of a shell starts with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(100):  # another thread may be the one that gets it
        time.sleep(0.1)
except KeyboardInterrupt:
    print('interrupted')
"""


@pytest.mark.slow
def test_ctrl_c_after_two_models_of_openvino(tmp_path, run_python):
    pytest.importorskip('openvino')
    result = run_python('-c', TWO_MODELS, tmp_path / 'model.xml')
    assert result.stdout == 'interrupted\n', (result.returncode, result.stderr)


@pytest.fixture
def relu(tmp_path):
    onnx = pytest.importorskip('onnx')
    node = onnx.helper.make_node('Relu', ['x'], ['y'])
    x, y = (
        onnx.helper.make_tensor_value_info(name, 1, [1, 3, 4, 4])
        for name in 'xy'
    )
    graph = onnx.helper.make_graph([node], 'relu', [x], [y])
    opset = onnx.helper.make_opsetid('', 17)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.save(model, tmp_path / 'model.onnx')
    return tmp_path / 'model.onnx'


@pytest.mark.parametrize('device', ['cuda', 'cuda:1'])
def test_a_device_that_is_not_there(device, relu):
    """ONNX Runtime would take the CPU."""
    onnxruntime = pytest.importorskip('onnxruntime')
    if 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        pytest.skip('there is one')
    assert ORT(relu, 1, 'cpu').input == 'x'
    with pytest.raises(ValueError, match='pip install onnxruntime-gpu'):
        ORT(relu, 1, device)


def test_a_gpu_by_its_number(relu, monkeypatch):
    """ONNX Runtime takes the first one unless it is told."""
    onnxruntime = pytest.importorskip('onnxruntime')
    Session, asked = onnxruntime.InferenceSession, []

    def session(file, options, providers):
        asked.extend(providers)
        return Session(file, options, providers=['CPUExecutionProvider'])

    monkeypatch.setattr(onnxruntime, 'InferenceSession', session)
    with pytest.raises(ValueError, match='no CUDAExecutionProvider'):
        ORT(relu, 1, 'cuda:1')
    assert asked == [('CUDAExecutionProvider', {'device_id': '1'})]


def test_the_cores_that_a_container_leaves(relu, monkeypatch):
    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3}, False)
    session = ORT(relu, None, 'cpu').session
    assert session.get_session_options().intra_op_num_threads == 1


def test_threads_get_their_own_results_of_openvino(tmp_path):
    openvino = pytest.importorskip('openvino')
    from openvino import opset13

    file = tmp_path / 'model.xml'
    x = opset13.parameter([1, 3, 256, 256], np.float32)
    openvino.save_model(openvino.Model([opset13.relu(x)], [x]), file)
    model = OpenVINO(file, 1, 'cpu')

    def run(value: int) -> bool:
        images = np.full((1, 3, 256, 256), value, np.float32)
        return all((model(images)[0] == value).all() for _ in range(50))

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(run, (1, 2, 3)))
