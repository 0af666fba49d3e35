"""Tests of mmmamba/layers/ssm.py."""

import pytest
import torch
import torch.nn.functional as F
from golden import randomize, relative_error
from torch import Tensor

from mmmamba.layers import SSM


def make_ssm(channels=8, **kwargs) -> SSM:
    torch.manual_seed(0)
    return randomize(SSM(channels, **kwargs)).eval()


def conv_bn(x: Tensor, unit) -> Tensor:
    """Pointwise convolution and batch norm."""
    bn = unit.bn
    x = F.conv2d(x, unit.conv.weight)
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def positions(direction: int, height: int, width: int) -> list:
    """The (row, column) pairs in the order a direction reads them."""
    order = (
        [(i, j) for i in range(height) for j in range(width)]
        if direction < 2
        else [(i, j) for j in range(width) for i in range(height)]
    )
    return order[::-1] if direction % 2 else order


def reference(ssm: SSM, x: Tensor) -> Tensor:
    """The definition, sample by sample and position by position."""
    params = {n: p.detach() for n, p in ssm.named_parameters(recurse=False)}
    height, width = x.shape[-2:]
    N, R = ssm.d_state, -(-x.shape[1] // 16)
    x, z = conv_bn(x, ssm.in_proj).chunk(2, dim=1)
    D = x.shape[1]
    x = F.silu(
        F.conv2d(x, ssm.dwconv.weight, ssm.dwconv.bias, padding=1, groups=D)
    )
    y = torch.zeros_like(x)
    for sample in range(x.shape[0]):
        for k in range(ssm.directions):
            A = -torch.exp(params['A_log'][k * D : (k + 1) * D])
            skip = params['D'][k * D : (k + 1) * D]
            h = torch.zeros(D, N, dtype=x.dtype)
            for i, j in positions(k, height, width):
                x_t = x[sample, :, i, j]
                dt, B, C = (params['x_proj_weight'][k] @ x_t).split([R, N, N])
                delta = F.softplus(
                    params['dt_proj_weight'][k] @ dt
                    + params['dt_proj_bias'][k]
                )[:, None]
                h = torch.exp(delta * A) * h + delta * B * x_t[:, None]
                y[sample, :, i, j] += h @ C + skip * x_t
    norm = ssm.out_norm
    y = F.layer_norm(
        y.permute(0, 2, 3, 1), (D,), norm.weight, norm.bias, eps=1e-5
    ).permute(0, 3, 1, 2)
    return conv_bn(y * F.silu(z), ssm.out_proj)


@pytest.mark.parametrize('directions', [1, 2, 4])
@pytest.mark.parametrize(
    'channels, settings',
    [
        (8, dict()),
        (8, dict(d_state=3)),
        (24, dict(ssm_ratio=1.5, d_state=2)),  # a rank of 2
    ],
)
@torch.no_grad()
def test_equals_reference(channels, settings, directions):
    ssm = make_ssm(channels, directions=directions, **settings)
    x = torch.randn(2, channels, 5, 7)
    assert relative_error(ssm(x), reference(ssm.double(), x.double())) <= 1e-5


@torch.no_grad()
def test_float64_is_float64_throughout():
    ssm = make_ssm(directions=4).double()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    assert relative_error(ssm(x), reference(ssm, x)) <= 1e-12


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (6, 1)])
@torch.no_grad()
def test_thin_maps(size):
    ssm = make_ssm(directions=4)
    x = torch.randn(1, 8, *size)
    assert relative_error(ssm(x), reference(ssm.double(), x.double())) <= 1e-5


@pytest.mark.parametrize('directions', [1, 2, 4])
@torch.no_grad()
def test_samples_are_independent(directions):
    ssm = make_ssm(directions=directions)
    x = torch.randn(3, 8, 5, 7)
    alone = torch.cat([ssm(sample[None]) for sample in x])
    assert relative_error(ssm(x), alone) <= 1e-6


def test_gradients_of_samples_are_independent():
    ssm = make_ssm()
    x = torch.randn(3, 8, 5, 7, requires_grad=True)
    ssm(x)[1].square().sum().backward()
    assert x.grad[1].any()
    assert not x.grad[[0, 2]].any()


def test_reach_of_the_directions():
    """One direction sees what came before, two and four see everything."""
    for directions, sees_later in ((1, False), (2, True), (4, True)):
        ssm = make_ssm(directions=directions)
        x = torch.randn(1, 16, 5, 7, requires_grad=True)
        ssm.scan(x)[0, :, 17].sum().backward()
        grad = x.grad[0].flatten(1).abs().sum(0)
        assert (grad[:18] > 0).all()
        assert bool((grad[18:] > 0).all()) == sees_later
        assert bool(grad[18:].any()) == sees_later


@pytest.mark.parametrize(
    'channels, rank', [(8, 1), (16, 1), (17, 2), (160, 10)]
)
def test_shapes(channels, rank):
    ssm = SSM(channels, ssm_ratio=1.5, d_state=4, directions=2)
    D = int(1.5 * channels)
    shapes = {
        n: tuple(p.shape) for n, p in ssm.named_parameters(recurse=False)
    }
    assert shapes == dict(
        x_proj_weight=(2, rank + 8, D),
        dt_proj_weight=(2, D, rank),
        dt_proj_bias=(2, D),
        A_log=(2 * D, 4),
        D=(2 * D,),
    )


def test_initialization():
    torch.manual_seed(0)
    ssm = SSM(160)
    for tensor in (ssm.dt_proj_weight, ssm.dt_proj_bias):
        assert 0 <= tensor.min() < 0.01
        assert 0.09 < tensor.max() < 0.1
    assert not ssm.A_log.any()
    assert (ssm.D == 1).all()
    # as nn.Linear: uniform within 1 / sqrt(fan_in)
    bound = 320**-0.5
    assert 0.95 * bound < ssm.x_proj_weight.max() <= bound
    assert -bound <= ssm.x_proj_weight.min() < -0.95 * bound
    assert abs(ssm.x_proj_weight.mean()) < 0.05 * bound
    for norm in (ssm.in_proj.bn, ssm.out_norm, ssm.out_proj.bn):
        assert (norm.weight == 1).all()
        assert not norm.bias.any()
