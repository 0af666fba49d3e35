# Semantic FPN on the three stages of MobileMamba (strides 16, 32, 64).
_base_ = 'mmseg::_base_/models/fpn_r50.py'

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='b4',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    neck=dict(in_channels=[200, 376, 448], num_outs=3),
    decode_head=dict(
        in_channels=[256, 256, 256],
        in_index=[0, 1, 2],
        feature_strides=[16, 32, 64],
        num_classes=150,
    ),
)
