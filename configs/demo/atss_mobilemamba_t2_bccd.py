# An example of your own data set: blood cells (BCCD), COCO format, 3 classes.
# Copy ../_base_/datasets/bccd.py and change what is marked there; copy this
# file and name your data set's file here. README.md explains it.
_base_ = [
    '../_base_/models/atss_mobilemamba_light.py',
    '../_base_/datasets/bccd.py',  # yours
    '../_base_/schedules/schedule_light.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

num_classes = len(_base_.metainfo.classes)
max_epochs = 40

model = dict(bbox_head=dict(num_classes=num_classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomResize',
        scale=_base_.image_size,
        ratio_range=(0.75, 1.25),
        keep_ratio=True,
    ),
    # Cells have no right way up; for everyday pictures use prob=0.5 alone.
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=4,  # in each of two processes
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=4)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = _base_.param_scheduler
param_scheduler[1].T_max = max_epochs
