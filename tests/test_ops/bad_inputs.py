"""What each op must refuse: one table for Python and C++.

A case takes good inputs of an op and changes one argument. All faces of the op
must refuse it with the same type of error, whose message begins with the op's
name and names what is wrong.
"""

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from test_ops.inference_cases import block_inputs, good_inputs
from test_ops.scan_cases import bidirectional_inputs, selective_inputs
from test_ops.support import mapped
from torch import Tensor

from mmmamba.ops.block import (
    FFNParameters,
    LayerParameters,
    LocalParameters,
    SSMParameters,
)

# The public function with PyTorch's version, with the compiled one and as on a
# GPU; the registered op that an exported program calls, with data and without.
FACES = ('torch', 'cpp', 'gpu', 'op', 'meta')
# The registered op serves fewer sizes; the function has PyTorch's for others.
OP = ('op', 'meta')


class Bad(NamedTuple):
    """A case.

    Attributes:
        op: The op's name.
        argument: What is changed: an argument, or ``name[i]`` of a list.
        value: The shape of a tensor of zeros, or a function of the good value.
        named: Names of which the message must hold one. Defaults to the
            argument.
        error: The type of the error.
        faces: Which faces of the op refuse it.
    """

    op: str
    argument: str
    value: tuple | Callable
    named: tuple[str, ...] = ()
    error: type[Exception] = ValueError
    faces: tuple[str, ...] = FACES

    def __str__(self) -> str:
        value = self.value
        if callable(value):
            value = value.__name__
        return f'{self.op}-{self.argument}-{value}'.replace(' ', '')

    @property
    def message(self) -> str:
        """The pattern of the message."""
        names = map(re.escape, self.named or (self.argument,))
        return rf'(?s)^{self.op}: .*(?<!\w)({"|".join(names)})(?!\w)'

    def inputs(self) -> dict:
        """The changed inputs."""
        inputs = good(self.op)
        name, _, index = self.argument.rstrip(']').partition('[')
        holder, key = (inputs[name], int(index)) if index else (inputs, name)
        holder[key] = (
            self.value(holder[key])
            if callable(self.value)
            else torch.zeros(self.value)
        )
        return inputs


def equal_to(value) -> Callable:
    """A change to a value that is no shape."""

    def change(_):
        return value

    change.__name__ = str(value)
    return change


def without_the_last(tensors: list) -> list:
    return tensors[:-1]


def backwards(tensors: list) -> list:
    return tensors[::-1]


def with_another_axis(tensor: Tensor) -> Tensor:
    return tensor[None]


def on_meta(tensor: Tensor) -> Tensor:
    return tensor.to('meta')


GOOD = {
    # u (2, 6, 20), A (6, 4), B and C (2, 2, 4, 20)
    'selective_scan': lambda: {
        **selective_inputs(bias=True),
        'delta_softplus': True,
    },
    # x (2, 5, 20), projected (2, 2, 11, 20), dt_weight (2, 5, 3), A (10, 4)
    'bidirectional_scan': bidirectional_inputs,
    # x (2, 5, 7, 37), weight (3, 3, 37)
    'depthwise_conv': lambda: good_inputs('depthwise_conv'),
    # x (2, 5, 7, 78), ssm (2, 5, 7, 37), local_weight (3, 3, 36)
    'mixer_conv': lambda: good_inputs('mixer_conv'),
    # x (2, 35, 74), projected (2, 35, 10), dt_weight (2, 74, 3), A (148, 1)
    'scan_gate': lambda: good_inputs('scan_gate'),
    # x (2, 3, 5, 7), weights (3, 3, 3, 37) and (3, 3, 37, 37)
    'stem_conv': lambda: good_inputs('stem_conv'),
    'linear': lambda: dict(
        x=torch.zeros(3, 4),
        weight=torch.zeros(4, 6),
        bias=torch.zeros(6),
        relu=False,
        residual=torch.zeros(3, 6),
    ),
    'feed_forward': lambda: dict(
        x=torch.zeros(3, 4),
        weight1=torch.zeros(4, 6),
        bias1=torch.zeros(6),
        weight2=torch.zeros(6, 4),
        bias2=torch.zeros(4),
        shortcut=torch.zeros(3, 4),
    ),
    'block': block_inputs,
}


@cache
def _good(op: str) -> dict:
    return mapped(Tensor.detach, GOOD[op]())


def good(op: str) -> dict:
    """Inputs that an op takes, in the order of its schema; to be changed."""
    return mapped(Tensor.clone, _good(op))


SHAPES = [
    Bad('selective_scan', 'u', (2, 6, 0)),
    Bad('selective_scan', 'u', (6, 20)),
    Bad('selective_scan', 'u', (2, 6, 4, 5)),
    Bad('selective_scan', 'u', (2, 5, 20), ('A', 'B')),
    Bad('selective_scan', 'u', (2, 6, 21), ('delta',)),
    Bad('selective_scan', 'u', (3, 6, 20), ('delta',)),
    Bad('selective_scan', 'delta', (2, 6, 19)),
    Bad('selective_scan', 'delta', (6,)),
    Bad('selective_scan', 'delta', ()),
    Bad('selective_scan', 'A', (6,)),
    Bad('selective_scan', 'A', (5, 4)),
    Bad('selective_scan', 'A', (6, 5), ('B',)),
    Bad('selective_scan', 'B', (2, 4, 20)),
    Bad('selective_scan', 'B', (2, 4, 4, 20)),
    Bad('selective_scan', 'B', (2, 0, 4, 20)),
    Bad('selective_scan', 'B', (2, 2, 3, 20)),
    Bad('selective_scan', 'B', (1, 2, 4, 20)),
    Bad('selective_scan', 'B', (2, 2, 4, 21)),
    Bad('selective_scan', 'C', (2, 1, 4, 20)),
    Bad('selective_scan', 'C', (2, 2, 4, 19)),
    Bad('selective_scan', 'C', (2, 4, 20)),
    Bad('selective_scan', 'D', (3,)),
    Bad('selective_scan', 'D', (6, 1)),
    Bad('selective_scan', 'delta_bias', (2, 3)),
    Bad('bidirectional_scan', 'x', (2, 5, 0)),
    Bad('bidirectional_scan', 'x', (5, 20)),
    Bad('bidirectional_scan', 'x', (2, 5, 4, 5)),
    Bad('bidirectional_scan', 'x', (3, 5, 20), ('projected',)),
    Bad('bidirectional_scan', 'x', (2, 5, 21), ('projected',)),
    Bad('bidirectional_scan', 'x', (2, 4, 20), ('A', 'dt_weight')),
    Bad('bidirectional_scan', 'x', (2, 6, 20), ('A', 'dt_weight')),
    Bad('bidirectional_scan', 'projected', (2, 1, 11, 20)),
    Bad('bidirectional_scan', 'projected', (2, 2, 10, 20)),
    Bad('bidirectional_scan', 'projected', (2, 2, 11, 19)),
    Bad('bidirectional_scan', 'projected', (2, 22, 20)),
    Bad('bidirectional_scan', 'dt_weight', (2, 15)),
    Bad('bidirectional_scan', 'dt_weight', (2, 4, 3)),
    Bad('bidirectional_scan', 'dt_weight', (1, 5, 3)),
    Bad('bidirectional_scan', 'dt_weight', (2, 5, 2), ('projected',)),
    Bad('bidirectional_scan', 'dt_weight', (2, 5, 4), ('projected',)),
    Bad('bidirectional_scan', 'dt_bias', (10,)),
    Bad('bidirectional_scan', 'dt_bias', (2, 4)),
    Bad('bidirectional_scan', 'A', (5, 4)),
    Bad('bidirectional_scan', 'A', (10,)),
    Bad('bidirectional_scan', 'A', (10, 3), ('projected',)),
    Bad('bidirectional_scan', 'A', (10, 0)),
    Bad('bidirectional_scan', 'D', (5,)),
    Bad('bidirectional_scan', 'D', (2, 5)),
    Bad('depthwise_conv', 'x', (5, 7, 37)),
    Bad('depthwise_conv', 'x', (2, 0, 7, 37)),
    Bad('depthwise_conv', 'x', (2, 5, 7, 36), ('weight',)),
    Bad('depthwise_conv', 'weight', (3, 37)),
    Bad('depthwise_conv', 'weight', (3, 5, 37)),
    Bad('depthwise_conv', 'weight', (4, 4, 37)),
    Bad('depthwise_conv', 'weight', (0, 0, 37)),
    Bad('depthwise_conv', 'weight', (3, 3, 36)),
    Bad('depthwise_conv', 'weight', (9, 9, 37), faces=OP),
    Bad('depthwise_conv', 'weight', (3, 3, 15), faces=OP),
    Bad('depthwise_conv', 'weight', (5, 5, 37), ('stride',), faces=OP),
    Bad('depthwise_conv', 'bias', (36,)),
    Bad('depthwise_conv', 'bias', (1, 37)),
    Bad('mixer_conv', 'x', (2, 5, 37)),
    Bad('mixer_conv', 'x', (2, 5, 0, 78)),
    Bad('mixer_conv', 'x', (2, 5, 7, 72), ('ssm', 'x')),
    Bad('mixer_conv', 'x', (2, 5, 7, 36), ('ssm', 'x')),
    Bad('mixer_conv', 'ssm', (2, 5, 6, 37)),
    Bad('mixer_conv', 'ssm', (2, 35, 37)),
    Bad('mixer_conv', 'ssm', (2, 5, 7, 36), ('wavelet_weight',)),
    Bad('mixer_conv', 'ssm', (2, 5, 7, 79), ('ssm', 'wavelet_weight')),
    Bad('mixer_conv', 'wavelet_weight', (3, 3, 3, 37)),
    Bad('mixer_conv', 'wavelet_weight', (4, 3, 5, 37)),
    Bad('mixer_conv', 'wavelet_weight', (3, 3, 37)),
    Bad('mixer_conv', 'wavelet_weight', (4, 9, 9, 37), faces=OP),
    Bad('mixer_conv', 'local_weight', (3, 3, 35), ('local_bias',)),
    Bad('mixer_conv', 'local_weight', (3, 5, 36)),
    Bad('mixer_conv', 'local_weight', (9, 9, 36), faces=OP),
    Bad('mixer_conv', 'local_bias', (35,)),
    Bad('mixer_conv', 'local_scale', (35,)),
    Bad('mixer_conv', 'local_shift', (1,)),
    *(
        Bad('mixer_conv', name, equal_to(None), ('local_weight',))
        for name in ('local_weight', 'local_bias', 'local_scale')
    ),
    Bad('scan_gate', 'x', ()),
    Bad('scan_gate', 'x', (2, 35)),
    Bad('scan_gate', 'x', (2, 0, 74)),
    Bad('scan_gate', 'x', (2, 35, 15), faces=OP),
    Bad('scan_gate', 'projected', (2, 35, 9)),
    Bad('scan_gate', 'dt_weight', (3, 74, 3)),
    Bad('scan_gate', 'dt_weight', (2, 74)),
    Bad('scan_gate', 'dt_bias', (74,)),
    Bad('scan_gate', 'A', (74, 1)),
    Bad('scan_gate', 'A', (148, 0)),
    Bad('scan_gate', 'A', (148,)),
    Bad('scan_gate', 'D', (74,)),
    Bad('scan_gate', 'norm_weight', (73,)),
    Bad('scan_gate', 'norm_bias', (148,)),
    Bad('scan_gate', 'z', (2, 34, 74)),
    Bad('stem_conv', 'x', (3, 5, 7)),
    Bad('stem_conv', 'x', (2, 3, 0, 7)),
    Bad('stem_conv', 'x', (2, 4, 5, 7), ('weights[0]',)),
    Bad('stem_conv', 'weights[0]', (3, 1, 3, 37)),
    Bad('stem_conv', 'weights[0]', (3, 3, 37)),
    Bad('stem_conv', 'weights[0]', (3, 3, 3, 36), ('biases[0]',)),
    Bad('stem_conv', 'weights[0]', (3, 3, 3, 15), faces=OP),
    Bad('stem_conv', 'biases[0]', (36,)),
    Bad('stem_conv', 'biases[0]', ()),
    Bad('stem_conv', 'weights[1]', (3, 3, 36, 37)),
    Bad('stem_conv', 'weights[1]', (37,)),
    Bad('stem_conv', 'biases[1]', (36,)),
    Bad('stem_conv', 'weights', without_the_last, ('weights',)),
    Bad('stem_conv', 'biases', without_the_last, ('biases',)),
    Bad('linear', 'x', (4,)),
    Bad('linear', 'x', (3, 0)),
    Bad('linear', 'weight', (74, 0)),
    Bad('linear', 'weight', (5, 6)),
    Bad('linear', 'weight', (6,)),
    Bad('linear', 'bias', (5,)),
    Bad('linear', 'bias', (1, 6)),
    Bad('linear', 'residual', (3, 5)),
    Bad('linear', 'residual', (1, 6)),
    Bad('feed_forward', 'x', (4,)),
    Bad('feed_forward', 'weight1', (5, 6)),
    Bad('feed_forward', 'weight1', (6,)),
    Bad('feed_forward', 'bias1', (5,)),
    Bad('feed_forward', 'weight2', (5, 4)),
    Bad('feed_forward', 'weight2', (6, 5)),
    Bad('feed_forward', 'bias2', (5,)),
    Bad('feed_forward', 'shortcut', (3, 5)),
    Bad('feed_forward', 'shortcut', (1, 4)),
    Bad('block', 'x', (5, 6, 100), faces=OP),
    *(
        Bad('block', group, without_the_last, faces=OP)
        for group in ('conv1', 'ffn1', 'ssm', 'local', 'proj', 'conv2', 'ffn2')
    ),
    Bad('block', 'conv1', equal_to([]), faces=OP),
    Bad('block', 'ffn1', backwards, ('ffn1.weight1',), faces=OP),
    Bad('block', 'ssm[5]', (2, 120), ('ssm.dt_weight',), faces=OP),
    Bad('block', 'ssm[12]', (), ('ssm.out_bias',), faces=OP),
    # The names of the parameters in C++ are those in Python.
    *(
        Bad(
            *('block', f'{group}[{i}]', with_another_axis),
            named=(f'{group}.{name}',),
            faces=OP,
        )
        for group, parameters in (
            ('conv1', LayerParameters),
            ('ffn1', FFNParameters),
            ('ssm', SSMParameters),
            ('local', LocalParameters),
            ('proj', LayerParameters),
            ('conv2', LayerParameters),
            ('ffn2', FFNParameters),
        )
        for i, name in enumerate(parameters._fields)
    ),
    Bad('block', 'wavelet', with_another_axis, faces=OP),
]

OPTIONS = [
    Bad('depthwise_conv', 'stride', equal_to(0)),
    Bad('depthwise_conv', 'stride', equal_to(3)),
    Bad('depthwise_conv', 'act', equal_to('gelu')),
    Bad('stem_conv', 'weights', equal_to([]), ('weights',)),
]


def _tensors(op: str) -> list[str]:
    """Names of all arguments that are tensors, the first of a list."""
    return [
        f'{name}[0]' if isinstance(value, list) else name
        for name, value in good(op).items()
        if isinstance(value, (Tensor, list))
    ]


DTYPES = [
    Bad(
        op,
        name,
        getattr(Tensor, dtype),
        error=TypeError,
    )
    for op in GOOD
    if op != 'block'
    for name in _tensors(op)
    for dtype in ('long', 'bool', 'cfloat')
]
# With the first on another device, that device's op would be called.
DEVICES = [
    Bad(op, name, on_meta, faces=('torch', 'cpp', 'op'))
    for op in GOOD
    if op != 'block'
    for name in _tensors(op)[1:]
]
CASES = SHAPES + OPTIONS + DTYPES + DEVICES
