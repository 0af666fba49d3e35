"""The portable kernels and those of AVX2 compute what this CPU's own do.

PyTorch chooses the instruction set at its start, so that all others run in
processes of their own.
"""

import pytest
import torch
from test_ops import inference_cases as cases
from test_ops.scan_cases import (
    bidirectional_inputs,
    bidirectional_reference,
    selective_inputs,
    selective_reference,
)
from test_ops.support import doubled, run_ops, run_program, with_gradients

from mmmamba import ops
from mmmamba.ops import pack_weight, use_backend

pytestmark = pytest.mark.slow

HERE = torch.backends.cpu.get_cpu_capability()
SETS = ['DEFAULT', *(['AVX2'] if HERE in ('AVX2', 'AVX512') else [])]
# AVX-512 without instructions for packed weights, and with those for int8.
LIMITED = ['AVX512_CORE', 'AVX512_CORE_VNNI']
SETS += ['AVX512', *LIMITED] if HERE == 'AVX512' else []
REFERENCES = {
    'selective_scan': selective_reference,
    'bidirectional_scan': bidirectional_reference,
}
PRODUCTS = [(1, 1, 5), (2, 5, 3), (7, 9, 16), (8, 33, 47), (13, 48, 100)]
PRODUCTS += [(64, 31, 17), (150, 24, 49), (700, 200, 66), (333, 40, 283)]
PRODUCTS += [(700, 264, 280)]
# All rows in one sample, as Strassen's step stays within a sample.
OF_ONE_SAMPLE = [(333, 40, 283), (700, 264, 280)]


def scan_calls() -> list[tuple]:
    calls = []
    for dtype in (torch.float32, torch.float64):
        for sizes in [(2, 2, 3, 2, 5), (1, 2, 17, 3, 300), (2, 1, 32, 1, 64)]:
            inputs = selective_inputs(sizes, dtype, (1e-3, 10), bias=True)
            inputs['delta_softplus'] = True
            calls.append(('selective_scan', inputs, dtype))
        for sizes in [(2, 3, 2, 2, 5), (1, 17, 5, 3, 300), (2, 32, 4, 1, 64)]:
            inputs = bidirectional_inputs(sizes, dtype)
            calls.append(('bidirectional_scan', inputs, dtype))
    return calls


def product_calls() -> list[tuple]:
    calls = []
    inputs = [cases.mlp_inputs(*size) for size in PRODUCTS]
    for size in OF_ONE_SAMPLE:
        x, *parameters = cases.mlp_inputs(*size)
        inputs.append([x[None], *parameters])
    for x, w1, b1, w2, b2 in inputs:
        first = dict(x=x, weight=w1, bias=b1, relu=True)
        both = dict(
            x=x, weight1=w1, bias1=b1, weight2=w2, bias2=b2, shortcut=x
        )
        calls += [('linear', first, None), ('feed_forward', both, None)]
    return calls


def packed_calls() -> list[tuple]:
    """Linear layers of numbers that bfloat16 and int8 have exactly."""
    calls = []
    for rows, channels, out in PRODUCTS:
        x = torch.randint(0, 256, (rows, channels)).float()
        x[:, 0], x[:, -1] = 0, 255
        weight = torch.randint(-127, 128, (channels, out)).float()
        weight[0] = 127
        for dtype in ('bfloat16', 'int8'):
            packed = pack_weight(weight, dtype)
            calls.append(('linear', dict(x=x, weight=packed), None))
    return calls


def conv_and_gate_calls() -> list[tuple]:
    calls = []
    for name in cases.OPS:
        for size, channels in (((2, 5, 9), 37), ((1, 16, 17), 66)):
            calls.append((name, cases.good_inputs(name, size, channels), None))
    return calls


@pytest.fixture(scope='module')
def results(compiled, tmp_path_factory) -> dict:
    """Calls of ops, and their results with each instruction set."""
    folder = tmp_path_factory.mktemp('instruction_sets')
    torch.manual_seed(0)
    calls = scan_calls() + product_calls() + packed_calls()
    calls += conv_and_gate_calls()
    torch.save(calls, folder / 'calls')
    with use_backend('cpp'):
        found = {'calls': calls, HERE: run_ops(calls)}
    for name in SETS:
        if name == HERE:
            continue
        run_program(
            *('run_ops', folder / 'calls', folder / name),
            MMMAMBA_OP_BACKEND='cpp',
            ATEN_CPU_CAPABILITY=name.lower().split('_')[0],
            ONEDNN_MAX_CPU_ISA=name if name in LIMITED else '',
        )
        chosen, found[name] = torch.load(folder / name)
        # On other architectures the default has another name.
        assert chosen == name.split('_')[0] or name == 'DEFAULT'
        assert name != 'DEFAULT' or not chosen.startswith('AVX')
    return found


def calls_of(results: dict, instruction_set: str, names) -> list[tuple]:
    """Name, inputs, gradients' dtype and result of each call of some ops."""
    return [
        (*call, result)
        for call, result in zip(
            results['calls'], results[instruction_set], strict=True
        )
        if call[0] in names
    ]


@pytest.mark.parametrize('name', SETS[1:])
def test_scans_agree(results, name):
    """With the portable ones, the gradients included."""
    portable = calls_of(results, 'DEFAULT', REFERENCES)
    for one, other in zip(portable, calls_of(results, name, REFERENCES)):
        for key, tensor in one[-1].items():
            # Found: 1.4e-6, where one has multiply-add and one has not.
            bound = 3e-6 if tensor.dtype == torch.float32 else 1e-14
            error = (tensor - other[-1][key]).abs().max()
            assert error <= bound * tensor.abs().max(), key


def test_portable_scans_equal_the_definition(results):
    for op, inputs, dtype, found in calls_of(results, 'DEFAULT', REFERENCES):
        expected = with_gradients(REFERENCES[op], doubled(inputs), dtype)
        bound = 1e-5 if dtype == torch.float32 else 1e-10
        for key, tensor in expected.items():
            error = (found[key] - tensor).abs().max()
            assert error <= bound * tensor.abs().max(), (op, key)


@pytest.mark.parametrize('name', SETS)
def test_products(results, name):
    names = 'linear', 'feed_forward'
    for op, inputs, _, found in calls_of(results, name, names):
        if ops.is_packed(inputs.get('weight', found)):
            continue
        reference = getattr(cases, f'{op}_reference')
        cases.check(found, reference(*inputs.values()), 5e-6)


@pytest.mark.parametrize('name', SETS)
def test_packed_products(results, name):
    """No set rounds what is exact in float32."""
    for _, inputs, _, found in calls_of(results, name, ['linear']):
        x, weight = inputs['x'], inputs['weight']
        if ops.is_packed(weight):
            expected = (
                x.double() @ ops.unpack_weight(weight, x.shape[1]).double()
            )
            assert torch.equal(found, expected.float())


@pytest.mark.parametrize('name', SETS)
def test_convolutions_and_gate(results, name):
    for op, inputs, _, found in calls_of(results, name, cases.OPS):
        with use_backend('torch'):
            expected = getattr(ops, op)(**doubled(inputs))
        cases.check(found, expected, 1e-5)
