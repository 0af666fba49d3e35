# MobileMamba-B4 with its 1000-class head, pretrained at 512 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='b4'), head=dict(in_channels=448))
analysis_shape = (512, 512)
