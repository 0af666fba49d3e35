# Mask R-CNN learns drawn shapes (tools/dataset_tools/make_shapes.py) from
# scratch, with a backbone of a third of MobileMamba-T2 and narrow heads.
_base_ = [
    '../_base_/models/mask_rcnn_mobilemamba.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_light.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

data_root = 'data/shapes/'
metainfo = dict(classes=('circle', 'square', 'triangle'))
image_size = (256, 256)

model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='t2',
            channels=(96, 160, 224),
            depths=(1, 1, 1),
        ),
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=128, num_classes=3),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(
            in_channels=64, conv_out_channels=64, num_convs=2, num_classes=3
        ),
    ),
    train_cfg=dict(
        rpn_proposal=dict(max_per_img=200),
        rcnn=dict(sampler=dict(num=64)),
    ),
    test_cfg=dict(rpn=dict(max_per_img=200)),
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
