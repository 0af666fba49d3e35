# SSDLite on MobileMamba-T2 learns BCCD's blood cells from scratch. The data
# set lies in a RepeatDataset, so that _base_/datasets/bccd.py does not fit.
_base_ = '../det/ssdlite_mobilemamba_b1_320.py'
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.heads', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

data_root = 'data/bccd/'
metainfo = dict(classes=('RBC', 'WBC', 'Platelets'))
max_epochs = 12

model = dict(
    backbone=dict(arch='t2', norm_eval=False, init_cfg=None),
    bbox_head=dict(num_classes=len(metainfo['classes'])),
)

train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        times=1,
        dataset=dict(
            type='CustomCocoDataset',
            data_root=data_root,
            metainfo=metainfo,
            ann_file='annotations/instances_train.json',
            data_prefix=dict(img='train/'),
            filter_cfg=dict(filter_empty_gt=False, min_size=1),
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='CustomCocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CustomCocoMetric',
    ann_file=data_root + 'annotations/instances_val.json',
)
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs, val_interval=3)
optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=10))
param_scheduler = _base_.param_scheduler
param_scheduler[0].update(by_epoch=True, end=2, convert_to_iter_based=True)
param_scheduler[1].update(
    begin=max_epochs // 2, end=max_epochs, T_max=max_epochs // 2
)
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
