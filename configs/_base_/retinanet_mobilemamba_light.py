# A RetinaNet small enough to train on a CPU: a narrow pyramid and a short
# head with group norm, which learns from scratch faster than one without.
_base_ = './retinanet_mobilemamba.py'

model = dict(
    backbone=dict(arch='t2', norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[144, 272, 368], out_channels=64),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        anchor_generator=dict(scales_per_octave=2),
    ),
)
