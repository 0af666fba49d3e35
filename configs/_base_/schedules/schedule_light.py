# A schedule to train detectors from scratch on a CPU: AdamW, two warm-up
# epochs, cosine to zero over all epochs.
_base_ = [
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

train_cfg = dict(max_epochs=12, val_interval=3)
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    # In epochs: iterations might outlast the training on a few images.
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=True,
        end=2,
        convert_to_iter_based=True,
    ),
    # Without T_max it follows max_epochs.
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# lr holds for batches of 8; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(enable=False, base_batch_size=8)
# A run that is resumed ends as one that was not interrupted.
custom_hooks = [dict(type='RandomStateHook')]
default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2)
)
