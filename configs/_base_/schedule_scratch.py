# From scratch: AdamW, a short warm-up, cosine to zero over `max_epochs`. A
# config that changes max_epochs changes T_max and val_interval with it.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

max_epochs = 14
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=30),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
# lr holds for batches of 8; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(base_batch_size=8)
