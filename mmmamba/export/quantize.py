"""Convolutions in 8 bits.

Dense ones alone: the scan, depthwise convolutions, gates and boxes would gain
no time, and it is they that lose accuracy.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import numpy as np
from mmengine.logging import print_log
from rich.progress import track

from mmmamba.datasets.images import SUFFIXES
from mmmamba.deploy import pixels
from mmmamba.utils.pictures import PictureError, read_image

from .errors import ExportError, need
from .facts import Facts

if TYPE_CHECKING:
    import onnx
    import openvino


# What OpenVINO makes part of the convolution before it.
_ACTIVATIONS = ('Relu', 'PRelu', 'Clamp', 'Sigmoid', 'Swish', 'HSwish')


def find_images(folder: Path, count: int) -> list[Path]:
    """Choose images that show what values a network meets.

    Args:
        folder (Path): Where they are, in folders of it too.
        count (int): How many at most.

    Returns:
        list[Path]: Those that can be read, from all over the folder.

    Raises:
        ExportError: If there is none.
    """
    files = sorted(
        path for path in folder.rglob('*') if path.suffix.lower() in SUFFIXES
    )
    number = min(count, len(files))
    chosen = [files[i * len(files) // number] for i in range(number)]
    found = []
    for path in track(chosen, 'Reading the images', transient=True):
        try:
            read_image(path)
            found.append(path)
        except PictureError as error:
            print_log(
                f'{path} is left out: {error}',
                logger='current',
                level=logging.WARNING,
            )
    if not found:
        what = 'image that can be read' if files else 'image'
        raise ExportError(f'--calibration {folder}: there is no {what} in it')
    return found


class Batches:
    """Images as a network sees them.

    Args:
        images (Sequence[Path]): Of :func:`find_images`.
        facts (Facts): How they are prepared.
        size (int): Images at once.
    """

    def __init__(
        self, images: Sequence[Path], facts: Facts, size: int
    ) -> None:
        self.images, self.size = images, size
        self.facts = cast(SimpleNamespace, facts)

    def __len__(self) -> int:
        """Tell how many batches there are."""
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read them, the last batch filled up with its last image."""
        for start in range(0, len(self.images), self.size):
            batch = [
                pixels.prepare(read_image(path), self.facts)[0]
                for path in self.images[start : start + self.size]
            ]
            batch += batch[-1:] * (self.size - len(batch))
            yield np.stack(batch)


def quantize_openvino(
    model: openvino.Model, facts: Facts, images: Sequence[Path]
) -> openvino.Model:
    """Quantize a model of OpenVINO.

    Args:
        model (openvino.Model): Of :func:`mmmamba.export.make_openvino`.
        facts (Facts): Its facts.
        images (Sequence[Path]): Of :func:`find_images`.

    Returns:
        openvino.Model: With the same facts.
    """
    nncf = need('nncf')
    nncf.set_log_level(logging.WARNING)
    batch = model.input(0).partial_shape[0]
    others = [
        op.get_friendly_name()
        for op in model.get_ops()
        if op.get_type_name() != 'Convolution'
        or (batch.is_dynamic and _is_shared(op))
    ]
    batches = Batches(
        images, facts, batch.get_length() if batch.is_static else 1
    )
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )


def _is_shared(op: openvino.Node) -> bool:
    """Tell whether several ops read what comes of a convolution.

    That is its values with the bias and the activation. Where the batch is
    open, OpenVINO's CPU plugin (2026.4) gives one of these ops the scale of
    8 bits twice.
    """
    readers = _readers(op)
    while len(readers) == 1 and _is_fused(readers[0]):
        readers = _readers(readers[0])
    return len(readers) > 1


def _readers(op: openvino.Node) -> list[openvino.Node]:
    """The ops that read the values of another."""
    nodes = [r.get_node() for r in op.output(0).get_target_inputs()]
    nodes = [n for n in nodes if n.get_type_name() != 'ShapeOf']
    if {n.get_type_name() for n in nodes} == {'Sigmoid', 'Multiply'}:  # SiLU
        nodes = [n for n in nodes if n.get_type_name() == 'Multiply']
    return nodes


def _is_fused(op: openvino.Node) -> bool:
    """Whether an op after a convolution becomes part of it."""
    kind = op.get_type_name()
    sources = [op.input_value(i) for i in range(op.get_input_size())]
    if kind == 'Add':  # of a bias, whose shape has no open batch
        return any(s.partial_shape.is_static for s in sources)
    if kind == 'Multiply':  # of SiLU
        return any(s.get_node().get_type_name() == 'Sigmoid' for s in sources)
    return kind in _ACTIVATIONS


def quantize_onnx(
    model: onnx.ModelProto, facts: Facts, images: Sequence[Path]
) -> onnx.ModelProto:
    """Quantize a model of ONNX, in pairs of QuantizeLinear and its inverse.

    Args:
        model (onnx.ModelProto): Of :func:`mmmamba.export.make_onnx`.
        facts (Facts): Its facts.
        images (Sequence[Path]): Of :func:`find_images`.

    Returns:
        onnx.ModelProto: With the same facts.
    """
    onnx = need('onnx')
    tools = need('onnxruntime.quantization', 'onnxruntime')
    axis = model.graph.input[0].type.tensor_type.shape.dim[0]
    batches = Batches(images, facts, axis.dim_value or 1)
    feeds = ({'images': batch} for batch in track(batches, 'Calibrating'))
    reader = SimpleNamespace(get_next=lambda: next(feeds, None))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / 'model.onnx'
        tools.quantize_static(
            model,
            file,
            reader,
            op_types_to_quantize=['Conv', 'Relu'],
            nodes_to_quantize=_dense_convs(model),
            per_channel=True,
            # On x86 signed activations take twice as long, and products with
            # weights of 8 bits may overflow where there is no VNNI.
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            reduce_range=True,
        )
        return onnx.load(file)


def _dense_convs(model: onnx.ModelProto) -> list[str]:
    """Names of dense convolutions, and of the ReLUs that become part of them.

    Args:
        model (onnx.ModelProto): The model.

    Returns:
        list[str]: Names of nodes.
    """
    names, outputs = [], set()
    for node in model.graph.node:
        groups = [a.i for a in node.attribute if a.name == 'group']
        if node.op_type == 'Conv' and groups in ([], [1]):
            names.append(node.name)
            outputs.update(node.output)
        elif node.op_type == 'Relu' and node.input[0] in outputs:
            names.append(node.name)
    return names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime from asking for what was done already."""
    old = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(old)
