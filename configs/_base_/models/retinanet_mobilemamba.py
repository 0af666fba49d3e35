# RetinaNet on MobileMamba: three backbone stages (strides 16, 32, 64) and
# five pyramid levels (strides 8 to 128).
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

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
    neck=dict(
        _delete_=True,
        type='MobileMambaFPN',
        in_channels=[200, 376, 448],
        out_channels=256,
        num_outs=5,
        num_finer=1,
        add_extra_convs='on_input',
    ),
)
