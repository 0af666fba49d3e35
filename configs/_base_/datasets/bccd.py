# BCCD, photos of blood cells with boxes in COCO format (docs/bccd.md). For
# your own images copy this file, change what is marked, and name the copy in
# a copy of configs/demo/atss_mobilemamba_t2_bccd.py.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'

data_root = 'data/bccd/'  # yours
train_ann = 'annotations/instances_train.json'  # yours, below data_root
val_ann = 'annotations/instances_val.json'  # yours
train_images = 'train/'  # yours
val_images = 'val/'  # yours
# Your categories, as the annotation files name them.
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))  # yours
# Width and height, multiples of 32, that every image is resized to: batches of
# images that differ in size are padded, and the padding would change the batch
# norms' statistics. Take the usual shape of your images, a square where wide
# and tall ones are mixed. Twice the size takes four times as long.
image_size = (320, 256)  # yours

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=image_size, keep_ratio=False)  # its Resize
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=image_size, keep_ratio=False)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # more where there are cores to spare
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),  # new augmentation every epoch
    dataset=dict(
        type='CustomCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file=train_ann,
        data_prefix=dict(img=train_images),
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
        ann_file=val_ann,
        data_prefix=dict(img=val_images),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='CustomCocoMetric', ann_file=data_root + val_ann)
test_evaluator = val_evaluator
