# Learns drawn shapes (tools/dataset_tools/make_shapes.py) from scratch in
# minutes on two CPU cores, with a backbone of a third of MobileMamba-T2.
_base_ = [
    '../_base_/models/atss_mobilemamba_light.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_light.py',
]
custom_imports = dict(
    imports=['mmmamba', 'mmmamba.datasets.detection'],
    allow_failed_imports=False,
)

max_epochs = 10  # of 250 iterations

# The shapes are a fifth to half of the image, so that levels of strides 16, 32
# and 64 are fine enough. A step then takes as long as one at 192 px with the
# levels from 8 to 128.
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            base='t2',
            channels=(96, 160, 224),
            depths=(1, 1, 1),
        ),
    ),
    neck=dict(in_channels=[96, 160, 224], num_finer=0, num_outs=3),
    bbox_head=dict(
        num_classes=3,
        anchor_generator=dict(octave_base_scale=4, strides=[16, 32, 64]),
    ),
)

# Shapes have no right way up.
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(
    prob=[0.25, 0.25, 0.25],
    direction=['horizontal', 'vertical', 'diagonal'],
)
train_dataloader = dict(
    batch_size=2,  # in each of two processes; more steps beat larger batches
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=4)
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=3e-3))
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(logger=dict(interval=50))
randomness = dict(seed=0)
