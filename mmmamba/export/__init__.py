"""Export of whole models out of PyTorch."""

from .errors import ExportError
from .facts import Facts, gather_facts, image_shape
from .graph import Graph, make_graph
from .onnx_file import make_onnx

__all__ = [
    'ExportError',
    'Facts',
    'Graph',
    'gather_facts',
    'image_shape',
    'make_graph',
    'make_onnx',
]
