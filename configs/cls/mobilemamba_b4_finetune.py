# MobileMamba-B4 from B1: the network pretrained at 256 px, fine-tuned at 512
# for 30 epochs at a small learning rate, without mixing. This is common
# practice, not a published recipe.
_base_ = './mobilemamba_b4.py'

load_from = 'checkpoints/mobilemamba_b1.pth'
model = dict(train_cfg=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=5e-5, weight_decay=1e-8))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=30)
