# PSPNet on MobileMamba-B4, ADE20K, 80k iterations (published: 36.9 mIoU).
_base_ = [
    '../_base_/mmmamba.py',
    '../_base_/pspnet_mobilemamba.py',
    '../_base_/segmentation.py',
    '../_base_/schedule_80k.py',
]
