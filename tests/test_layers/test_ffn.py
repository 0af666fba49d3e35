"""Tests of mmmamba/layers/ffn.py."""

import torch
from golden import randomize, relative_error

from mmmamba.layers import FFN


def test_forward():
    torch.manual_seed(0)
    ffn = randomize(FFN(6, ratio=3)).eval()
    x = torch.randn(2, 6, 5, 7)

    def conv_bn(x, unit):
        bn, weight = unit.bn, unit.conv.weight[..., 0, 0]
        x = torch.einsum('oc,bchw->bhwo', weight, x)
        scale = bn.weight / (bn.running_var + 1e-5).sqrt()
        x = (x - bn.running_mean) * scale + bn.bias
        return x.permute(0, 3, 1, 2)

    hidden = conv_bn(x, ffn.pw1)
    assert hidden.shape[1] == 18
    assert relative_error(ffn(x), conv_bn(hidden.relu(), ffn.pw2)) <= 1e-6


def test_starts_at_zero():
    ffn = FFN(6)
    assert not ffn(torch.ones(2, 6, 3, 3)).any()
    assert (ffn.pw1.bn.weight == 1).all()
