# UPerNet on MobileMamba-B4, ADE20K, 160k iterations.
# Ours, and not trained here; nobody has published it.
_base_ = [
    '../_base_/mmmamba.py',
    'mmseg::_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
    'mmseg::_base_/default_runtime.py',
]

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
    decode_head=dict(
        in_channels=[200, 376, 448], in_index=[0, 1, 2], num_classes=150
    ),
    auxiliary_head=dict(in_channels=376, in_index=1, num_classes=150),
)
