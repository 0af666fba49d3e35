# SSDLite on the first two stages of MobileMamba (strides 16 and 32), 320 px.
# mmdet has no base file of the model alone: anchors, data, augmentation and
# test settings come from its whole SSDLite config.
_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.heads'], allow_failed_imports=False
)

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='b1',
        out_indices=(0, 1),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    neck=dict(
        in_channels=(200, 376),
        out_channels=(200, 376, 512, 256, 256, 128),
    ),
    bbox_head=dict(in_channels=(200, 376, 512, 256, 256, 128)),
)

# 120 epochs of five passes over the data: AdamW, 500 warm-up iterations,
# constant, then cosine to zero over the second half.
max_epochs = 120
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=2.4e-3, betas=(0.9, 0.999), weight_decay=0.05
    ),
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
