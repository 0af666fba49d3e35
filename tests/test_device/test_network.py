"""The network on each device that is here; a GPU's tests have CPU twins.

tools/dev/gpu_check.py runs these and reports the errors that they record.
"""

import contextlib
import copy
import threading

import pytest
import torch
from golden import (
    load_golden,
    published_state_dict,
    randomize,
    relative_error,
)
from test_ops.backbone_case import gradients, make_backbone

from mmmamba.backbones import MobileMamba
from mmmamba.ops import use_backend

pytestmark = pytest.mark.slow

# Errors that are allowed, of a stage's largest output.
PRECISIONS = dict(fp32=2e-5, tf32=2e-2, bf16=1e-1, fp16=2e-2)
DTYPES = dict(bf16=torch.bfloat16, fp16=torch.float16)


def make_deployed() -> MobileMamba:
    """A small backbone of the ops for inference."""
    torch.manual_seed(0)
    arch = dict(base='t2', channels=(32, 48, 64), depths=(1, 1, 1))
    model = randomize(MobileMamba(arch)).eval()
    model.switch_to_deploy()
    return model


@pytest.fixture(params=['', 'deployed'])
def network(request):
    """A backbone, and a batch that all its kernels serve (scan_gate: 32)."""
    if request.param:
        return make_deployed(), torch.randn(32, 3, 64, 64)
    return make_backbone(), torch.randn(4, 3, 96, 96)


@contextlib.contextmanager
def precision(name: str):
    """float32 with or without TensorFloat-32, or a shorter type."""
    before = torch.backends.cudnn.allow_tf32
    matmul = torch.backends.cuda.matmul
    matmul_before = matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = matmul.allow_tf32 = name == 'tf32'
    yield DTYPES.get(name, torch.float32)
    torch.backends.cudnn.allow_tf32 = before
    matmul.allow_tf32 = matmul_before


def worst(outs, references) -> float:
    return max(
        relative_error(out.float().cpu(), reference)
        for out, reference in zip(outs, references, strict=True)
    )


@pytest.mark.parametrize('deployed', [False, True], ids=['', 'deployed'])
@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
@pytest.mark.parametrize('name', PRECISIONS)
@pytest.mark.parametrize('case', ['t2_192x192', 'b1_250x333'])
@torch.no_grad()
def test_golden(device, case, name, layout, deployed, record_property):
    """The outputs of the published network."""
    if device.type == 'cpu' and (case[0] == 'b' or name in ('tf32', 'fp16')):
        pytest.skip('CPU: the goldens of tests/test_backbones have the rest')
    arch = case.split('_')[0]
    model = MobileMamba(arch).eval()
    model.load_state_dict(published_state_dict(arch))
    if deployed:
        model.switch_to_deploy()
    x, outputs = load_golden(case)
    memory = dict(
        contiguous=torch.contiguous_format, channels_last=torch.channels_last
    )[layout]
    with precision(name) as dtype:
        model = model.to(device, dtype, memory_format=memory)
        outs = model(x.to(device, dtype, memory_format=memory))
    error = worst(outs, [outputs[f'stage{i}'] for i in (1, 2, 3)])
    record_property('error', f'{error:.1e}')
    assert error <= PRECISIONS[name]


@pytest.mark.parametrize('arch', ['t2', 't4', 's6', 'b1', 'b2', 'b4'])
@torch.no_grad()
def test_every_arch(device, arch, record_property):
    """Deployed, against float64 and the ops in PyTorch."""
    model = randomize(MobileMamba(arch)).eval()
    x = torch.randn(2, 3, 97, 130)
    with use_backend('torch'):
        exact = copy.deepcopy(model).double()(x.double())
    model.switch_to_deploy()
    with precision('fp32'):
        outs = model.to(device)(x.to(device))
    error = worst(outs, exact)
    record_property('error', f'{error:.1e}')
    assert error <= 2e-5


@pytest.mark.parametrize('layout', ['contiguous', 'channels_last'])
def test_gradients(device, layout, record_property):
    """Against float64 and the scan in PyTorch."""
    model, x = make_backbone(), torch.randn(2, 3, 80, 64)
    if layout == 'channels_last':
        x = x.contiguous(memory_format=torch.channels_last)
    reference = copy.deepcopy(model).double()
    with use_backend('torch'):
        exact = gradients(reference, reference(x.double()))
    with precision('fp32'):
        model = model.to(device)
        found = gradients(model, model(x.to(device)))
    largest = max(g.abs().max() for g in exact.values())
    error = max(
        float((found[name].cpu().double() - g).abs().max() / largest)
        for name, g in exact.items()
    )
    record_property('error', f'{error:.1e}')
    assert error <= 1e-4


@torch.no_grad()
def test_two_at_once(device, network):
    """Two streams, or threads, get the bits that one alone gets."""
    model, x = network[0].to(device), network[1].to(device)
    images = [x, x.flip(0)]
    with precision('fp32'):
        alone = [model(x) for x in images]
        found: list = [None, None]

        def run(i: int) -> None:
            stream = torch.cuda.Stream() if device.type == 'cuda' else None
            if stream:
                stream.wait_stream(torch.cuda.current_stream())
            with torch.no_grad(), torch.cuda.stream(stream):
                for _ in range(10):
                    found[i] = model(images[i])
            if stream:
                stream.synchronize()

        threads = [threading.Thread(target=run, args=(i,)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for i in (0, 1):
        assert all(map(torch.equal, found[i], alone[i]))


@torch.no_grad()
def test_cuda_graph(device, network):
    """A captured network takes new images; the twin is its second call."""
    model, first = network[0].to(device), network[1].to(device)
    second = first.flip(0)
    if device.type == 'cpu':
        model(first)
        outs = model(second.clone())
    else:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(first)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outs = model(first)
        first.copy_(second)
        graph.replay()
    for out, reference in zip(outs, model(second)):
        torch.testing.assert_close(out, reference)


@pytest.mark.compiler
@torch.no_grad()
def test_compiled(device, network, request, record_property):
    """torch.compile takes the whole backbone, in one graph."""
    if device.type == 'cpu' and 'deployed' in request.node.callspec.id:
        pytest.skip('CPU: tests/test_deploy has the deployed one')
    model, x = network[0].to(device), network[1].to(device)
    if device.type == 'cpu':
        # Where each of 55 kernels is a run of the C++ compiler; so 20 are.
        model.out_indices = (0,)
    with precision('fp32'):
        expected = [out.cpu() for out in model(x)]
        outs = torch.compile(model, fullgraph=True)(x)
    error = worst(outs, expected)
    record_property('error', f'{error:.1e}')
    assert error <= 1e-5


@pytest.mark.parametrize('name', ['bf16', 'fp16'])
def test_training_in_mixed_precision(device, name, record_property):
    """Ten steps of AdamW on one batch lower the loss."""
    if device.type == 'cpu' and name == 'fp16':
        pytest.skip('CPU: float16 has no gradients there')
    torch.manual_seed(0)
    arch = dict(base='t2', channels=(32, 48, 64), depths=(1, 1, 1))
    model = MobileMamba(arch).to(device).train()
    head = torch.nn.Linear(64, 10).to(device)
    x = torch.randn(8, 3, 64, 64, device=device)
    target = torch.arange(8, device=device)
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()])
    scaler = torch.amp.GradScaler('cuda', enabled=name == 'fp16')
    losses = []
    for _ in range(10):
        with torch.autocast(device.type, DTYPES[name]):
            features = model(x)[-1].mean((2, 3))
            loss = torch.nn.functional.cross_entropy(head(features), target)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(float(loss))
    record_property('losses', f'{losses[0]:.2f} to {losses[-1]:.2f}')
    assert losses[-1] < 0.5 * losses[0]


@torch.no_grad()
def test_second_device(device, network):
    """A network that is not on the first GPU; the twin is on the CPU."""
    if device.type == 'cuda':
        if torch.cuda.device_count() < 2:
            pytest.skip('one GPU only')
        other = torch.device('cuda', 1)
    else:
        other = device
    model, x = network
    with precision('fp32'):
        expected = [
            out.cpu() for out in copy.deepcopy(model).to(device)(x.to(device))
        ]
        outs = model.to(other)(x.to(other))
    assert all(out.device == other for out in outs)
    assert worst(outs, expected) <= 1e-5
