# DeepLabv3 on MobileMamba-T2 learns CamVid's 11 classes from scratch.
_base_ = [
    '../_base_/mmmamba.py',
    '../_base_/models/deeplabv3_mobilemamba.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/schedule_2500.py',
    'mmseg::_base_/default_runtime.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.segmentation'],
    allow_failed_imports=False,
)

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch='t2', init_cfg=None),
    decode_head=dict(num_classes=len(_base_.metainfo.classes)),
    auxiliary_head=dict(num_classes=len(_base_.metainfo.classes)),
)
