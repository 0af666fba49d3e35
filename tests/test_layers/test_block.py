"""Tests of mmmamba/layers/block.py."""

import torch
from golden import randomize, relative_error

from mmmamba.layers import MobileMambaBlock


def make_block(**kwargs) -> MobileMambaBlock:
    torch.manual_seed(0)
    return MobileMambaBlock(
        24, global_ratio=0.7, local_ratio=0.2, kernel_size=3, **kwargs
    )


def test_starts_as_twice_the_identity():
    """All five inner branches are zero; the outer skip adds the input."""
    block = make_block()
    x = torch.randn(2, 24, 5, 7)
    assert torch.equal(block(x), 2 * x)
    branches = [
        block.dwconv1,
        block.ffn1.pw2,
        block.mixer.proj,
        block.dwconv2,
        block.ffn2.pw2,
    ]
    assert not any(b.bn.weight.any() for b in branches)


def test_norms_that_do_not_start_at_zero_start_at_one():
    block = make_block()
    block.init_weights()
    weights = [
        m.weight
        for m in block.modules()
        if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.LayerNorm))
    ]
    assert sum(not w.any() for w in weights) == 5
    assert sum(bool((w == 1).all()) for w in weights) == len(weights) - 5


@torch.no_grad()
def test_order_and_residuals():
    block = randomize(make_block()).eval()
    x = shortcut = torch.randn(2, 24, 5, 7)
    names = ('dwconv1', 'ffn1', 'mixer', 'dwconv2', 'ffn2')
    for name in names:
        x = x + block.get_submodule(name)(x)
    assert relative_error(block(shortcut), shortcut + x) <= 1e-6


@torch.no_grad()
def test_drop_path_drops_samples_and_keeps_the_outer_skip():
    block = randomize(make_block(drop_path_rate=0.5)).eval()
    x = torch.randn(16, 24, 4, 4)
    branch = block(x) - x
    block.drop_path.train()
    out = block(x) - x
    dropped = [not sample.any() for sample in out]
    assert 0 < sum(dropped) < 16
    kept = [not d for d in dropped]
    assert relative_error(out[kept], 2 * branch[kept]) <= 1e-5
