# The published pretraining: 300 epochs of 1024 images an iteration (here 128
# on each of 8 GPUs), EMA, AMP.
_base_ = [
    'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py',
    'mmpretrain::_base_/default_runtime.py',
]

optim_wrapper = dict(
    type='AmpOptimWrapper',  # float32 where there is no GPU
    loss_scale='dynamic',
    optimizer=dict(lr=1.5e-3),
    # As timm: no decay of biases and of whatever has one dimension, which are
    # all norms and the scan's D. A_log, dt_proj_bias and the scales decay.
    paramwise_cfg=dict(
        _delete_=True,
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        flat_decay_mult=0.0,
    ),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        end=20,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        by_epoch=True,
        begin=20,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(
    checkpoint=dict(
        type='CheckpointHook',
        interval=1,
        max_keep_ckpts=3,
        save_best='accuracy/top1',
    )
)
custom_hooks = [
    # The published figures are those of the moving average, whose statistics
    # are averaged too; checkpoints hold both.
    dict(
        type='EMAHook',
        momentum=2e-4,
        update_buffers=True,
        priority='ABOVE_NORMAL',
    ),
    dict(type='SkipNonFiniteHook'),
    dict(type='RandomStateHook'),
]
