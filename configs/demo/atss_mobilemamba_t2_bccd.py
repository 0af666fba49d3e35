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

model = dict(bbox_head=dict(num_classes=num_classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # Three quarters to all of the width and of the height; as each crop is
    # resized to the same size, nothing is padded. Images and crops without
    # an object serve as background.
    dict(
        type='RandomCrop',
        crop_type='relative_range',
        crop_size=(0.75, 0.75),
        allow_negative_crop=True,
    ),
    dict(type='Resize', scale=_base_.image_size, keep_ratio=False),
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

# About 1,000 iterations: for fewer images take more epochs.
train_cfg = dict(max_epochs=40, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
