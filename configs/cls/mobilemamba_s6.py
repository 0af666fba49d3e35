# MobileMamba-S6 on ImageNet-1K at 224 px, as published.
_base_ = [
    '../_base_/models/classifier_mobilemamba.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
]

model = dict(backbone=dict(arch='s6'))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 224
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 256  # the crop is 0.875 of it
test_pipeline[2].crop_size = 224
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
analysis_shape = (224, 224)
