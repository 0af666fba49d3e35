# The teacher of mobilemamba_t2_cells_distill.py: one of mmpretrain's models.
_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/datasets/cells.py',
    '../_base_/schedules/schedule_8e.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(head=dict(num_classes=_base_.num_classes, topk=(1,)))
