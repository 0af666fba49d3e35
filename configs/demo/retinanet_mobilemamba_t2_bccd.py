# RetinaNet on MobileMamba-T2 learns BCCD's blood cells from scratch; its
# pyramid and head are a quarter as wide as on COCO.
_base_ = [
    '../_base_/models/retinanet_mobilemamba.py',
    '../_base_/datasets/bccd.py',
    '../_base_/schedules/schedule_light.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

model = dict(
    backbone=dict(arch='t2', norm_eval=False, init_cfg=None),
    neck=dict(out_channels=64),
    bbox_head=dict(
        num_classes=len(_base_.metainfo.classes),
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
    ),
)
