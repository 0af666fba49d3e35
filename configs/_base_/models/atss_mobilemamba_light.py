# A detector small enough to train from scratch on a CPU: ATSS, whose one
# anchor a position costs little and which learns fast, with a narrow pyramid
# and a short head on MobileMamba-T2.
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='MobileMamba', arch='t2'),
    neck=dict(
        _delete_=True,
        type='MobileMambaFPN',
        in_channels=[144, 272, 368],
        out_channels=64,
        num_outs=5,
        num_finer=1,
        add_extra_convs='on_input',
    ),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=dict(type='GN', num_groups=16),
        # From scratch, telling objects apart takes longer than finding them.
        loss_cls=dict(alpha=0.5, loss_weight=3.0),
    ),
)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=10, norm_type=2),
)
# The second schedule's T_max, the number of epochs, is for the configs to set.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        T_max=12,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# lr holds for batches of 8; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
