# As the B1 config, from the backbone that was pretrained at 512 px
# (paper: 23.9 AP).
_base_ = './ssdlite_mobilemamba_b1_320.py'

model = dict(backbone=dict(arch='b4'))
