# MobileMamba-T2 with its 1000-class head, pretrained at 192 px.
_base_ = '../_base_/classifier_mobilemamba.py'

model = dict(backbone=dict(arch='t2'), head=dict(in_channels=368))
analysis_shape = (192, 192)
