# As schedule_80k.py, twice as long.
_base_ = './schedule_80k.py'

max_iters = 160000
train_cfg = dict(max_iters=max_iters, val_interval=16000)
default_hooks = dict(checkpoint=dict(interval=16000))
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(
    begin=max_iters // 2, end=max_iters, T_max=max_iters // 2
)
