# ImageNet-1K with the published augmentation, which is timm's:
# RandomResizedCrop, flip, RandAugment m9-mstd0.5-inc1 and random erasing, all
# bicubic. timm leaves its colour jitter of 0.4 out where there is RandAugment,
# and so did the published training.
_base_ = 'mmpretrain::_base_/datasets/imagenet_bs64_swin_224.py'

train_dataloader = dict(
    batch_size=128,
    drop_last=True,
    persistent_workers=False,
    worker_init_fn=dict(type='seed_worker'),  # new augmentation every epoch
)
val_dataloader = dict(batch_size=128)
test_dataloader = val_dataloader
