# DINO with four scales on MobileMamba-B1, COCO, 12 epochs, mmdet's recipe.
# Ours, and not trained here; nobody has published it.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='b1',
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    # DINO's scales are strides 8 to 64; the backbone starts at 16.
    neck=[
        dict(
            type='MobileMambaFPN',
            in_channels=[200, 376, 448],
            out_channels=256,
            num_outs=4,
            num_finer=1,
        ),
        {**_base_.model.neck, 'in_channels': [256, 256, 256, 256]},
    ],
)
