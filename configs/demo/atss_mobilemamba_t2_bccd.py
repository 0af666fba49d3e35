# An example of your own data set: blood cells (BCCD), COCO format, 3 classes.
# Copy this file and change what is marked; README.md explains it.
_base_ = '../_base_/models/atss_mobilemamba_light.py'

data_root = 'data/bccd/'  # yours
train_ann = 'annotations/instances_train.json'  # yours, below data_root
val_ann = 'annotations/instances_val.json'  # yours
train_images = 'train/'  # yours
val_images = 'val/'  # yours
# Your categories, in the order of the annotation file.
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
num_classes = 3
# Images are resized to fit into this; twice the size takes four times as long.
image_size = (320, 320)
max_epochs = 40

model = dict(bbox_head=dict(num_classes=num_classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomResize',
        scale=image_size,
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
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size  # of its Resize

train_dataloader = dict(
    batch_size=4,  # in each of two processes
    num_workers=0,  # more where there are cores to spare
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file=train_ann,
        data_prefix=dict(img=train_images),
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
        ann_file=val_ann,
        data_prefix=dict(img=val_images),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + val_ann)
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval=5)
_base_.param_scheduler[1].T_max = max_epochs
param_scheduler = _base_.param_scheduler
