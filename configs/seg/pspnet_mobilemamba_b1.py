# As the B4 config, from the backbone that was pretrained at 256 px
# (paper: 36.5 mIoU).
_base_ = './pspnet_mobilemamba_b4.py'

model = dict(backbone=dict(arch='b1'))
