# Drawn shapes with boxes and polygons (tools/dataset_tools/make_shapes.py).
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle'))
image_size = (256, 256)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=image_size, keep_ratio=False)  # its Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=image_size, keep_ratio=False)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # a worker would take a core from the training
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),  # new augmentation every epoch
    dataset=dict(
        type='CustomCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        # Images without objects serve as background.
        filter_cfg=dict(filter_empty_gt=False, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CustomCocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
)
test_evaluator = val_evaluator
