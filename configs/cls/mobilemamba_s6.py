# MobileMamba-S6 with its 1000-class head, pretrained at 224 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='s6'), head=dict(in_channels=448))
analysis_shape = (224, 224)
