# SSDLite on MobileMamba-B1 at 512 px, COCO, 120 epochs of five passes
# (published: 29.5 AP). The anchors stay those of 320 px.
_base_ = '../_base_/models/ssdlite_mobilemamba.py'

image_size = (512, 512)
train_pipeline = _base_.train_pipeline
train_pipeline[4].scale = image_size  # of its Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
analysis_shape = image_size
