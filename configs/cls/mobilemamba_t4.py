# MobileMamba-T4 on ImageNet-1K at 192 px, as published.
_base_ = './mobilemamba_t2.py'

model = dict(backbone=dict(arch='t4'), head=dict(in_channels=448))
