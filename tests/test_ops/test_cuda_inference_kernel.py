"""Tests of the CUDA kernels of the ops for inference, run on the CPU.

As in test_cuda_kernel.py. What a device alone can show is in test_cuda.py.
"""

import ctypes
import math
import os

import pytest
import torch
from golden import relative_error
from test_ops.inference_cases import (
    LAYOUTS,
    SIZES,
    conv_inputs,
    conv_reference,
    mixer_case,
    permuted,
    scan_gate_case,
    stem_case,
)
from test_ops.support import ROOT, Guarded
from torch import Tensor

from mmmamba import ops

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

DTYPES = [torch.float32, torch.float16, torch.bfloat16]
ACTS = ['none', 'relu', 'silu']


def structure(name: str, numbers: dict, pointers: list, strides: dict) -> type:
    """A struct of emulate_inference.cpp."""
    fields = [(n, kind) for n, kind in numbers.items()]
    fields += [(n, ctypes.c_void_p) for n in pointers]
    fields += [(n, ctypes.c_int64 * size) for n, size in strides.items()]
    return type(name, (ctypes.Structure,), dict(_fields_=fields))


def integers(*names: str) -> dict:
    return dict.fromkeys(names, ctypes.c_int64)


ConvCall = structure(
    'ConvCall',
    dict(sizes=ctypes.c_int64 * 4) | integers('kernel', 'stride', 'act'),
    ['x', 'weight', 'bias', 'y'],
    dict(x_strides=3, y_strides=3),
)
MixerCall = structure(
    'MixerCall',
    dict(sizes=ctypes.c_int64 * 4)
    | integers('G', 'M', 'wavelet_kernel', 'local_kernel'),
    ['x', 'ssm', 'wavelet', 'weight', 'bias', 'scale', 'shift', 'y'],
    dict(x_strides=3, ssm_strides=3, y_strides=3),
)
ImageCall = structure(
    'ImageCall',
    dict(sizes=ctypes.c_int64 * 4) | integers('relu'),
    ['x', 'weight', 'bias', 'y'],
    dict(x_strides=4, y_strides=3),
)
ScanGateCall = structure(
    'ScanGateCall',
    integers('batch', 'length', 'channels', 'rank', 'is_float')
    | dict(eps=ctypes.c_double),
    ['x', 'projected', 'z', 'dt_weight', 'dt_bias', 'A', 'skip']
    + ['norm_weight', 'norm_bias', 'y'],
    dict(x_strides=2, projected_strides=2, z_strides=2, y_strides=2),
)


@pytest.fixture(scope='session')
def library(compile_library):
    folder = ROOT / 'tests/test_ops/cuda_emulation'
    kernels = ROOT / 'mmmamba/ops/csrc/common/cuda'
    return compile_library(
        *(folder / 'emulate_inference.cpp', '-O2', '-I', folder),
        *('-I', kernels),
        *os.environ.get('CXXFLAGS', '').split(),
        name='cuda_inference_emulation',
    )


def run(function, call, tensors: dict, y_shape) -> Tensor:
    """Call a kernel on tensors of contiguous channels; returns y.

    The first of the tensors tells the dtype, the first parameter its own.
    """
    dtype = next(iter(tensors.values())).dtype
    guarded = Guarded()
    y = guarded.empty(*y_shape, dtype=dtype)
    for name, t in (tensors | dict(y=y)).items():
        if t is None:
            continue
        assert t.stride(-1) == 1 or t.shape[-1] == 1
        setattr(call, name, t.data_ptr())
        if hasattr(call, f'{name}_strides'):
            getattr(call, f'{name}_strides')[:] = t.stride()[:-1]
        else:
            assert t.is_contiguous()
    assert function(ctypes.byref(call), DTYPES.index(dtype)) == 0
    guarded.check()
    return y


def depthwise_conv(library, x, weight, bias, stride=1, act='none') -> Tensor:
    call = ConvCall(
        kernel=weight.shape[0],
        stride=stride,
        act=ACTS.index(act),
    )
    call.sizes[:] = x.shape
    batch, height, width, channels = x.shape
    shape = batch, -(-height // stride), -(-width // stride), channels
    tensors = dict(x=x, weight=weight, bias=bias)
    return run(library.run_depthwise_conv, call, tensors, shape)


def mixer_conv(library, x, ssm, wavelet, weight, *affine) -> Tensor:
    call = MixerCall(
        G=ssm.shape[-1],
        M=0 if weight is None else weight.shape[-1],
        wavelet_kernel=0 if wavelet is None else wavelet.shape[1],
        local_kernel=0 if weight is None else weight.shape[0],
    )
    call.sizes[:] = x.shape
    bias, scale, shift = affine
    tensors = dict(x=x, ssm=ssm, wavelet=wavelet, weight=weight)
    tensors |= dict(bias=bias, scale=scale, shift=shift)
    return run(library.run_mixer_conv, call, tensors, x.shape)


def image_conv(library, image, weight, bias, relu=False) -> Tensor:
    """Of an image ``(B, 3, H, W)``, the first convolution of the stem."""
    x = image.permute(0, 2, 3, 1)
    batch, height, width, _ = x.shape
    call = ImageCall(relu=relu, x=x.data_ptr())
    call.sizes[:] = batch, height, width, weight.shape[3]
    call.x_strides[:] = x.stride()
    shape = batch, -(-height // 2), -(-width // 2), weight.shape[3]
    tensors = dict(weight=weight, bias=bias)
    return run(library.run_image_conv, call, tensors, shape)


def scan_gate(library, x, projected, dt_weight, *rest, eps=1e-5) -> Tensor:
    names = 'dt_bias', 'A', 'skip', 'norm_weight', 'norm_bias', 'z'
    batch, length, channels = x.shape
    call = ScanGateCall(
        batch=batch,
        length=length,
        channels=channels,
        rank=dt_weight.shape[2],
        is_float=dt_weight.dtype == torch.float32,
        eps=eps,
    )
    tensors = dict(x=x, projected=projected)
    tensors['dt_weight'] = dt_weight.transpose(1, 2).contiguous()
    tensors |= zip(names, rest)
    return run(library.run_scan_gate, call, tensors, x.shape)


def case(name: str, size=(2, 5, 7), channels: int = 36) -> tuple:
    """A function, its inputs, and which of them are maps."""
    if name == 'depthwise_conv':
        return depthwise_conv, conv_inputs(size, channels, 3), [0]
    if name == 'mixer_conv':
        split = [channels, channels - 2, 6]
        return mixer_conv, mixer_case(size, split, 3)[0], [0, 1]
    inputs, _ = scan_gate_case(size, channels)
    return scan_gate, inputs, [0, 1, 8]


OPS = ['depthwise_conv', 'mixer_conv', 'scan_gate']


@pytest.mark.parametrize('channels', [3, 16, 37])
@pytest.mark.parametrize('kernel, stride', [(1, 1), (3, 1), (5, 1), (7, 1)])
@pytest.mark.parametrize('size', SIZES)
def test_depthwise_conv(library, size, kernel, stride, channels):
    inputs = conv_inputs(size, channels, kernel)
    for act in ACTS:
        found = depthwise_conv(library, *inputs, act=act)
        expected = conv_reference(*inputs, act=act)
        assert relative_error(found, expected) <= 2e-6


@pytest.mark.parametrize('channels', [3, 16, 37])
@pytest.mark.parametrize('size', SIZES)
def test_stride_of_conv(library, size, channels):
    x, weight, _ = conv_inputs(size, channels, 3)
    found = depthwise_conv(library, x, weight, None, stride=2)
    assert relative_error(found, conv_reference(x, weight, None, 2)) <= 2e-6


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(
    'split', [[16, 3, 1], [3, 0, 4], [37, 20, 0], [32, 16, 16]]
)
@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
def test_mixer_conv(library, size, split, kernel):
    inputs, expected = mixer_case(size, split, kernel)
    assert relative_error(mixer_conv(library, *inputs), expected) <= 2e-6


def test_mixer_without_wavelet(library):
    inputs, expected = mixer_case((2, 4, 7), [6, 5, 3], 3, wavelet=False)
    assert relative_error(mixer_conv(library, *inputs), expected) <= 2e-6


@pytest.mark.parametrize('size', [*SIZES, (2, 9, 35)])
@pytest.mark.parametrize('channels', [16, 36])
def test_image_conv(library, size, channels):
    """Of planes and of interleaved pixels, in all dtypes."""
    inputs, expected = stem_case(size, channels)
    for relu in (False, True):
        exact = expected.relu() if relu else expected
        found = image_conv(library, *inputs, relu)
        assert relative_error(found, exact) <= 2e-6
    x, *parameters = inputs
    x = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(image_conv(library, x, *parameters, True), found)
    for dtype in DTYPES[1:]:
        halves = [t.to(dtype) for t in inputs]
        found = image_conv(library, *halves, True)
        eps = torch.finfo(dtype).eps
        assert relative_error(found, exact) <= 4 * eps


@pytest.mark.parametrize('size', [*SIZES, (2, 9, 9)])
@pytest.mark.parametrize('channels', [1, 16, 37, 161, 272, 288])
def test_scan_gate(library, size, channels):
    """Of all ranks that a kernel is compiled for, and of all their steps."""
    inputs, expected = scan_gate_case(size, channels)
    assert relative_error(scan_gate(library, *inputs), expected) <= 1e-5


def test_epsilon(library):
    """It is what is left where all channels are nearly alike."""
    inputs, _ = scan_gate_case((1, 2, 3), 8)
    inputs[0] *= 1e-3
    results = [scan_gate(library, *inputs, eps=eps) for eps in (1e-5, 1.0)]
    double = [t.double() for t in inputs]
    for found, eps in zip(results, (1e-5, 1.0)):
        assert relative_error(found, ops.scan_gate(*double, eps)) <= 1e-5


@pytest.mark.parametrize('is_float', [False, True])
@pytest.mark.parametrize('dtype', DTYPES[1:])
@pytest.mark.parametrize('name', OPS)
def test_half(library, name, dtype, is_float):
    """Rounded once, scan_gate twice; that takes float32 parameters, too."""
    function, inputs, maps = case(name)
    is_float = is_float and name == 'scan_gate'
    inputs = [
        t if is_float and i not in maps else t.to(dtype)
        for i, t in enumerate(inputs)
    ]
    expected = getattr(ops, name)(*(t.double() for t in inputs))
    found = function(library, *inputs)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(
        found.double(),
        expected,
        rtol=eps / 2,
        atol=(4 * eps if name == 'scan_gate' else 2e-5),
    )


@pytest.mark.parametrize('channels', [16, 37])
@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('layout', [m for m in LAYOUTS if m is not permuted])
def test_layout(library, layout, name, channels):
    function, inputs, maps = case(name, channels=channels)
    expected = function(library, *inputs)
    for i in maps:
        inputs[i] = layout(inputs[i])
    assert torch.equal(function(library, *inputs), expected)


@pytest.mark.parametrize('name', OPS)
def test_nan_stays_in_its_sample(library, name):
    function, inputs, maps = case(name)
    expected = function(library, *inputs)
    for i in maps:
        inputs[i][1] = math.nan
    found = function(library, *inputs)
    assert torch.equal(found[0], expected[0])
    assert found[1].isnan().any()


@pytest.mark.parametrize('name', OPS)
def test_same_bits_twice(library, name):
    function, inputs, _ = case(name)
    assert torch.equal(function(library, *inputs), function(library, *inputs))
