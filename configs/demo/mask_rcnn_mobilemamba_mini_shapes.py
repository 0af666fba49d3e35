# Mask R-CNN learns drawn shapes (tools/dataset_tools/make_shapes.py) from
# scratch, with a backbone of a third of MobileMamba-T2 and narrow heads.
_base_ = [
    '../_base_/models/mask_rcnn_mobilemamba.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_light.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

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

# Mask R-CNN also learns from the polygons.
train_pipeline = _base_.train_pipeline
train_pipeline[1].with_mask = True  # of its LoadAnnotations
test_pipeline = _base_.test_pipeline
test_pipeline[2].with_mask = True
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=3, val_interval=1)  # of 125 iterations
param_scheduler = _base_.param_scheduler
param_scheduler[0].end = 1
