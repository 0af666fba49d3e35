"""Tests of networks that are deployed with fewer bits."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from golden import load_golden, published_state_dict, relative_error
from mmengine.registry import HOOKS
from test_deploy.test_switch_to_deploy import SETTINGS, make_tiny
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.deploy import deploy_model, pack_products
from mmmamba.deploy.model import RoundedConv2d
from mmmamba.ops import has_dot_products, use_backend

# The bounds that docs/deploy.md gives.
BOUNDS = {'bfloat16': 5e-3, 'int8': 2e-2}


def deployed(model: MobileMamba, dtype: str) -> MobileMamba:
    model = copy.deepcopy(model)
    model.switch_to_deploy(dtype)
    return model


def errors(found, expected) -> list[float]:
    return [relative_error(*pair) for pair in zip(found, expected)]


@pytest.mark.parametrize(
    'name', ['t2_192x192', 's6_224x160_dist', 'b1_250x333']
)
@pytest.mark.parametrize('dtype', BOUNDS)
@torch.no_grad()
@pytest.mark.slow
def test_golden(name, dtype):
    arch = name.split('_')[0]
    model = MobileMamba(arch).eval()
    model.load_state_dict(published_state_dict(arch))
    model.switch_to_deploy(dtype)
    x, expected = load_golden(name)
    outs = model(x)
    expected = [expected[f'stage{i + 1}'] for i in range(3)]
    assert max(errors(outs, expected)) <= BOUNDS[dtype]
    assert all(out.dtype == torch.float32 for out in outs)


@pytest.mark.parametrize('arch', SETTINGS, ids=str)
@pytest.mark.parametrize('dtype', BOUNDS)
@torch.no_grad()
def test_every_setting(arch, dtype):
    """The compiled network, and that in PyTorch; odd channels among them."""
    model = make_tiny(arch)
    x = torch.randn(2, 3, 65, 97)
    expected = model(x)
    fast = deployed(model, dtype)
    found = errors(fast(x), expected)
    with use_backend('torch'):
        in_torch = errors(fast(x), expected)
    for error in (*found, *in_torch):
        assert 1e-5 < error <= 4 * BOUNDS[dtype]


@pytest.mark.parametrize('dtype', BOUNDS)
@torch.no_grad()
def test_samples_stay_apart(dtype):
    model = deployed(make_tiny(), dtype)
    x = torch.randn(4, 3, 64, 96)
    clean = model(x)
    x[2, 1, 7, 9] = torch.nan
    for out, expected in zip(model(x), clean):
        assert out[2].isnan().any()
        for sample in (0, 1, 3):
            assert torch.equal(out[sample], expected[sample])


@pytest.mark.parametrize('dtype', BOUNDS)
@torch.no_grad()
def test_state_dict(dtype):
    """Smaller than in float32, and loaded into the same form alone."""
    trained = make_tiny()
    plain, model = deployed(trained, 'float32'), deployed(trained, dtype)

    def size(state: dict) -> int:
        return sum(t.numel() * t.element_size() for t in state.values())

    assert size(model.state_dict()) < 0.75 * size(plain.state_dict())
    other = MobileMamba(trained.arch, deploy=dtype)
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for out, expected in zip(other(x), model(x)):
        assert torch.equal(out, expected)
    for wrong in ('float32', *(set(BOUNDS) - {dtype})):
        other = MobileMamba(trained.arch, deploy=wrong)
        with pytest.raises(RuntimeError, match='is deployed in'):
            other.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match=f"deploy='{dtype}'"):
        MobileMamba(trained.arch, deploy=True).load_state_dict(
            model.state_dict()
        )


def test_other_dtypes_are_refused():
    message = 'may be float32, bfloat16, int8, not'
    model = make_tiny()
    with pytest.raises(ValueError, match=message):
        model.switch_to_deploy('float16')
    assert not model.deploy
    with pytest.raises(ValueError, match=message):
        deploy_model(model, 'int4')
    with pytest.raises(ValueError, match=message):
        pack_products(model, 'uint8')
    with pytest.raises(ValueError, match=message):
        HOOKS.build(dict(type='SwitchToDeployHook', dtype='half'))


@torch.no_grad()
def test_a_whole_model_and_twice():
    model = nn.Sequential(make_tiny()).eval()
    x = torch.randn(1, 3, 64, 64)
    expected = deployed(model[0], 'int8')(x)
    deploy_model(model, 'int8')
    deploy_model(model, 'int8')  # what is packed is left alone
    for out, other in zip(model(x), expected):
        assert torch.equal(out, other)


class Standardized(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x):
        return F.conv2d(x, self.weight / self.weight.std(), self.bias)


@torch.no_grad()
def test_large_convolutions_of_heads(compiled):
    """In bfloat16, between float32 maps, where the CPU has it."""
    layers = [
        nn.Conv2d(256, 256, 1),
        nn.Conv2d(256, 256, 3, groups=256),
        nn.Conv2d(256, 256, 1, groups=2),
        nn.Conv2d(256, 255, 1),
        Standardized(256, 256, 1),
        nn.Conv2d(255, 257, 3),
    ]
    for layer in layers:
        x = torch.randn(2, layer.in_channels, 5, 6)
        expected = layer(x)
        large = layer in (layers[0], layers[5]) and has_dot_products(
            'bfloat16'
        )
        for _ in range(2):
            deploy_model(layer.eval(), 'int8')
            found = layer(x)
            assert found.dtype == torch.float32
            assert isinstance(layer, RoundedConv2d) == large
            assert layer.weight.dtype == torch.float32
            error = relative_error(found, expected)
            assert 0 < error < 1e-2 if large else error == 0
    layer = deploy_model(nn.Conv2d(256, 256, 1).eval(), 'float32')
    assert type(layer) is nn.Conv2d


@torch.no_grad()
def test_a_rounded_convolution_loads_weights(compiled, monkeypatch):
    monkeypatch.setattr(
        'mmmamba.deploy.network.multiplies_fewer_bits', lambda *_: True
    )
    first, second = (
        deploy_model(nn.Sequential(nn.Conv2d(256, 256, 1)).eval(), 'bfloat16')
        for _ in range(2)
    )
    assert isinstance(first[0], RoundedConv2d)
    x = torch.randn(1, 256, 4, 4)
    assert not torch.equal(first(x), second(x))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x))


@torch.no_grad()
def test_a_rounded_convolution_is_one_as_before(compiled):
    """Its weight may be shared, read, copied, saved; it may get a dtype."""
    first, second = nn.Conv2d(256, 256, 1), nn.Conv2d(256, 256, 1)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    x = torch.randn(1, 256, 4, 4)
    expected, state = model(x), copy.deepcopy(model.state_dict())
    deploy_model(model, 'bfloat16')
    assert relative_error(model(x), expected) < 2e-2
    assert relative_error(first(input=x), first(x)) == 0
    assert state.keys() == model.state_dict().keys()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), model(x))
    assert relative_error(model.double()(x.double()), expected) < 1e-5
    assert model.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_what_is_slow_is_said():
    model = make_tiny()
    model.switch_to_deploy()
    with use_backend('torch'), pytest.warns(UserWarning, match='slow here'):
        pack_products(model, 'int8')
    with pytest.raises(ValueError, match='already, and not in bfloat16'):
        pack_products(model, 'bfloat16')
    model = make_tiny().to('meta')
    with pytest.warns(UserWarning, match='they are for CPUs'):
        model.switch_to_deploy('int8')


@pytest.mark.parametrize('dtype', BOUNDS)
@torch.no_grad()
@pytest.mark.slow
def test_compile_and_export(dtype):
    model = deployed(make_tiny(), dtype)
    x = torch.randn(2, 3, 64, 96)
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True)(x)
    exported = torch.export.export(model, (x,)).module()(x)
    traced = torch.jit.trace(model, x)(x)
    for outs in (compiled, exported, traced):
        assert max(errors(outs, expected)) <= 5e-3


@pytest.mark.parametrize('dtype', BOUNDS)
def test_gradient_of_the_image(dtype):
    model = deployed(make_tiny(), dtype)
    x = torch.randn(1, 3, 64, 64, requires_grad=True)
    (grad,) = torch.autograd.grad(model(x)[-1].square().mean(), x)
    assert grad.isfinite().all() and grad.abs().max() > 0
