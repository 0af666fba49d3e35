# Learns drawn shapes (tools/dataset_tools/make_shapes.py) from scratch in
# minutes on two CPU cores, with a backbone of a third of MobileMamba-T2.
_base_ = '../_base_/models/atss_mobilemamba_light.py'

data_root = 'data/shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle'))
image_size = (256, 256)
max_epochs = 18

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='t2',
            channels=(96, 160, 224),
            depths=(1, 1, 1),
        ),
    ),
    neck=dict(in_channels=[96, 160, 224]),
    bbox_head=dict(num_classes=3),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.75, 1.0),
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size  # of its Resize

train_dataloader = dict(
    batch_size=4,
    num_workers=0,  # a worker would take a core from the training
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
_base_.param_scheduler[1].T_max = max_epochs
param_scheduler = _base_.param_scheduler
randomness = dict(seed=0)
