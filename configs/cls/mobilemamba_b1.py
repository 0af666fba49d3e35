# MobileMamba-B1 with its 1000-class head, pretrained at 256 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='b1'), head=dict(in_channels=448))
analysis_shape = (256, 256)
