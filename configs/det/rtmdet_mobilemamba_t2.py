# RTMDet-tiny's neck, head and recipe on MobileMamba-T2, COCO, 300 epochs.
# Ours, and not trained here; nobody has published it.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    # MobileMamba is pretrained on RGB, with these figures.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        # The second neck doubles maps to the size of the next finer one.
        pad_size_divisor=64,
    ),
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='t2',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    # RTMDet starts at stride 8, the backbone at 16.
    neck=[
        dict(
            type='MobileMambaFPN',
            in_channels=[144, 272, 368],
            out_channels=96,
            num_outs=4,
            num_finer=1,
        ),
        {**_base_.model.neck, 'in_channels': [96, 96, 96, 96]},
    ],
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64])),
)
# Eight GPUs of 32 images; RTMDet's own config inherits 16 here.
auto_scale_lr = dict(base_batch_size=256)
analysis_shape = (640, 640)
