# As the B1 config, from the backbone that was pretrained at 512 px
# (paper: 40.1 box AP, 36.9 mask AP).
_base_ = './mask_rcnn_mobilemamba_b1.py'

model = dict(backbone=dict(arch='b4'))
