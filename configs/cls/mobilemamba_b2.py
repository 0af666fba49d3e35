# MobileMamba-B2 with its 1000-class head, pretrained at 384 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='b2'), head=dict(in_channels=448))
analysis_shape = (384, 384)
