# As the B1 config, from the backbone that was pretrained at 512 px
# (paper: 39.5 AP).
_base_ = './retinanet_mobilemamba_b1.py'

model = dict(backbone=dict(arch='b4'))
