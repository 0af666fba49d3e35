"""The ops of a deployed network as nodes of ONNX, in a domain of our own.

``mmmamba.ort_library()`` and ``mmmamba.openvino_extension()`` run them. Their
inputs are those of the ops in :mod:`mmmamba.ops`, in the same order.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch.onnx import register_custom_op_symbolic as register
from torch.onnx import symbolic_helper
from torch.onnx import unregister_custom_op_symbolic as unregister

from mmmamba.ops import available_backends

from .errors import ExportError

#: Of the domain ``mmmamba``.
VERSION = 1


@contextlib.contextmanager
def custom_nodes(opset: int) -> Iterator[None]:
    """Let PyTorch's exporter write our ops as nodes, inside a ``with``.

    Args:
        opset (int): Version of the standard operations.

    Raises:
        ExportError: If the compiled ops are not there, whose names they are.
    """
    if not available_backends()['cpp']:
        raise ExportError(
            '--custom-op needs the compiled ops of mmmamba, which are not '
            'here; python tools/collect_env.py says why'
        )
    for name, symbolic in _SYMBOLICS.items():
        register(f'mmmamba::{name}', symbolic, opset)
    try:
        yield
    finally:
        for name in _SYMBOLICS:
            unregister(f'mmmamba::{name}', opset)


def _tensors(value) -> list:
    """Values of a list in the graph; none of an absent one."""
    if value is None or value.node().mustBeNone():
        return []
    return symbolic_helper._unpack_list(value)


def _or_empty(g, value):
    """An absent input is an empty one in ONNX."""
    if value is None or value.node().mustBeNone():
        return g.op('prim::Constant').setType(torch._C.OptionalType.ofTensor())
    return value


def _node(g, name: str, *inputs, **attributes):
    """A node of our domain, of the type that the op had in the trace."""
    kind = g.original_node.output().type()
    node = g.op(f'mmmamba::{name}', *inputs, **attributes)
    # No sizes: they may be those of the example alone.
    return node.setType(kind.with_sizes([None] * kind.dim()))


def _get(value, kind: Literal['i', 'f', 's', 'b']):
    return symbolic_helper._maybe_get_const(value, kind)


def _bidirectional_scan(g, x, projected, dt_weight, dt_bias, A, D):
    inputs = (x, projected, dt_weight, dt_bias, A, _or_empty(g, D))
    return _node(g, 'BidirectionalScan', *inputs)


def _stem_conv(g, x, weights, biases):
    weights = _tensors(weights)
    float32 = torch.onnx.TensorProtoDataType.FLOAT
    rounded = [weight.type().dtype() == torch.bfloat16 for weight in weights]
    weights = [
        g.op('Cast', weight, to_i=float32) if is_rounded else weight
        for weight, is_rounded in zip(weights, rounded)
    ]
    pairs = zip(weights, _tensors(biases))
    return _node(
        g,
        'StemConv',
        *(x, *(t for pair in pairs for t in pair)),
        bfloat16_i=int(any(rounded)),
    )


def _depthwise_conv(g, x, weight, bias, stride, act):
    return _node(
        g,
        'DepthwiseConv',
        x,
        weight,
        _or_empty(g, bias),
        stride_i=_get(stride, 'i'),
        act_s=_get(act, 's'),
    )


def _linear(g, x, weight, bias, relu, residual):
    return _node(
        g,
        'Linear',
        *(x, weight, _or_empty(g, bias), _or_empty(g, residual)),
        relu_i=int(_get(relu, 'b')),
    )


def _feed_forward(g, x, weight1, bias1, weight2, bias2, residual):
    return _node(
        g,
        'FeedForward',
        *(x, weight1, bias1, weight2, bias2, _or_empty(g, residual)),
    )


def _block(g, x, conv1, ffn1, ssm, wavelet, local, proj, conv2, ffn2, eps):
    empty = [_or_empty(g, None)] * 4
    return _node(
        g,
        'Block',
        x,
        *_tensors(conv1),
        *_tensors(ffn1),
        *_tensors(ssm),
        _or_empty(g, wavelet),
        *(_tensors(local) or empty),
        *_tensors(proj),
        *_tensors(conv2),
        *_tensors(ffn2),
        eps_f=_get(eps, 'f'),
    )


_SYMBOLICS: dict[str, Callable] = dict(
    bidirectional_scan=_bidirectional_scan,
    stem_conv=_stem_conv,
    depthwise_conv=_depthwise_conv,
    linear=_linear,
    feed_forward=_feed_forward,
    block=_block,
)
