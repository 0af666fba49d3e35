# A small classifier of blood cells, from scratch in minutes on a CPU.
_base_ = [
    '../_base_/models/classifier_mobilemamba.py',
    '../_base_/datasets/cells.py',
    '../_base_/schedules/schedule_8e.py',
]

model = dict(
    backbone=dict(arch='t2'),
    head=dict(in_channels=368, num_classes=_base_.num_classes),
    train_cfg=dict(_delete_=True),  # no mixing of images
)
