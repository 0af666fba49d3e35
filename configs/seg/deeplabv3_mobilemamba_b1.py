# As the B4 config, from the backbone that was pretrained at 256 px
# (paper: 36.7 mIoU).
_base_ = './deeplabv3_mobilemamba_b4.py'

model = dict(backbone=dict(arch='b1'))
