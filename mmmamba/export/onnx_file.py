"""Writing a graph as an ONNX file, and as OpenVINO's."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mmmamba.deploy.runtimes import openvino_core
from mmmamba.utils.files import whole_or_nothing
from mmmamba.utils.onnx import trace

from .custom_ops import VERSION, custom_nodes
from .errors import ExportError, need
from .facts import KEY, Facts
from .graph import Graph

if TYPE_CHECKING:
    import onnx
    import openvino

#: Versions of ONNX's standard operations that are tested.
OPSETS = (17, 18, 19, 20)


def make_onnx(
    graph: Graph,
    example: Tensor,
    *,
    opset: int = 17,
    dynamic: Sequence[str] = (),
) -> onnx.ModelProto:
    """Trace a graph and write it in ONNX's operations.

    Args:
        graph (Graph): The graph.
        example (Tensor): Images of the shape to export for.
        opset (int): Version of the operations. Defaults to 17.
        dynamic (Sequence[str]): Axes of the images that stay open, of
            ``'batch'``, ``'height'`` and ``'width'``. Defaults to none.

    Returns:
        onnx.ModelProto: Checked, with constants folded and with the facts.

    Raises:
        ExportError: If the opset is not tested, a package is missing, or the
            backbone is deployed in bfloat16.
    """
    if opset not in OPSETS:
        raise ExportError(
            f'opset {opset} is not supported; it may be '
            f'{", ".join(map(str, OPSETS))}'
        )
    if any(p.dtype == torch.int16 for p in graph.parameters()):
        raise ExportError(
            'the backbone is deployed in bfloat16, which our nodes do not '
            'have; export the checkpoint that was trained, or int8'
        )
    onnx = need('onnx')
    need('onnxscript.optimizer', 'onnxscript')
    facts = graph.facts
    nodes = (
        custom_nodes(opset) if facts.custom_ops else contextlib.nullcontext()
    )
    with nodes, warnings.catch_warnings(), torch.no_grad():
        # The exporter warns of each size that a trace makes constant, which
        # is what is wanted here, and that it is the older of two.
        warnings.simplefilter('ignore')
        try:
            file = _trace(graph, example, opset, dynamic)
        except torch.onnx.errors.OnnxExporterError as error:
            raise ExportError(_unsupported(error, facts)) from error
        model = onnx.load_from_string(file)
    domains = {node.domain for node in model.graph.node} - {'', 'mmmamba'}
    if domains:
        raise ExportError(
            f'the model has operations of {", ".join(sorted(domains))}, which '
            'no runtime has, such as deformable convolutions; --backbone '
            'exports the backbone alone'
        )
    if not facts.custom_ops:
        model = _fold(model)
        onnx.checker.check_model(model, full_check=True)
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, facts.to_json()
    model.producer_name, model.producer_version = 'mmmamba', facts.version
    return model


def _unsupported(error: Exception, facts: Facts) -> str:
    """Say which operation has no counterpart, and what to do."""
    found = re.search(r'\w+::\w+|operator \w+,', str(error))
    name = found[0].strip(',') if found else str(error).splitlines()[0]
    if name.startswith('mmmamba::'):
        return (
            f'a block of this arch runs as several ops, of which {name} has '
            'no node: its parts are too narrow, or it has not two directions; '
            '--custom-op scan serves'
        )
    return (
        f'{name} has no counterpart in ONNX; --backbone exports '
        f'the backbone alone (this model ends in {", ".join(facts.outputs)})'
    )


def _trace(
    graph: Graph, example: Tensor, opset: int, dynamic: Sequence[str]
) -> bytes:
    """Export a graph, some axes of its images open."""
    facts = graph.facts
    axes = dict(batch=0, height=2, width=3)
    if facts.preprocessed:
        axes = dict(batch=0, height=1, width=2)
    dynamic_axes: dict = {}
    if dynamic:
        dynamic_axes['images'] = {axes[name]: name for name in dynamic}
    for name in facts.outputs:
        if 'batch' in dynamic:
            dynamic_axes[name] = {0: 'batch'}
    options: dict = {}
    if facts.custom_ops:
        options['custom_opsets'] = {'mmmamba': VERSION}
    return trace(
        graph,
        example,
        input_names=['images'],
        output_names=facts.outputs,
        opset_version=opset,
        dynamic_axes=dynamic_axes,
        **options,
    )


def _fold(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants, and compute once what is computed twice.

    What onnxscript's ``optimize()`` does, without its search for patterns: one
    of these compares each node with all others, and none of them is here.
    """
    import onnx_ir as ir
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    graph = ir.serde.deserialize_model(model)
    for _ in range(2):
        fold_constants(graph, onnx_shape_inference=True)
        common.RemoveUnusedNodesPass()(graph)
    ir.passes.Sequential(
        common.LiftConstantsToInitializersPass(
            lift_all_constants=True, size_limit=0
        ),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
    )(graph)
    return ir.serde.serialize_model(graph)


def save_onnx(model, file: Path) -> None:
    """Save an ONNX model, whole or not at all."""
    with whole_or_nothing(file) as temporary:
        need('onnx').save(model, temporary)


def make_openvino(model: onnx.ModelProto, facts: Facts) -> openvino.Model:
    """Convert an ONNX model to OpenVINO's.

    Args:
        model (onnx.ModelProto): Of :func:`make_onnx`.
        facts (Facts): Its facts.

    Returns:
        openvino.Model: With the facts.

    Raises:
        ExportError: If OpenVINO is missing.
    """
    need('openvino')
    core = openvino_core(facts.custom_ops)
    result = core.read_model(model.SerializeToString())
    result.set_rt_info(facts.to_json(), [KEY, 'facts'])
    return result
