# The same classifier, distilled into a second head from a ResNet-18 trained
# before: python tools/train.py configs/demo/resnet18_cells.py
_base_ = './mobilemamba_t2_cells.py'

model = dict(
    type='DistilledClassifier',
    head=dict(distillation=True),
    teacher_config='configs/demo/resnet18_cells.py',
    teacher_ckpt='work_dirs/resnet18_cells/epoch_8.pth',
    teacher_size=96,
)
