# As the B4 config, from the backbone that was pretrained at 256 px
# (paper: 40.7 mIoU).
_base_ = './fpn_mobilemamba_b4.py'

model = dict(backbone=dict(arch='b1'))
