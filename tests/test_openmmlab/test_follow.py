"""Channels of necks and heads follow the arch of the backbone."""

import re

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.registry import MODELS

from mmmamba.openmmlab.follow import check_backbone, follow_backbone


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


@pytest.mark.parametrize('kind', [list, tuple])
@pytest.mark.parametrize('name', ['decode_head', 'panoptic_head'])
def test_a_head_of_all_maps(name, kind):
    """Mask2Former's names no in_index."""
    followed = follow_backbone(model(**{name: dict(in_channels=kind([1, 2]))}))
    assert followed[name].in_channels == kind([144, 272, 368])


def test_a_head_inside_of_a_head():
    head = dict(kernel_generate_head=dict(in_channels=1, in_index=0))
    followed = follow_backbone(model(decode_head=head))
    assert followed.decode_head.kernel_generate_head.in_channels == 144


def test_heads_of_tasks():
    tasks = dict(a=dict(type='LinearClsHead'), b=dict(in_channels=1))
    pooled = dict(type='GlobalAveragePooling')
    head = dict(type='MultiTaskHead', task_heads=tasks)
    followed = follow_backbone(model(neck=pooled, head=head)).head
    assert [t.in_channels for t in followed.task_heads.values()] == [368, 368]
    assert 'in_channels' not in followed
    head['in_channels'] = 1
    followed = follow_backbone(model(neck=pooled, head=head)).head
    assert followed.in_channels == 368
    assert [t.in_channels for t in followed.task_heads.values()] == [368, 368]


def test_low_level_map_of_deeplabv3plus():
    head = dict(in_channels=1, in_index=2, c1_in_channels=2)
    followed = follow_backbone(model(decode_head=head))
    assert followed.decode_head.in_channels == 368
    assert followed.decode_head.c1_in_channels == 144


def test_neck_of_the_last_map():
    neck = dict(type='DilatedEncoder', in_channels=2048)
    assert follow_backbone(model(neck=neck)).neck.in_channels == 368


def test_neck_from_coarse_to_fine():
    neck = dict(type='YOLOV3Neck', in_channels=[3, 2, 1])
    followed = follow_backbone(model(neck=neck))
    assert followed.neck.in_channels == [368, 272, 144]


def test_jpu_hands_on_all_maps_but_the_last():
    followed = follow_backbone(
        model(
            neck=dict(type='JPU', in_channels=(1, 2, 3), mid_channels=8),
            decode_head=dict(in_channels=1, in_index=2),
            auxiliary_head=dict(in_channels=1, in_index=1),
        )
    )
    assert followed.neck.in_channels == (144, 272, 368)
    assert followed.decode_head.in_channels == 4 * 8
    assert followed.auxiliary_head.in_channels == 272


def test_one_map_and_no_neck():
    """Faster R-CNN on a single map, mmdet's dc5 configs."""
    followed = follow_backbone(
        model(
            out_indices=(1,),
            rpn_head=dict(in_channels=2048),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=2048),
                bbox_head=[dict(in_channels=2048)],
            ),
        )
    )
    assert followed.rpn_head.in_channels == 272
    assert followed.roi_head.bbox_roi_extractor.out_channels == 272
    assert followed.roi_head.bbox_head[0].in_channels == 272


def test_bbox_head_without_neck():
    head = dict(type='YOLOV3Head', in_channels=[3, 2, 1])
    followed = follow_backbone(model(bbox_head=head))
    assert followed.bbox_head.in_channels == [144, 272, 368]


def test_embed_dim_of_equal_maps():
    neck = dict(type='Feature2Pyramid', embed_dim=768, rescales=[2, 1, 0.5])
    head = dict(in_channels=[1, 1], in_index=[0, 1])
    followed = follow_backbone(
        model(arch=dict(channels=[64] * 3), neck=neck, decode_head=head)
    )
    assert followed.neck.embed_dim == 64
    assert followed.decode_head.in_channels == [64, 64]


@pytest.mark.parametrize(
    ('parts', 'named'),
    [
        (
            dict(neck=dict(type='Feature2Pyramid', embed_dim=768)),
            r'neck \(Feature2Pyramid\) does not follow the backbone: '
            'embed_dim=768 is for maps of one width, and it gets 144, 272, '
            "368; put a neck before it .type='MobileMambaFPN'",
        ),
        (
            dict(bbox_head=dict(type='RetinaHead', in_channels=256)),
            r'bbox_head \(RetinaHead\) .* backbone.out_indices name one',
        ),
        (
            dict(roi_head=dict(shared_head=dict(type='ResLayer'))),
            r'roi_head \(ResLayer\) .* write shared_head=None',
        ),
    ],
    ids=['neck', 'head', 'shared head'],
)
def test_what_cannot_follow_is_named(parts, named, caplog):
    logger = MMLogger.get_instance('follow')
    logger.addHandler(caplog.handler)
    cfg = model(**parts)
    assert follow_backbone(cfg) is cfg
    logger.removeHandler(caplog.handler)
    assert re.search(named, caplog.text)


def test_another_teacher():
    cfg = model(
        neck=dict(in_channels=[1]),
        teacher_backbone=dict(type='MobileMamba', arch='s6'),
        teacher_neck=dict(in_channels=[1]),
    )
    followed = follow_backbone(cfg)
    assert followed.neck.in_channels == [144, 272, 368]
    assert followed.teacher_neck.in_channels == [192, 384, 448]


@pytest.mark.parametrize(
    ('inherited', 'remedy'),
    [
        (dict(pretrained='open-mmlab://r50'), 'write pretrained=None in mod'),
        (dict(depth=50, style='caffe'), 'no argument depth, style.*_delete_'),
    ],
)
def test_arguments_of_another_backbone(inherited, remedy):
    with pytest.raises(TypeError, match=remedy):
        MODELS.build(dict(type='MobileMamba', arch='t2', **inherited))


def test_arguments_of_ours():
    cfg = dict(type='MobileMamba', arch='t2', _scope_='mmdet', deploy=False)
    check_backbone(cfg)


def test_arch_of_a_child_config(tmp_path):
    """mmengine merges no dict into a name, and says what to write."""
    (tmp_path / 'base.py').write_text("model = dict(arch='t2')")
    child = tmp_path / 'child.py'
    text = "_base_ = 'base.py'\nmodel = dict(arch=dict({}base='t2'))"
    child.write_text(text.format(''))
    with pytest.raises(TypeError, match='_delete_=True'):
        Config.fromfile(child)
    child.write_text(text.format('_delete_=True, '))
    assert Config.fromfile(child).model.arch == dict(base='t2')


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


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), 3])
def test_stages_that_the_backbone_lacks(out_indices):
    """Left over from a ResNet; the backbone's own error names them."""
    cfg = model(out_indices=out_indices, neck=dict(type='FPN', in_channels=9))
    assert follow_backbone(cfg) == cfg
    with pytest.raises(ValueError, match='out_indices=.* must name'):
        MODELS.build(cfg.backbone)


def test_index_beyond_the_outputs():
    head = dict(type='FCNHead', in_channels=1, in_index=3)
    with pytest.raises(ValueError, match='in_index=3 of FCNHead is beyond'):
        follow_backbone(model(decode_head=head))


def test_unknown_arch_is_named():
    with pytest.raises(ValueError, match="unknown arch 'b9'"):
        follow_backbone(model(arch='b9'))
