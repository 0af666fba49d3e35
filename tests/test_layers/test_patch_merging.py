"""Tests of mmmamba/layers/patch_merging.py."""

import pytest
import torch
import torch.nn.functional as F
from golden import randomize, relative_error

from mmmamba.layers import PatchMerging, Transition
from mmmamba.layers.patch_merging import SqueezeExcite


def conv_bn(x, unit, **kwargs):
    bn = unit.bn
    x = F.conv2d(x, unit.conv.weight, **kwargs)
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


def squeeze_excite(x, se):
    gate = x.mean((2, 3)) @ se.fc1.weight[..., 0, 0].T + se.fc1.bias
    gate = gate.relu() @ se.fc2.weight[..., 0, 0].T + se.fc2.bias
    return x * torch.sigmoid(gate)[..., None, None]


@torch.no_grad()
def test_squeeze_excite():
    torch.manual_seed(0)
    se = SqueezeExcite(12, 3)
    x = torch.randn(2, 12, 5, 7)
    assert se.fc1.weight.shape == (3, 12, 1, 1)
    assert relative_error(se(x), squeeze_excite(x, se)) <= 1e-6


@pytest.mark.parametrize('size', [(4, 6), (5, 7), (1, 1), (1, 4)])
@torch.no_grad()
def test_patch_merging(size):
    torch.manual_seed(0)
    merging = randomize(PatchMerging(3, 5)).eval()
    x = torch.randn(2, 3, *size)
    ref = conv_bn(x, merging.expand).relu()
    ref = conv_bn(ref, merging.dwconv, stride=2, padding=1, groups=12).relu()
    ref = conv_bn(squeeze_excite(ref, merging.se), merging.project)
    out = merging(x)
    assert out.shape == (2, 5, -(-size[0] // 2), -(-size[1] // 2))
    assert merging.se.fc1.weight.shape[:2] == (3, 12)
    assert relative_error(out, ref) <= 1e-6


@torch.no_grad()
def test_transition():
    torch.manual_seed(0)
    transition = randomize(Transition(3, 5)).eval()
    x = torch.randn(2, 3, 5, 7)
    ref = x + conv_bn(x, transition.dwconv1, padding=1, groups=3)
    ref = transition.merging(ref + transition.ffn1(ref))
    ref = ref + conv_bn(ref, transition.dwconv2, padding=1, groups=5)
    ref = ref + transition.ffn2(ref)
    assert relative_error(transition(x), ref) <= 1e-6


def test_initial_norms():
    """Here the depthwise branches start at one, not at zero."""
    transition = Transition(3, 5)
    transition.init_weights()
    for name in ('dwconv1', 'dwconv2'):
        assert (transition.get_submodule(name).bn.weight == 1).all()
    for name in ('ffn1', 'ffn2'):
        assert not transition.get_submodule(name).pw2.bn.weight.any()
