# Image classifier: global average pool, then batch norm and a linear layer.
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.classifiers'], allow_failed_imports=False
)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='MobileMamba', arch='b1', out_indices=(2,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='MobileMambaClsHead',
        num_classes=1000,
        # Follows model.backbone.arch.
        in_channels=448,
        # True adds the second head of DeiT; no published checkpoint has it.
        distillation=False,
        loss=dict(
            type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'
        ),
    ),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=1.0),
        ]
    ),
)
