"""Writing a graph in the format that was asked for."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmmamba.utils.files import whole_or_nothing

from .errors import ExportError, need
from .facts import KEY
from .graph import Graph
from .onnx_file import make_onnx, make_openvino, save_onnx
from .quantize import quantize_onnx, quantize_openvino
from .web_page import check_page, write_page

#: What a file of each format is called.
SUFFIXES = dict(
    onnx='.onnx',
    openvino='.xml',
    torchscript='.pt',
    pt2='.pt2',
    executorch='.pte',
    coreml='.mlpackage',
    web='',  # a folder
)

#: What a format needs: as it is imported, and what pip installs.
_NEEDS = dict(
    onnx=dict(onnx='onnx', onnxscript='onnxscript'),
    web=dict(onnx='onnx', onnxscript='onnxscript'),
    openvino=dict(onnx='onnx', onnxscript='onnxscript', openvino='openvino'),
    pt2={'torch._inductor.package': "'torch>=2.6'"},
    executorch=dict(executorch='executorch'),
    coreml=dict(coremltools='coremltools'),
)


def check_packages(kind: str, quantized: bool = False) -> None:
    """Import what a format needs, before the long work.

    Args:
        kind (str): A key of :data:`SUFFIXES`.
        quantized (bool): Whether to 8 bits. Defaults to False.

    Raises:
        ExportError: If a package is missing.
    """
    for package, install in _NEEDS.get(kind, {}).items():
        need(package, install)
    if quantized:
        need('nncf' if kind == 'openvino' else 'onnxruntime')


def write(
    graph: Graph,
    example: Tensor,
    file: Path,
    kind: str,
    *,
    opset: int = 17,
    dynamic: Sequence[str] = (),
    half: bool = False,
    calibration: Sequence[Path] = (),
) -> str:
    """Write a graph.

    Args:
        graph (Graph): The graph.
        example (Tensor): Images of the shape to export for.
        file (Path): What to write.
        kind (str): A key of :data:`SUFFIXES`.
        opset (int): ONNX: version of the operations. Defaults to 17.
        dynamic (Sequence[str]): See :func:`mmmamba.export.make_onnx`.
        half (bool): Whether weights are stored in float16. Defaults to False.
        calibration (Sequence[Path]): Images by which convolutions are brought
            to 8 bits. Defaults to none, and float32.

    Returns:
        str: How large it has become.

    Raises:
        ExportError: If the format cannot hold it, or a package is missing.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if kind == 'web':
        check_page(graph.facts)
    if kind in ('onnx', 'openvino', 'web'):
        model = make_onnx(graph, example, opset=opset, dynamic=dynamic)
        if calibration and kind != 'openvino':
            model = quantize_onnx(model, graph.facts, calibration)
        if half:
            store_half(model)
        if kind == 'openvino':
            converted = make_openvino(model, graph.facts)
            if calibration:
                converted = quantize_openvino(
                    converted, graph.facts, calibration
                )
            save_openvino(converted, file)
            return f'{len(converted.get_ops())} nodes, {megabytes(file)}'
        if kind == 'web':
            write_page(model, graph.facts, file)
        else:
            save_onnx(model, file)
        return f'{len(model.graph.node)} nodes, {megabytes(file)}'
    if half:
        raise ExportError(
            f'--dtype fp16 is for onnx, openvino and web, not {kind}'
        )
    if dynamic and kind != 'pt2':
        raise ExportError(
            f'{kind} files hold one shape; --batch, --shape take numbers'
        )
    if dynamic and graph.facts.task == 'detection':
        raise ExportError(
            'pt2 files hold detectors of one batch; --batch takes a number'
        )
    if kind in ('executorch', 'coreml') and graph.facts.task == 'detection':
        raise ExportError(
            f'{kind} has no NMS, in which most detectors end; --backbone '
            'exports the feature maps, and onnx, openvino, torchscript and '
            'pt2 files hold whole detectors'
        )
    _WRITERS[kind](graph, example, file, dynamic)
    return megabytes(file)


def megabytes(file: Path) -> str:
    """Tell the size of a file, and of what lies beside it."""
    files = (
        [file, file.with_suffix('.bin')] if file.suffix == '.xml' else [file]
    )
    if file.is_dir():
        files = [f for f in file.rglob('*') if f.is_file()]
    return f'{sum(f.stat().st_size for f in files) / 1e6:.1f} MB'


def store_half(model) -> None:
    """Store the weights of an ONNX model in float16; it computes as before.

    Runtimes widen them when they load it. What float16 would move by more than
    a hundredth stays as it is: the corners of anchors, in pixels.
    """
    onnx = need('onnx')
    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != onnx.TensorProto.FLOAT:
            continue
        values = onnx.numpy_helper.to_array(weight)
        half = values.clip(-65504, 65504).astype('float16')
        if values.size < 256 or np.abs(values - half).max() > 0.01:
            continue
        name = weight.name
        weight.CopyFrom(onnx.numpy_helper.from_array(half, f'{name}_half'))
        casts.append(
            onnx.helper.make_node(
                'Cast', [f'{name}_half'], [name], to=onnx.TensorProto.FLOAT
            )
        )
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def save_openvino(model, file: Path) -> None:
    """Save OpenVINO's model as a pair of files, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        temporary = Path(folder, file.name)
        need('openvino').save_model(
            model, str(temporary), compress_to_fp16=False
        )
        for suffix in ('.bin', file.suffix):
            os.replace(temporary.with_suffix(suffix), file.with_suffix(suffix))


def _torchscript(graph: Graph, example: Tensor, file: Path, dynamic) -> None:
    facts = {'mmmamba.json': graph.facts.to_json()}
    with warnings.catch_warnings(), torch.no_grad():
        # Sizes are constants of the file, which docs/export.md says.
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        traced = torch.jit.trace(graph, (example,), check_trace=False)
        try:
            with whole_or_nothing(file) as temporary:
                torch.jit.save(traced, str(temporary), _extra_files=facts)
        except RuntimeError as error:  # an op that is a call of Python
            raise ExportError(_unfit('TorchScript', error)) from error


def exported_program(
    graph: Graph, example: Tensor, dynamic: Sequence[str] = ()
) -> torch.export.ExportedProgram:
    """Return the program that ``torch.export`` makes of a graph.

    Args:
        graph (Graph): The graph.
        example (Tensor): Images of the shape to export for.
        dynamic (Sequence[str]): Axes of the images that stay open, of
            ``'batch'``, ``'height'`` and ``'width'``. Defaults to none.

    Returns:
        torch.export.ExportedProgram: The program.

    Raises:
        ExportError: If the model has parts that ``torch.export`` cannot
            follow, or axes that it cannot leave open.
    """
    parts = {type(part).__name__ for part in graph.modules()}
    if 'MultiScaleDeformableAttention' in parts:
        # mmcv's takes the sizes of its maps from a tensor.
        raise ExportError(
            'torch.export cannot follow deformable attention; onnx, openvino '
            'and torchscript files hold this model, and --backbone exports '
            'the feature maps'
        )
    axes = dict(batch=0, height=2, width=3)
    if graph.facts.preprocessed:
        axes = dict(batch=0, height=1, width=2)
    # At 64 pixels the last map is of one pixel, and a size of 1 is a constant.
    least = dict(batch=1, height=65, width=65)
    shapes = {
        axes[name]: torch.export.Dim(name, min=least[name]) for name in dynamic
    }
    try:
        with torch.no_grad():
            return torch.export.export(
                graph, (example,), dynamic_shapes=(shapes,) if shapes else None
            )
    except torch._dynamo.exc.UserError as error:
        if not shapes:
            raise ExportError(_unfit('torch.export', error)) from error
        raise ExportError(
            f'torch.export cannot leave {", ".join(dynamic)} open '
            'for this model, such as one whose blocks do not run as one op '
            f'({str(error).splitlines()[0]})'
        ) from error
    except RuntimeError as error:  # an op that it cannot look into
        raise ExportError(_unfit('torch.export', error)) from error


def _unfit(exporter: str, error: Exception) -> str:
    """Say that a model has parts that an exporter cannot write."""
    return (
        f'{exporter} cannot hold this model, such as one with operations of '
        f'mmcv ({str(error).strip().splitlines()[0]}); --backbone exports '
        'the feature maps'
    )


def _pt2(graph: Graph, example: Tensor, file: Path, dynamic) -> None:
    from torch._inductor import aoti_compile_and_package

    program = exported_program(graph, example, dynamic)
    options = {'aot_inductor.metadata': {KEY: graph.facts.to_json()}}
    with torch.no_grad():
        aoti_compile_and_package(
            program, package_path=str(file), inductor_configs=options
        )


def _executorch(graph: Graph, example: Tensor, file: Path, dynamic) -> None:
    exir = need('executorch.exir', 'executorch')
    partition = need(
        'executorch.backends.xnnpack.partition.xnnpack_partitioner',
        'executorch',
    )
    lowered = exir.to_edge_transform_and_lower(
        exported_program(graph, example),
        partitioner=[partition.XnnpackPartitioner()],
        constant_methods={KEY: graph.facts.to_json()},
    )
    with whole_or_nothing(file) as temporary, open(temporary, 'wb') as target:
        lowered.to_executorch().write_to_file(target)


def _coreml(graph: Graph, example: Tensor, file: Path, dynamic) -> None:
    coremltools = need('coremltools')
    program = exported_program(graph, example).run_decompositions({})
    model = coremltools.convert(
        program,
        convert_to='mlprogram',
        compute_precision=coremltools.precision.FLOAT32,
        outputs=[
            coremltools.TensorType(name=name) for name in graph.facts.outputs
        ],
    )
    model.user_defined_metadata['mmmamba'] = graph.facts.to_json()
    model.save(str(file))


_WRITERS = dict(
    torchscript=_torchscript,
    pt2=_pt2,
    executorch=_executorch,
    coreml=_coreml,
)
