# RetinaNet on MobileMamba-B1, COCO, 12 epochs (published: 39.6 AP).
_base_ = [
    '../_base_/models/retinanet_mobilemamba.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

train_dataloader = dict(batch_size=4, num_workers=4)
