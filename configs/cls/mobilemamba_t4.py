# MobileMamba-T4 with its 1000-class head, pretrained at 192 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='t4'), head=dict(in_channels=448))
analysis_shape = (192, 192)
