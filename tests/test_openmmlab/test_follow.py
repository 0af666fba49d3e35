"""Channels of necks and heads follow the arch of the backbone."""

import pytest
from mmengine.config import ConfigDict

from mmmamba.openmmlab.follow import follow_backbone


def model(arch='t2', out_indices=(0, 1, 2), **parts):
    backbone = dict(type='MobileMamba', arch=arch, out_indices=out_indices)
    return ConfigDict(type='Anything', backbone=backbone, **parts)


def test_neck():
    neck = dict(type='FPN', in_channels=[1, 2, 3], out_channels=8)
    followed = follow_backbone(model(neck=neck))
    # A list stays one, which mmseg's FPN asserts.
    assert followed.neck.in_channels == [144, 272, 368]
    assert neck['in_channels'] == [1, 2, 3]


def test_first_of_several_necks():
    necks = [dict(type='FPN', in_channels=(1, 2)), dict(type='DyHead')]
    followed = follow_backbone(model(out_indices=(1, 2), neck=necks))
    assert followed.neck[0].in_channels == (272, 368)
    assert followed.neck[1] == necks[1]


def test_ssd_neck_hands_its_inputs_on():
    neck = dict(
        type='SSDNeck', in_channels=(1, 2), out_channels=(1, 2, 512, 256)
    )
    head = dict(type='SSDHead', in_channels=(1, 2, 512, 256))
    followed = follow_backbone(
        model(out_indices=(0, 1), neck=neck, bbox_head=head)
    )
    assert followed.neck.in_channels == (144, 272)
    assert followed.neck.out_channels == (144, 272, 512, 256)
    assert followed.bbox_head.in_channels == (144, 272, 512, 256)


def test_heads_without_neck():
    followed = follow_backbone(
        model(
            arch=dict(channels=(16, 32, 64)),
            decode_head=dict(in_channels=[1, 2], in_index=[0, 2]),
            auxiliary_head=[
                dict(in_channels=1, in_index=1),
                dict(in_channels=1),
            ],
        )
    )
    assert followed.decode_head.in_channels == [16, 64]
    assert [h.in_channels for h in followed.auxiliary_head] == [32, 64]


def test_one_index_gives_one_width():
    head = dict(in_channels=[1], in_index=1)
    assert follow_backbone(model(decode_head=head)).decode_head == dict(
        in_channels=272, in_index=1
    )


@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='FPN', in_channels=[1]),
        dict(backbone=dict(type='ResNet'), neck=dict(in_channels=[1])),
        dict(model(neck=dict(type='FPN', in_channels=[144, 272, 368]))),
        # Heads take what a neck gives.
        dict(model(neck=dict(type='N'), decode_head=dict(in_channels=64))),
    ],
    ids=['no backbone', 'another backbone', 'nothing to change', 'own neck'],
)
def test_left_alone(cfg):
    assert follow_backbone(cfg) is cfg


def test_type_with_its_scope():
    backbone = dict(type='mmengine.MobileMamba', arch='t2')
    cfg = dict(backbone=backbone, neck=dict(type='FPN', in_channels=[1]))
    assert follow_backbone(cfg)['neck']['in_channels'] == [144, 272, 368]


def test_index_beyond_the_outputs():
    head = dict(type='FCNHead', in_channels=1, in_index=3)
    with pytest.raises(ValueError, match='in_index=3 of FCNHead is beyond'):
        follow_backbone(model(decode_head=head))


def test_unknown_arch_is_named():
    with pytest.raises(ValueError, match="unknown arch 'b9'"):
        follow_backbone(model(arch='b9'))
