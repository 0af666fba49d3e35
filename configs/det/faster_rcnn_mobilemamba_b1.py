# Faster R-CNN on MobileMamba-B1, COCO, 12 epochs: Mask R-CNN without masks.
# Ours, with the published schedule of Mask R-CNN; nobody has published it.
_base_ = [
    '../_base_/models/mask_rcnn_mobilemamba.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['mmmamba'], allow_failed_imports=False)

model = dict(
    type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None)
)

train_dataloader = dict(batch_size=4, num_workers=4)
