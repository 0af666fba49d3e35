"""Tests of mmmamba/layers/mixer.py."""

import pytest
import torch
from golden import published_keys, randomize, relative_error
from torch import nn
from torch.func import functional_call

from mmmamba.backbones import MobileMamba
from mmmamba.layers import MRFFI, WTEMamba


def make_mixer(channels=24, global_ratio=0.7, local_ratio=0.2, **kwargs):
    """16 global, 4 local and 4 identity channels unless told otherwise."""
    torch.manual_seed(0)
    mixer = MRFFI(channels, global_ratio, local_ratio, 3, **kwargs)
    return randomize(mixer).eval()


def published_split(keys: dict, stage: int) -> list[int]:
    """Channels of global, local and identity part, from tensor shapes."""
    prefix = f'blocks{stage + 1}.{3 if stage else 0}.mixer.m.attn.'
    shapes = {
        name.removeprefix('backbone.').removeprefix(prefix): shape
        for name, shape in keys.items()
        if prefix in name
    }
    channels = shapes['proj.1.c.weight'][1]
    global_channels = shapes['global_op.base_scale.weight'][1]
    local_channels = shapes['local_op.dwconv3x3.weight'][0]
    return [
        global_channels,
        local_channels,
        channels - global_channels - local_channels,
    ]


def arch_split(arch: str, stage: int) -> list[int]:
    settings = MobileMamba.arch_zoo[arch]
    return MRFFI(
        settings['channels'][stage],
        settings['global_ratio'][stage],
        settings['local_ratio'][stage],
        settings['kernel_sizes'][stage],
    ).split


@pytest.mark.parametrize('stage', range(3))
@pytest.mark.parametrize(
    'arch, keys',
    [('t2', 't2'), ('s6', 's6'), ('b1', 'b1'), ('b4', 'fpn_b4')],
)
def test_published_split(arch, keys, stage):
    expected = published_split(published_keys(keys), stage)
    assert arch_split(arch, stage) == expected


@pytest.mark.parametrize(
    'stage, split', enumerate([[144, 32, 0], [256, 73, 39], [272, 134, 42]])
)
def test_split_of_t4(stage, split):
    """By hand from the rule: there are no published names of T4."""
    assert arch_split('t4', stage) == split


@pytest.mark.parametrize(
    'channels, global_ratio, local_ratio, split',
    [
        (48, 0.5, 0.25, [32, 12, 4]),  # 24: the tie goes up
        (80, 0.5, 0.25, [48, 20, 12]),  # 40: and not to the even multiple
        (46, 0.5, 0.25, [16, 11, 19]),  # 23: down
        (50, 0.51, 0.25, [32, 12, 6]),  # 25: up
        (48, 0.51, 0.25, [32, 12, 4]),  # 24.48: truncated before rounding
        (47, 0.5, 0.25, [16, 11, 20]),  # 23.5: truncated, so no tie
        (40, 0.8, 0.5, [32, 8, 0]),  # 20 local channels yield
        (32, 1.0, 0.5, [32, 0, 0]),  # until none is left
        (32, 0.5, 0.0, [16, 0, 16]),
    ],
)
def test_split(channels, global_ratio, local_ratio, split):
    mixer = make_mixer(channels, global_ratio, local_ratio)
    assert mixer.split == split
    x = torch.randn(2, channels, 5, 7)
    assert mixer(x).shape == x.shape
    assert isinstance(mixer.local_branch, nn.Identity) == (not split[1])


@pytest.mark.parametrize(
    'channels, global_ratio, rounded', [(24, 0.2, 0), (24, 1.0, 32)]
)
def test_impossible_split(channels, global_ratio, rounded):
    with pytest.raises(
        ValueError,
        match=rf'global_ratio={global_ratio} of {channels} channels rounds to'
        rf' {rounded} .*not within 1..{channels}',
    ):
        MRFFI(channels, global_ratio, 0.2, 3)


@torch.no_grad()
def test_parts_do_not_mix_before_the_projection():
    mixer = make_mixer()
    assert mixer.split == [16, 4, 4]
    mixer.proj = nn.Identity()
    x = torch.randn(2, 24, 5, 7)
    out = mixer(x)
    parts = x.split(mixer.split, 1)
    expected = [
        mixer.global_branch(parts[0]),
        mixer.local_branch(parts[1]),
        parts[2],
    ]
    for part, branch in zip(out.split(mixer.split, 1), expected):
        assert torch.equal(part, branch.relu())
        assert part.any()


@torch.no_grad()
def test_projection_is_last():
    mixer = make_mixer()
    x = torch.randn(2, 24, 5, 7)
    projection, mixer.proj = mixer.proj, nn.Identity()
    expected = projection(mixer(x))
    mixer.proj = projection
    assert relative_error(mixer(x), expected) <= 1e-6


@torch.no_grad()
def test_global_branch_is_the_sum_of_scaled_ssm_and_wavelet():
    torch.manual_seed(0)
    branch = randomize(WTEMamba(16, 3, directions=4)).eval()
    assert (branch.base_scale == 1).all()
    branch.base_scale.uniform_(0.2, 2)
    x = torch.randn(2, 16, 5, 7)
    ssm, wavelet = branch.ssm(x), branch.wavelet(x)
    expected = branch.base_scale.view(-1, 1, 1) * ssm + wavelet
    assert relative_error(branch(x), expected) <= 1e-6
    assert ssm.any() and wavelet.any()


@torch.no_grad()
def test_without_wavelet():
    mixer = make_mixer(wavelet=False)
    assert not any('wavelet' in name for name in mixer.state_dict())
    branch = mixer.global_branch
    branch.base_scale.fill_(2)
    x = torch.randn(2, 16, 5, 7)
    assert torch.equal(branch(x), 2 * branch.ssm(x))


def test_settings_reach_the_branches():
    mixer = make_mixer(num_parts=2, ssm_ratio=3, d_state=5, directions=4)
    ssm = mixer.global_branch.ssm
    assert len(mixer.local_branch.parts) == 2
    assert ssm.A_log.shape == (4 * 48, 5)
    assert mixer.global_branch.wavelet.conv.kernel_size == (3, 3)


def test_starts_at_zero():
    mixer = MRFFI(24, 0.7, 0.2, 3)
    assert not mixer(torch.ones(2, 24, 4, 4)).any()
    assert not mixer.proj.bn.weight.any()


@pytest.mark.parametrize('directions', [2, 4])
@torch.no_grad()
def test_samples_are_independent(directions):
    mixer = make_mixer(directions=directions)
    x = torch.randn(3, 24, 5, 7)
    alone = torch.cat([mixer(sample[None]) for sample in x])
    assert relative_error(mixer(x), alone) <= 1e-6


@pytest.mark.slow
def test_gradcheck_of_the_input():
    mixer = make_mixer(d_state=2, directions=4, num_parts=2).double()
    x = torch.randn(1, 24, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mixer, x)


def test_gradients_of_the_parameters():
    """Each against a central difference along a random direction.

    ``gradcheck(fast_mode=True)`` is too lenient: it misses a factor of two.
    """
    mixer = make_mixer(d_state=2, directions=4, num_parts=2).double()
    x = torch.randn(2, 24, 3, 5, dtype=torch.float64)
    weight = torch.randn_like(x)
    (mixer(x) * weight).sum().backward()
    step = 1e-6
    for name, parameter in mixer.named_parameters():
        if not parameter.requires_grad:
            continue
        direction = torch.randn_like(parameter)
        direction *= parameter.shape.numel() ** 0.5 / direction.norm()
        expected = (parameter.grad * direction).sum()
        with torch.no_grad():
            ends = [
                functional_call(mixer, {name: parameter + t * direction}, x)
                for t in (step, -step)
            ]
        slope = ((ends[0] - ends[1]) * weight).sum() / (2 * step)
        assert abs(slope - expected) <= 1e-6 * parameter.grad.norm(), name
