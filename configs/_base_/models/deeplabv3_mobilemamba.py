# DeepLabv3 on the third stage of MobileMamba (stride 64), with an auxiliary
# FCN on the second.
_base_ = 'mmseg::_base_/models/deeplabv3_r50-d8.py'

model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        _delete_=True,
        type='MobileMamba',
        arch='b4',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='checkpoints/mobilemamba_{arch}.pth',
        ),
    ),
    decode_head=dict(
        in_channels=448, in_index=2, channels=256, num_classes=150
    ),
    auxiliary_head=dict(in_channels=376, in_index=1, num_classes=150),
)
