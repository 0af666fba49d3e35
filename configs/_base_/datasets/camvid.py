# CamVid's street photos with label maps (docs/camvid.md). For your own images
# copy this file, change what is marked, and name the copy in a copy of
# configs/demo/fpn_mobilemamba_t2_camvid.py.
data_root = 'data/camvid/'  # yours
train_images = 'images/training'  # yours, below data_root
train_labels = 'annotations/training'  # yours
val_images = 'images/validation'  # yours
val_labels = 'annotations/validation'  # yours
# Whether label 0 means "ignore" and 1 the first class; else 0 is the first.
reduce_zero_label = True  # yours
# Your classes, in the order of their labels, and the colours to draw them in.
metainfo = dict(
    classes=(
        'sky',
        'building',
        'pole',
        'road',
        'pavement',
        'tree',
        'sign',
        'fence',
        'car',
        'pedestrian',
        'bicyclist',
    ),
    palette=[
        [128, 128, 128],
        [128, 0, 0],
        [192, 192, 128],
        [128, 64, 128],
        [60, 40, 222],
        [128, 128, 0],
        [192, 128, 128],
        [64, 64, 128],
        [64, 0, 128],
        [64, 64, 0],
        [0, 128, 192],
    ],
)
# The shorter side becomes 360 px, the longer one at most 2048: at three
# quarters of it, too, a crop fits into an image of any shape. What had to be
# padded would change the batch norms' statistics.
image_size = (2048, 360)
crop_size = (256, 256)  # height, width

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=reduce_zero_label),
    dict(
        type='RandomResize',
        scale=image_size,
        ratio_range=(0.75, 1.5),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=image_size, keep_ratio=True),
    dict(type='LoadAnnotations', reduce_zero_label=reduce_zero_label),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=0,  # more where there are cores to spare
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='CustomSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path=train_images, seg_map_path=train_labels),
        seg_map_suffix='.png',
        reduce_zero_label=reduce_zero_label,
        metainfo=metainfo,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomSegDataset',
        data_root=data_root,
        data_prefix=dict(img_path=val_images, seg_map_path=val_labels),
        seg_map_suffix='.png',
        reduce_zero_label=reduce_zero_label,
        metainfo=metainfo,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
