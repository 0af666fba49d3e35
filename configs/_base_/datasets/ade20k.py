# What the segmentors share: ADE20K in 512x512 crops, eight images a GPU on
# four of them.
_base_ = [
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
]

train_dataloader = dict(batch_size=8)
# Checkpoints are thousands of iterations apart.
custom_hooks = [dict(type='InterruptHook')]
# lr holds for 4 GPUs x 8 images; `--auto-scale-lr` adapts it to others.
auto_scale_lr = dict(enable=False, base_batch_size=32)
