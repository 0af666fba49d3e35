# An example of your own data set: blood cells (BCCD), COCO format, 3 classes.
# Copy this file and change what is marked; README.md explains it.
_base_ = [
    '../_base_/retinanet_mobilemamba_light.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedule_scratch.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

data_root = 'data/bccd/'  # yours
train_ann = 'annotations/instances_train.json'  # yours, below data_root
val_ann = 'annotations/instances_val.json'  # yours
train_images = 'train/'  # yours
val_images = 'val/'  # yours
# Your categories, in the order of the annotation file.
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
num_classes = 3
# Images are resized to fit into this; twice the size takes four times as long.
image_size = (416, 416)
max_epochs = 36

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
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=(
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
        ),
    ),
]

train_dataloader = dict(
    batch_size=8,
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

train_cfg = dict(max_epochs=max_epochs, val_interval=6)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
