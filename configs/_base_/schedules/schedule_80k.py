# The published schedule of segmentors, with the shape of schedule_1x.py:
# AdamW, 500 warm-up iterations, constant, then cosine to zero over the second
# half of 80k iterations.
_base_ = 'mmseg::_base_/schedules/schedule_80k.py'

max_iters = 80000
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1.2e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        begin=max_iters // 2,
        end=max_iters,
        T_max=max_iters // 2,
        by_epoch=False,
    ),
]
# lr holds for 4 GPUs x 8 images; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(enable=False, base_batch_size=32)
# Checkpoints are thousands of iterations apart: Ctrl-C saves one.
custom_hooks = [dict(type='InterruptHook')]
