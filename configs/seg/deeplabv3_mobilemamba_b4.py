# DeepLabv3 on MobileMamba-B4, ADE20K, 80k iterations (published: 36.6 mIoU).
_base_ = [
    '../_base_/mmmamba.py',
    '../_base_/models/deeplabv3_mobilemamba.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
]
