# Semantic FPN on MobileMamba-B4, ADE20K, 160k iterations (published: 42.5
# mIoU).
_base_ = [
    '../_base_/mmmamba.py',
    '../_base_/models/fpn_mobilemamba.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
    'mmseg::_base_/default_runtime.py',
]

# The head learns ten times as fast, after a longer warm-up and unclipped.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys=dict(head=dict(lr_mult=10.0))),
    clip_grad=None,
)
param_scheduler = _base_.param_scheduler
param_scheduler[0].start_factor = 1e-6
param_scheduler[0].end = 1500
