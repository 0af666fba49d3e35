# Learns drawn shapes (tools/dataset_tools/make_shapes.py) from scratch in
# minutes on two CPU cores, with a backbone of a third of MobileMamba-T2.
_base_ = [
    '../_base_/models/atss_mobilemamba_light.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_light.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

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
        scale=_base_.image_size,
        ratio_range=(0.75, 1.0),
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=4)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].T_max = max_epochs
randomness = dict(seed=0)
