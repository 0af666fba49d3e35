# A detector small enough to train from scratch on a CPU: ATSS, which has one
# anchor a position and learns fast, with a narrow pyramid and a short head on
# MobileMamba-T2. ATSS is RetinaNet with another choice of anchors and losses.
_base_ = './retinanet_mobilemamba.py'

model = dict(
    type='ATSS',
    backbone=dict(_delete_=True, type='MobileMamba', arch='t2'),
    neck=dict(in_channels=[144, 272, 368], out_channels=64),
    bbox_head=dict(
        type='ATSSHead',
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        anchor_generator=dict(
            octave_base_scale=8, scales_per_octave=1, ratios=[1.0]
        ),
        bbox_coder=dict(target_stds=[0.1, 0.1, 0.2, 0.2]),
        # From scratch, telling objects apart takes longer than finding them.
        loss_cls=dict(alpha=0.5, loss_weight=3.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(
            type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0
        ),
    ),
    train_cfg=dict(
        _delete_=True,
        assigner=dict(type='ATSSAssigner', topk=9),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.6)),
)
