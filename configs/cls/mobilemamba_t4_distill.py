# MobileMamba-T4 distilled for 1000 epochs, as published: 5 times the
# divergence from TResNet-L v2, which is DistilledClassifier's default teacher.
_base_ = './mobilemamba_t4.py'

model = dict(
    type='DistilledClassifier',
    teacher_ckpt='checkpoints/tresnet_v2_l.pth',
)
train_cfg = dict(max_epochs=1000)
