"""Tests of mmmamba/checkpoint/names.py."""

import re

import pytest
from checkpoints import MODELS, structure, without_heads
from golden import published_keys

from mmmamba.checkpoint import from_published, is_published, to_published


def test_published_key_files_are_there():
    assert {'t2', 's6', 'b1', 'retinanet_b1', 'fpn_b4'} <= set(MODELS)


@pytest.mark.parametrize('name', MODELS)
def test_names_are_a_bijection_onto_the_state_dict(name):
    keys = without_heads(published_keys(name))
    if any(n.startswith('backbone.') for n in keys):
        keys = {
            n.removeprefix('backbone.'): shape
            for n, shape in keys.items()
            if n.startswith('backbone.')
        }
    arch = re.search(r'(?:^|_)([tsb]\d)(?:_|$)', name)[1]
    state_dict = structure(arch).state_dict()

    assert is_published(keys)
    assert not is_published(state_dict)
    ours = {from_published(n): tuple(shape) for n, shape in keys.items()}
    assert len(ours) == len(keys)
    assert ours == {n: tuple(t.shape) for n, t in state_dict.items()}
    assert [to_published(n) for n in ours] == list(keys)


# Written by hand from the description of the published layout: shapes alone
# would not tell apart, say, a block's two depthwise branches.
@pytest.mark.parametrize(
    'published, ours',
    [
        ('patch_embed.0.c.weight', 'stem.0.conv.weight'),
        ('patch_embed.6.bn.running_var', 'stem.3.bn.running_var'),
        ('blocks1.0.dw0.m.c.weight', 'stages.0.blocks.0.dwconv1.conv.weight'),
        ('blocks1.1.ffn1.m.pw2.bn.bias', 'stages.0.blocks.1.ffn2.pw2.bn.bias'),
        ('blocks2.0.0.m.bn.weight', 'stages.1.transition.dwconv1.bn.weight'),
        (
            'blocks2.0.1.m.pw1.c.weight',
            'stages.1.transition.ffn1.pw1.conv.weight',
        ),
        (
            'blocks3.1.conv3.c.weight',
            'stages.2.transition.merging.project.conv.weight',
        ),
        ('blocks3.2.0.m.c.weight', 'stages.2.transition.dwconv2.conv.weight'),
        (
            'blocks3.2.1.m.pw2.c.weight',
            'stages.2.transition.ffn2.pw2.conv.weight',
        ),
        ('blocks2.3.dw1.m.c.weight', 'stages.1.blocks.0.dwconv2.conv.weight'),
        (
            'blocks3.4.mixer.m.attn.proj.1.c.weight',
            'stages.2.blocks.1.mixer.proj.conv.weight',
        ),
        (
            'blocks1.0.mixer.m.attn.local_op.dwconv3x3.weight',
            'stages.0.blocks.0.mixer.local_branch.parts.0.0.conv.weight',
        ),
        (
            'blocks1.0.mixer.m.attn.local_op.bn2.bias',
            'stages.0.blocks.0.mixer.local_branch.parts.0.1.bn.bias',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.base_scale.weight',
            'stages.1.blocks.0.mixer.global_branch.base_scale',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.wavelet_scale.0.weight',
            'stages.1.blocks.0.mixer.global_branch.wavelet.scale',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.iwt_filter',
            'stages.1.blocks.0.mixer.global_branch.wavelet.inverse_filter',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.A_logs',
            'stages.1.blocks.0.mixer.global_branch.ssm.A_log',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.Ds',
            'stages.1.blocks.0.mixer.global_branch.ssm.D',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.out_norm.weight',
            'stages.1.blocks.0.mixer.global_branch.ssm.out_norm.weight',
        ),
    ],
)
def test_names_by_hand(published, ours):
    assert from_published(published) == ours
    assert to_published(ours) == published
    assert published in published_keys('b1')
