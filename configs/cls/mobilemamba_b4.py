# MobileMamba-B4 on ImageNet-1K at 512 px, as published.
_base_ = [
    '../_base_/models/classifier_mobilemamba.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
]

model = dict(backbone=dict(arch='b4'))

train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 512
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = 585  # the crop is 0.875 of it
test_pipeline[2].crop_size = 512
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
analysis_shape = (512, 512)
