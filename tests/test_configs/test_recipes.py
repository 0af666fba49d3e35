"""The recipes against the published ones, value by value."""

from functools import lru_cache, reduce
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mmmamba.checkpoint import to_published

CONFIGS = Path(__file__).parents[2] / 'configs'

ADAMW = {
    'optim_wrapper.type': 'OptimWrapper',
    'optim_wrapper.optimizer.type': 'AdamW',
    'optim_wrapper.optimizer.betas': (0.9, 0.999),
    'optim_wrapper.optimizer.weight_decay': 0.05,
    'optim_wrapper.paramwise_cfg.custom_keys.norm.decay_mult': 0.0,
}
CLIPPED = {'optim_wrapper.clip_grad': dict(max_norm=0.1, norm_type=2)}
NORMALIZATION = {
    'model.data_preprocessor.mean': [123.675, 116.28, 103.53],
    'model.data_preprocessor.std': [58.395, 57.12, 57.375],
    'model.data_preprocessor.bgr_to_rgb': True,
}


def schedule(length: int, by_epoch: bool, warmup=(1e-5, 500)) -> dict:
    """Warm-up by iterations; cosine to zero over the second half."""
    return {
        'param_scheduler.0.type': 'LinearLR',
        'param_scheduler.0.start_factor': warmup[0],
        'param_scheduler.0.begin': 0,
        'param_scheduler.0.end': warmup[1],
        'param_scheduler.0.by_epoch': False,
        'param_scheduler.1.type': 'CosineAnnealingLR',
        'param_scheduler.1.begin': length // 2,
        'param_scheduler.1.end': length,
        'param_scheduler.1.T_max': length // 2,
        'param_scheduler.1.eta_min': 0,
        'param_scheduler.1.by_epoch': by_epoch,
        'param_scheduler.1.convert_to_iter_based': by_epoch or None,
        'param_scheduler.2': None,
    }


DETECTION = {
    **ADAMW,
    **CLIPPED,
    **NORMALIZATION,
    'default_scope': 'mmdet',
    'model.backbone.norm_eval': True,
    'train_dataloader.sampler.shuffle': True,
}
COCO_1X = {
    **DETECTION,
    **schedule(12, by_epoch=True),
    'auto_scale_lr.enable': False,
    'auto_scale_lr.base_batch_size': 4 * 4,
    'optim_wrapper.optimizer.lr': 2e-4,
    'train_cfg.max_epochs': 12,
    'train_dataloader.batch_size': 4,
    'train_dataloader.dataset.type': 'CocoDataset',
    'train_dataloader.dataset.pipeline.2.type': 'Resize',
    'train_dataloader.dataset.pipeline.2.scale': (1333, 800),
    'train_dataloader.dataset.pipeline.2.keep_ratio': True,
    'train_dataloader.dataset.pipeline.3.type': 'RandomFlip',
    'train_dataloader.dataset.pipeline.3.prob': 0.5,
    'train_dataloader.dataset.pipeline.4.type': 'PackDetInputs',
    'test_dataloader.dataset.pipeline.1.scale': (1333, 800),
    'test_dataloader.dataset.pipeline.1.keep_ratio': True,
    'model.data_preprocessor.pad_size_divisor': 32,
    'model.neck.type': 'MobileMambaFPN',
    'model.neck.in_channels': [200, 376, 448],
    'model.neck.out_channels': 256,
    'model.neck.num_outs': 5,
}
RETINANET = {
    **COCO_1X,
    'model.type': 'RetinaNet',
    'model.neck.num_finer': 1,
    'model.bbox_head.type': 'RetinaHead',
    'model.bbox_head.num_classes': 80,
    'model.bbox_head.anchor_generator.strides': [8, 16, 32, 64, 128],
    'test_evaluator.metric': 'bbox',
}
MASK_RCNN = {
    **COCO_1X,
    'model.type': 'MaskRCNN',
    'model.neck.num_finer': 2,
    'model.rpn_head.anchor_generator.strides': [4, 8, 16, 32, 64],
    'model.roi_head.bbox_head.num_classes': 80,
    'model.roi_head.mask_head.num_classes': 80,
    'train_dataloader.dataset.pipeline.1.with_mask': True,
    'test_evaluator.metric': ['bbox', 'segm'],
}


def ssdlite(size: int) -> dict:
    scale = (size, size)
    inner = 'train_dataloader.dataset.dataset'
    return {
        **DETECTION,
        **schedule(120, by_epoch=True),
        'auto_scale_lr.base_batch_size': 8 * 24,
        'optim_wrapper.optimizer.lr': 2.4e-3,
        'train_cfg.max_epochs': 120,
        'train_cfg.val_interval': 5,
        'train_dataloader.batch_size': 24,
        'train_dataloader.dataset.type': 'RepeatDataset',
        'train_dataloader.dataset.times': 5,
        f'{inner}.pipeline.2.type': 'Expand',
        f'{inner}.pipeline.2.ratio_range': (1, 4),
        f'{inner}.pipeline.3.type': 'MinIoURandomCrop',
        f'{inner}.pipeline.3.min_ious': (0.1, 0.3, 0.5, 0.7, 0.9),
        f'{inner}.pipeline.3.min_crop_size': 0.3,
        f'{inner}.pipeline.4.type': 'Resize',
        f'{inner}.pipeline.4.scale': scale,
        f'{inner}.pipeline.4.keep_ratio': False,
        f'{inner}.pipeline.5.type': 'RandomFlip',
        f'{inner}.pipeline.6.type': 'PhotoMetricDistortion',
        'val_dataloader.dataset.pipeline.1.scale': scale,
        'test_dataloader.dataset.pipeline.1.scale': scale,
        'test_dataloader.dataset.pipeline.1.keep_ratio': False,
        'model.type': 'SingleStageDetector',
        'model.data_preprocessor.pad_size_divisor': 1,
        'model.backbone.out_indices': (0, 1),
        'model.neck.type': 'SSDNeck',
        'model.neck.in_channels': (200, 376),
        'model.neck.out_channels': (200, 376, 512, 256, 256, 128),
        'model.neck.level_strides': (2, 2, 2, 2),
        'model.neck.level_paddings': (1, 1, 1, 1),
        'model.neck.l2_norm_scale': None,
        'model.neck.use_depthwise': True,
        'model.neck.norm_cfg': dict(type='BN', eps=1e-3, momentum=0.03),
        'model.neck.act_cfg': dict(type='ReLU6'),
        'model.neck.init_cfg': dict(
            type='TruncNormal', layer='Conv2d', std=0.03
        ),
        'model.bbox_head.type': 'SSDHead',
        'model.bbox_head.in_channels': (200, 376, 512, 256, 256, 128),
        'model.bbox_head.num_classes': 80,
        'model.bbox_head.use_depthwise': True,
        'model.bbox_head.norm_cfg': dict(type='BN', eps=1e-3, momentum=0.03),
        'model.bbox_head.anchor_generator': dict(
            type='SSDAnchorGenerator',
            scale_major=False,
            strides=[16, 32, 64, 107, 160, 320],
            ratios=[[2, 3]] * 6,
            min_sizes=[48, 100, 150, 202, 253, 304],
            max_sizes=[100, 150, 202, 253, 304, 320],
        ),
        'model.train_cfg.assigner.type': 'MaxIoUAssigner',
        'model.train_cfg.assigner.pos_iou_thr': 0.5,
        'model.train_cfg.assigner.neg_iou_thr': 0.5,
        'model.train_cfg.neg_pos_ratio': 3,
        'model.test_cfg.nms': dict(type='nms', iou_threshold=0.45),
        'model.test_cfg.score_thr': 0.02,
        'model.test_cfg.max_per_img': 200,
        'test_evaluator.metric': 'bbox',
    }


SEGMENTATION = {
    **ADAMW,
    **NORMALIZATION,
    'default_scope': 'mmseg',
    'optim_wrapper.optimizer.lr': 1.2e-4,
    'train_dataloader.batch_size': 8,
    'auto_scale_lr.base_batch_size': 4 * 8,
    'train_cfg.type': 'IterBasedTrainLoop',
    'train_dataloader.dataset.type': 'ADE20KDataset',
    'train_dataloader.dataset.pipeline.1.reduce_zero_label': True,
    'train_dataloader.dataset.pipeline.2.type': 'RandomResize',
    'train_dataloader.dataset.pipeline.2.scale': (2048, 512),
    'train_dataloader.dataset.pipeline.2.ratio_range': (0.5, 2.0),
    'train_dataloader.dataset.pipeline.3.type': 'RandomCrop',
    'train_dataloader.dataset.pipeline.3.crop_size': (512, 512),
    'train_dataloader.dataset.pipeline.3.cat_max_ratio': 0.75,
    'train_dataloader.dataset.pipeline.4.type': 'RandomFlip',
    'train_dataloader.dataset.pipeline.5.type': 'PhotoMetricDistortion',
    'test_dataloader.dataset.pipeline.1.scale': (2048, 512),
    'test_dataloader.dataset.pipeline.1.keep_ratio': True,
    'test_evaluator.type': 'IoUMetric',
    'test_evaluator.iou_metrics': ['mIoU'],
    'model.type': 'EncoderDecoder',
    'model.pretrained': None,
    'model.data_preprocessor.size': (512, 512),
    'model.data_preprocessor.seg_pad_val': 255,
    'model.backbone.norm_eval': None,
    'model.backbone.norm_cfg': None,
    'model.decode_head.num_classes': 150,
    'model.decode_head.dropout_ratio': 0.1,
    'model.decode_head.norm_cfg.type': 'SyncBN',
    'model.test_cfg.mode': 'whole',
}
# Both decode the third stage and have an auxiliary FCN on the second.
DILATED = {
    **SEGMENTATION,
    **CLIPPED,
    **schedule(80000, by_epoch=False),
    'train_cfg.max_iters': 80000,
    'model.decode_head.in_channels': 448,
    'model.decode_head.in_index': 2,
    'model.decode_head.channels': 256,
    'model.auxiliary_head.type': 'FCNHead',
    'model.auxiliary_head.in_channels': 376,
    'model.auxiliary_head.in_index': 1,
    'model.auxiliary_head.channels': 256,
    'model.auxiliary_head.num_classes': 150,
    'model.auxiliary_head.norm_cfg.type': 'SyncBN',
    'model.auxiliary_head.loss_decode.loss_weight': 0.4,
}
FPN = {
    **SEGMENTATION,
    **schedule(160000, by_epoch=False, warmup=(1e-6, 1500)),
    'optim_wrapper.clip_grad': None,
    'optim_wrapper.paramwise_cfg.custom_keys.head.lr_mult': 10.0,
    'train_cfg.max_iters': 160000,
    'model.neck.type': 'FPN',
    'model.neck.in_channels': [200, 376, 448],
    'model.neck.out_channels': 256,
    'model.neck.num_outs': 3,
    'model.decode_head.type': 'FPNHead',
    'model.decode_head.in_channels': [256, 256, 256],
    'model.decode_head.in_index': [0, 1, 2],
    'model.decode_head.feature_strides': [16, 32, 64],
    'model.decode_head.channels': 128,
    'model.auxiliary_head': None,
}
RECIPES = {
    'det/retinanet_mobilemamba_{}.py': RETINANET,
    'det/mask_rcnn_mobilemamba_{}.py': MASK_RCNN,
    'det/ssdlite_mobilemamba_{}_320.py': ssdlite(320),
    'det/ssdlite_mobilemamba_{}_512.py': ssdlite(512),
    'seg/deeplabv3_mobilemamba_{}.py': {
        **DILATED,
        'model.decode_head.type': 'ASPPHead',
        'model.decode_head.dilations': (1, 12, 24, 36),
    },
    'seg/pspnet_mobilemamba_{}.py': {
        **DILATED,
        'model.decode_head.type': 'PSPHead',
        'model.decode_head.pool_scales': (1, 2, 3, 6),
    },
    'seg/fpn_mobilemamba_{}.py': FPN,
}
# Millions, with what is only there for training.
PARAMETERS = dict(
    retinanet=27.05,
    mask_rcnn=37.95,
    ssdlite=18.02,
    deeplabv3=23.90,
    pspnet=21.47,
    fpn=19.76,
)
NAMES = [name.format(arch) for name in RECIPES for arch in ('b1', 'b4')]


@lru_cache
def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / name)


@lru_cache
def build(name: str):
    cfg = load(name)
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


def look_up(cfg: Config, key: str):
    """The value of a dotted key; None where there is no such thing."""

    def step(node, part):
        if node is None:
            return None
        if part.isdigit():
            return node[int(part)] if int(part) < len(node) else None
        return node.get(part)

    return reduce(step, key.split('.'), cfg)


@pytest.mark.parametrize('arch', ['b1', 'b4'])
@pytest.mark.parametrize('name', RECIPES)
@pytest.mark.slow
def test_recipe(name, arch):
    cfg = load(name.format(arch))
    expected = {'model.backbone.arch': arch, **RECIPES[name]}
    assert {key: look_up(cfg, key) for key in expected} == expected


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.slow
def test_drop_path_and_published_size(name):
    model = build(name)
    assert model.backbone.arch['drop_path_rate'] == 0.03
    method = name.split('/')[1].split('_mobilemamba')[0]
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == PARAMETERS[method]


@pytest.mark.parametrize('name', [n.format('b1') for n in RECIPES])
@pytest.mark.slow
def test_which_parameters_decay_and_which_learn_faster(name):
    """Published: no decay for 'norm', in Semantic FPN ten times for 'head'."""
    cfg, model = load(name), build(name)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    groups = {
        id(p): group
        for group in optimizer.param_groups
        for p in group['params']
    }
    lr = cfg.optim_wrapper.optimizer.lr
    spared = 0
    for full_name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part, _, rest = full_name.partition('.')
        published = to_published(rest) if part == 'backbone' else rest
        decay = 0.0 if 'norm' in published else 0.05
        faster = 10 if 'fpn_' in name and 'head' in part else 1
        group = groups[id(parameter)]
        assert group['weight_decay'] == decay, full_name
        assert group['lr'] == pytest.approx(lr * faster), full_name
        spared += decay == 0
    # A weight and a bias in each of B1's seven blocks, or of the five that
    # SSDLite uses.
    assert spared == (10 if 'ssdlite' in name else 14)
