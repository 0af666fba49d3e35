# The published schedule of detectors: AdamW, 500 warm-up iterations, constant,
# then cosine to zero over the second half of 12 epochs.
_base_ = 'mmdet::_base_/schedules/schedule_1x.py'

max_epochs = 12
train_cfg = dict(max_epochs=max_epochs)

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    # Of all parameters only the LayerNorm inside the SSM (`out_norm`) is
    # spared the decay; batch norms are named `bn`.
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
    clip_grad=dict(max_norm=0.1, norm_type=2),
)

param_scheduler = [
    dict(type='LinearLR', start_factor=1e-5, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        begin=max_epochs // 2,
        end=max_epochs,
        T_max=max_epochs // 2,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

# lr holds for 4 GPUs x 4 images; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(enable=False, base_batch_size=16)
