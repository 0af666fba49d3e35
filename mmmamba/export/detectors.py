"""Detectors that end in boxes, scores and labels, after NMS."""

from functools import reduce
from typing import Any

import torch
from mmcv.ops import RoIAlign
from mmdet.models.dense_heads import RPNHead, RTMDetHead
from mmdet.models.dense_heads.anchor_free_head import AnchorFreeHead
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads.bbox_heads import ConvFCBBoxHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor, nn

from . import boxes as B
from .errors import ExportError
from .facts import Facts


class DenseHead(nn.Module):
    """Head, decoding and NMS of a single-stage detector, or of an RPN.

    As mmdet's ``predict_by_feat``, in arrays of fixed size.

    Args:
        head (nn.Module): A dense head of mmdet.
        shape (tuple[int, int]): Height and width of the image without the
            padding, at which boxes are cut.
        sizes (list[tuple[int, int]]): Sizes of the feature maps.
        cfg (dict): The test config of the head.
    """

    def __init__(self, head, shape, sizes, cfg) -> None:
        super().__init__()
        self.head, self.shape, self.cfg = head, shape, cfg
        self.is_rpn = isinstance(head, RPNHead)
        priors = head.prior_generator.grid_priors(sizes, device='cpu')
        for i, level in enumerate(priors):
            self.register_buffer(f'priors{i}', level, persistent=False)
        check_nms(cfg)
        if cfg.get('min_bbox_size', -1) > 0 and not self.is_rpn:
            raise ExportError(
                'min_bbox_size is measured in pixels of the photo, which a '
                'file does not know; set model.test_cfg.min_bbox_size=0'
            )

    def forward(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return boxes ``(B, K, 4)``, scores and labels ``(B, K)``."""
        outputs = self.head(feats)
        levels = [
            self._level(i, *maps) for i, maps in enumerate(zip(*outputs))
        ]
        boxes, scores, labels = (torch.cat(part, 1) for part in zip(*levels))
        least = self.cfg.get('min_bbox_size', -1)
        if least >= 0:
            width = boxes[..., 2] - boxes[..., 0]
            height = boxes[..., 3] - boxes[..., 1]
            large = (width > least) & (height > least)
            scores = torch.where(
                large, scores, torch.full_like(scores, B.NONE)
            )
        count = self.cfg['max_per_img']
        return B.suppress(boxes, scores, labels, self.cfg['nms'], count)

    def _level(
        self,
        level: int,
        cls_map: Tensor,
        box_map: Tensor,
        factor_map: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidates of a level: boxes, scores and labels."""
        head = self.head
        classes = head.cls_out_channels
        priors = getattr(self, f'priors{level}')
        logits = flat(cls_map, len(priors), classes)
        if getattr(head.loss_cls, 'custom_cls_channels', False):
            scores = head.loss_cls.get_activation(logits.reshape(-1, classes))
            classes = int(scores.shape[1])
        elif getattr(head, 'use_sigmoid_cls', True):
            scores = logits.sigmoid()
        else:
            scores = logits.softmax(-1)[..., :-1]
            classes -= 1
        if 'score_thr' in self.cfg and not self.is_rpn:
            least = self.cfg['score_thr']
            scores = torch.where(
                scores > least, scores, torch.full_like(scores, B.NONE)
            )
        scores = scores.reshape(-1, len(priors) * classes)
        count = self.cfg.get('nms_pre', -1)
        if not 0 < count < len(priors) * classes:
            count = len(priors) * classes
        scores, indices = scores.topk(count, dim=1)
        position = torch.div(indices, classes, rounding_mode='floor')
        labels = indices - position * classes
        deltas = B.take(flat(box_map, len(priors), 4), position)
        if factor_map is not None:
            factors = flat(factor_map, len(priors), 1)[..., 0].sigmoid()
            factors = B.take(factors, position)
            scores = torch.where(scores >= 0, scores * factors, scores)
        chosen = priors[position.reshape(-1)]
        boxes = decode(
            head.bbox_coder, chosen, deltas.reshape(-1, 4), self.shape
        )
        if self.is_rpn:
            labels = torch.full_like(labels, level)
        return boxes.reshape(-1, count, 4), scores, labels


def flat(x: Tensor, positions: int, channels: int) -> Tensor:
    """Bring ``(B, A*C, H, W)`` into the order of priors: ``(B, HWA, C)``."""
    return x.permute(0, 2, 3, 1).reshape(-1, positions, channels)


def decode(coder, priors: Tensor, deltas: Tensor, shape) -> Tensor:
    """Decode ``(N, 4)`` boxes; mmdet's own clipping does not export."""
    boxes = coder.decode(priors, deltas)
    if getattr(coder, 'clip_border', True):
        boxes = B.clip(boxes, *shape)
    return boxes


def check_predict(model, base: Any) -> None:
    """Refuse a detector that finds more than its base, as PanopticFPN."""
    if type(model).predict is not base.predict:
        raise ExportError(
            f'{type(model).__name__} predicts in a way of its own, which is '
            f'not exported; {base.__name__} and its like are'
        )


def check_nms(cfg: dict) -> None:
    """Refuse what is not the plain NMS."""
    kind = cfg.get('nms', {}).get('type', 'nms')
    if kind != 'nms':
        raise ExportError(
            f'NMS of type {kind!r} has no counterpart in ONNX; set '
            "model.test_cfg...nms.type='nms'"
        )
    known = {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
    others = set(cfg.get('nms', {})) - known
    if others:
        raise ExportError(
            f'NMS with {", ".join(sorted(others))} is not exported; leave it '
            'out of model.test_cfg...nms'
        )


class Detector(nn.Module):
    """A detector that ends in boxes, scores and labels.

    Args:
        model (nn.Module): A detector of mmdet.
        shape (tuple[int, int]): Height and width of the image without the
            padding.
    """

    def __init__(self, model: Any, shape: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        preprocessor = model.data_preprocessor
        divisor = getattr(preprocessor, 'pad_size_divisor', 1)
        self.padding = divisor, getattr(preprocessor, 'pad_value', 0)
        self.padded = [side + -side % divisor for side in shape]

    def describe(self, facts: Facts) -> None:
        """Fill in the task and the outputs."""
        facts.task = 'detection'
        facts.outputs = ['boxes', 'scores', 'labels']

    def example_feats(self) -> tuple[Tensor, ...]:
        """Return feature maps of an image, for their sizes."""
        return self.model.extract_feat(torch.zeros(1, 3, *self.padded))


class SingleStage(Detector):
    """A single-stage detector.

    Args:
        model (nn.Module): mmdet's ``SingleStageDetector``.
        shape (tuple[int, int]): Height and width of the image.
    """

    def __init__(self, model, shape) -> None:
        super().__init__(model, shape)
        check_predict(model, SingleStageDetector)
        head = model.bbox_head
        plain = type(head)._predict_by_feat_single in (
            BaseDenseHead._predict_by_feat_single,
            RTMDetHead._predict_by_feat_single,
        )
        if not isinstance(head, (AnchorHead, AnchorFreeHead)) or not plain:
            raise ExportError(
                f'the head {type(head).__name__} predicts in a way of its '
                'own, which is not exported; heads that predict as '
                'RetinaHead, SSDHead, ATSSHead, FCOSHead and RTMDetHead are'
            )
        sizes = [tuple(f.shape[2:]) for f in self.example_feats()]
        self.dense = DenseHead(head, shape, sizes, head.test_cfg)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes ``(B, K, 4)``, scores ``(B, K)``, labels ``(B, K)``."""
        return B.finish(*self.dense(self.model.extract_feat(x)))


class TwoStage(Detector):
    """Faster R-CNN or Mask R-CNN.

    Args:
        model (nn.Module): mmdet's ``TwoStageDetector``.
        shape (tuple[int, int]): Height and width of the image.
    """

    def __init__(self, model, shape) -> None:
        super().__init__(model, shape)
        check_predict(model, TwoStageDetector)
        roi = model.roi_head
        if type(roi).__name__ != 'StandardRoIHead' or roi.with_shared_head:
            raise ExportError(
                f'the head {type(roi).__name__} is not exported; '
                'StandardRoIHead, that of Faster and Mask R-CNN, is'
            )
        if not isinstance(roi.bbox_head, ConvFCBBoxHead):
            raise ExportError(
                f'the head {type(roi.bbox_head).__name__} is not exported; '
                'Shared2FCBBoxHead and others of its kind are'
            )
        check_extractor(roi.bbox_roi_extractor)
        if roi.with_mask:
            check_extractor(roi.mask_roi_extractor)
        sizes = [tuple(f.shape[2:]) for f in self.example_feats()]
        self.rpn = DenseHead(
            model.rpn_head, shape, sizes, model.rpn_head.test_cfg
        )
        self.cfg = roi.test_cfg
        check_nms(self.cfg)

    def describe(self, facts: Facts) -> None:
        """Fill in the task and the outputs."""
        super().describe(facts)
        if self.model.with_mask:
            facts.outputs.append('masks')
            facts.mask_threshold = self.cfg['mask_thr_binary']

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return boxes, scores, labels, and masks ``(B, K, M, M)`` if any."""
        roi_head = self.model.roi_head
        feats = self.model.extract_feat(x)
        proposals, objectness, _ = self.rpn(feats)
        boxes, scores, labels = self._boxes(feats, proposals, objectness)
        result = B.finish(boxes, scores, labels)
        if not roi_head.with_mask:
            return result
        return *result, self._masks(feats, result[0], result[2])

    def _boxes(self, feats, proposals: Tensor, objectness: Tensor):
        """Classify and refine the proposals."""
        roi_head = self.model.roi_head
        head = roi_head.bbox_head
        count = int(proposals.shape[1])
        rois = B.with_image(proposals)
        roi_feats = align(roi_head.bbox_roi_extractor, feats, rois)
        logits, deltas = head(roi_feats)
        if head.custom_cls_channels:
            scores = head.loss_cls.get_activation(logits)
        else:
            scores = logits.softmax(-1)
        classes = int(scores.shape[1]) - 1
        scores = scores[:, :-1].reshape(-1, count, classes)
        counted = (scores > self.cfg['score_thr']) & (objectness > 0)[
            ..., None
        ]
        scores = torch.where(counted, scores, torch.full_like(scores, B.NONE))
        if head.reg_class_agnostic:
            deltas = deltas.repeat(1, classes)
        priors = rois[:, None, 1:].expand(-1, classes, -1).reshape(-1, 4)
        boxes = decode(
            head.bbox_coder, priors, deltas.reshape(-1, 4), self.shape
        )
        number = count * classes
        scores = scores.reshape(-1, number)
        labels = torch.arange(classes).repeat(count)[None]
        labels = labels + torch.zeros_like(scores, dtype=torch.int64)
        return B.suppress(
            boxes.reshape(-1, number, 4),
            scores,
            labels,
            self.cfg['nms'],
            self.cfg['max_per_img'],
        )

    def _masks(self, feats, boxes: Tensor, labels: Tensor) -> Tensor:
        """Probabilities of each object's mask within its box."""
        roi_head = self.model.roi_head
        count = int(boxes.shape[1])
        rois = B.with_image(boxes)
        roi_feats = align(roi_head.mask_roi_extractor, feats, rois)
        masks = roi_head.mask_head(roi_feats)
        side = int(masks.shape[-1])
        if int(masks.shape[1]) > 1:
            index = labels.clamp(min=0).reshape(-1, 1, 1, 1)
            masks = masks.gather(1, index.expand(-1, 1, side, side))
        return masks.sigmoid().reshape(-1, count, side, side)


def check_extractor(extractor) -> None:
    """Refuse what pools otherwise than :func:`align`."""
    if type(extractor) is not SingleRoIExtractor or not all(
        isinstance(layer, RoIAlign)
        and layer.aligned
        and layer.pool_mode == 'avg'
        for layer in extractor.roi_layers
    ):
        raise ExportError(
            'SingleRoIExtractor with RoIAlign, aligned=True and '
            "pool_mode='avg', is exported, and no other way to pool RoIs"
        )


def align(extractor, feats, rois: Tensor) -> Tensor:
    """Take the features of each RoI from the level of its size.

    A RoI is pooled at every level, as an empty one at all but its own. An
    empty one costs nothing, and is zeros; to OpenVINO, it is NaN.
    """
    feats = feats[: extractor.num_inputs]  # the RPN alone has more levels
    target = extractor.map_roi_levels(rois, len(feats))
    image, box = rois[:, :1], rois[:, 1:]
    empty = (box[:, 2:] <= box[:, :2]).any(1)
    pooled = []
    for i, (layer, feat) in enumerate(zip(extractor.roi_layers, feats)):
        own = (target == i)[:, None]
        found = B.align(
            feat,
            torch.cat([image, box * own.to(rois.dtype)], 1),
            layer.output_size[0],
            layer.spatial_scale,
            layer.sampling_ratio,
        )
        there = (own & ~empty[:, None])[..., None, None]
        pooled.append(torch.where(there, found, torch.zeros_like(found)))
    return reduce(torch.add, pooled)
