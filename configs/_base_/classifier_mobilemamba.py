# Image classifier: global average pool, then batch norm and a linear layer.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    type='ImageClassifier',
    backbone=dict(type='MobileMamba', arch='b1', out_indices=(2,)),
    neck=dict(type='GlobalAveragePooling'),
    # LeViT's head is the published one: BatchNorm1d and Linear.
    head=dict(
        type='LeViTClsHead',
        num_classes=1000,
        in_channels=448,
        distillation=False,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
