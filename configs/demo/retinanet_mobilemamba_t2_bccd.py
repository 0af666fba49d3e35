# RetinaNet on MobileMamba-T2 learns BCCD's blood cells from scratch; its
# pyramid and head are a quarter as wide as on COCO.
_base_ = [
    '../_base_/models/retinanet_mobilemamba.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_light.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

data_root = 'data/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
image_size = (320, 320)

model = dict(
    backbone=dict(arch='t2', norm_eval=False, init_cfg=None),
    neck=dict(out_channels=64),
    bbox_head=dict(
        num_classes=3, in_channels=64, feat_channels=64, stacked_convs=2
    ),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = image_size  # of its Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = image_size

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
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

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
