"""ONNX Runtime and OpenVINO behind one face."""

from __future__ import annotations

import functools
import os
import re
import threading
from pathlib import Path

import numpy as np

from . import libraries


def _has_custom_ops(file: Path) -> bool:
    """Tell from the facts in a file, which runtimes read only with the ops."""
    return bool(re.search(rb'custom_ops("|&quot;): true', file.read_bytes()))


class ORT:
    """A session of ONNX Runtime.

    Args:
        file (Path): An ``.onnx`` file.
        threads (int | None): Threads; None for all cores it may use.
        device (str): ``'cpu'``, ``'cuda'``, or a GPU such as ``'cuda:1'``.

    Raises:
        ValueError: If there is no such device.

    Attributes:
        facts (str | None): What mmmamba wrote into the file.
        input_shape (list[int | None]): Of the images; None where it is open.
        input_is_uint8 (bool): Whether they are uint8, not float32.
    """

    def __init__(self, file: Path, threads: int | None, device: str) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(
                f'{file} needs ONNX Runtime ({error}); run: '
                'pip install onnxruntime'
            ) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or _usable_cores()
        if _has_custom_ops(file):
            options.register_custom_ops_library(libraries.ort_library())
        name, _, index = device.partition(':')
        provider = f'{name.upper()}ExecutionProvider'
        which = {'device_id': index} if index else {}
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=[(provider, which)]
        )
        if provider not in self.session.get_providers():  # the CPU instead
            raise ValueError(
                f'device={device!r}: this ONNX Runtime has no {provider} that '
                'works here; NVIDIA GPUs need: pip install onnxruntime-gpu'
            )
        meta = self.session.get_modelmeta().custom_metadata_map
        self.facts = meta.get('mmmamba')
        images = self.session.get_inputs()[0]
        self.input = images.name
        self.input_shape = [
            size if isinstance(size, int) else None for size in images.shape
        ]
        self.input_is_uint8 = images.type == 'tensor(uint8)'

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Run on a batch of images."""
        return self.session.run(None, {self.input: images})


def _usable_cores() -> int:
    """As many as a container or ``taskset`` leaves to this process."""
    if hasattr(os, 'sched_getaffinity'):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_core_lock = threading.Lock()


def openvino_core(custom_ops: bool = False):
    """OpenVINO's core: one for the process, which lives as long as it.

    Where cores end in another order than the reverse of that in which they
    began, OpenVINO's CPU plugin (2026.4) leaves a freed stack to the signals
    of the process, and Ctrl-C becomes a segmentation fault.

    Args:
        custom_ops (bool): Whether it is to know mmmamba's ops from now on.
            Defaults to False.
    """
    with _core_lock:  # or each of several threads would make one
        core = _new_core()
        if custom_ops:
            _add_ops()
    return core


@functools.cache
def _new_core():
    import openvino

    return openvino.Core()


@functools.cache
def _add_ops() -> None:
    _new_core().add_extension(libraries.openvino_extension())


class OpenVINO:
    """A compiled model of OpenVINO; the same attributes as :class:`ORT`.

    Args:
        file (Path): An ``.xml`` or ``.onnx`` file.
        threads (int | None): Threads; None for all cores.
        device (str): Of OpenVINO, such as ``'cpu'``.
    """

    def __init__(self, file: Path, threads: int | None, device: str) -> None:
        try:
            import openvino
        except ImportError as error:
            raise ImportError(
                f'{file} needs OpenVINO ({error}); run: pip install openvino'
            ) from None
        core = openvino_core(_has_custom_ops(file))
        model = core.read_model(str(file))
        # By default OpenVINO computes in bfloat16 where the CPU knows it.
        options: dict = {'INFERENCE_PRECISION_HINT': 'f32'}
        if threads:
            options['INFERENCE_NUM_THREADS'] = threads
        self.facts = None
        if model.has_rt_info(['mmmamba', 'facts']):
            self.facts = model.get_rt_info(['mmmamba', 'facts']).value
        images = model.inputs[0]
        self.input_shape = [
            size.get_length() if size.is_static else None
            for size in images.partial_shape
        ]
        self.input_is_uint8 = images.element_type == openvino.Type.u8
        self.request = core.compile_model(
            model, device.upper(), options
        ).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Run on a batch of images."""
        with self._lock:  # its results lie in the request
            results = self.request.infer({0: images})
            return [results[i].copy() for i in range(len(results))]


#: By the names that the tools give them.
RUNTIMES: dict[str, type[ORT] | type[OpenVINO]] = dict(
    ort=ORT, openvino=OpenVINO
)
