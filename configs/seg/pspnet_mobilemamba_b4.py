# PSPNet on MobileMamba-B4, ADE20K, 80k iterations (published: 36.9 mIoU).
_base_ = [
    '../_base_/mmmamba.py',
    '../_base_/models/pspnet_mobilemamba.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k.py',
    'mmseg::_base_/default_runtime.py',
]
