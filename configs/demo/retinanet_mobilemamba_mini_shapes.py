# Learns the drawn shapes from scratch in minutes on two CPU cores: RetinaNet
# with a backbone of the size of a third of MobileMamba-T2.
_base_ = [
    '../_base_/retinanet_mobilemamba_light.py',
    '../_base_/shapes_detection.py',
    '../_base_/schedule_scratch.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='t2',
            channels=(96, 160, 224),
            depths=(1, 1, 1),
        ),
    ),
    neck=dict(in_channels=[96, 160, 224]),
    bbox_head=dict(
        num_classes=3,
        # The shapes are as wide as they are high.
        anchor_generator=dict(ratios=[1.0]),
    ),
)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
