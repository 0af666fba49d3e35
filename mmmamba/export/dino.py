"""DINO, which ends in boxes, scores and labels without NMS."""

from typing import Any

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from . import boxes as B
from .detectors import Detector
from .errors import ExportError


class DINO(Detector):
    """mmdet's ``DINO.predict`` for a whole batch.

    Positions and the mask of the padding depend on the size alone, and are
    constants of the graph.

    Args:
        model (nn.Module): mmdet's ``DINO``.
        shape (tuple[int, int]): Height and width of the image without the
            padding.

    Raises:
        ExportError: If model or head are others, or if the image is too
            small for so many queries.
    """

    def __init__(self, model: Any, shape) -> None:
        super().__init__(model, shape)
        head = model.bbox_head
        kinds = [type(part).__name__ for part in (model, head)]
        if kinds != ['DINO', 'DINOHead'] or not head.loss_cls.use_sigmoid:
            raise ExportError(
                f'{kinds[0]} with {kinds[1]} predicts in a way of its own, '
                'which is not exported; DINO with DINOHead is, if its '
                'loss_cls.use_sigmoid=True'
            )
        feats = self.example_feats()
        places = sum(f[0, 0].numel() for f in feats)
        if places < model.num_queries:
            raise ExportError(
                f'an image of {shape[0]}x{shape[1]} has {places} places, and '
                f'DINO takes the best {model.num_queries} '
                '(model.num_queries); give a larger --shape'
            )
        sizes = dict(img_shape=shape, batch_input_shape=tuple(self.padded))
        self.encoder_inputs, self.decoder_inputs = model.pre_transformer(
            feats, [DetDataSample(metainfo=sizes)]
        )
        # As a buffer a file holds it once, else once for each layer.
        self.positions: Tensor
        positions = self.encoder_inputs.pop('feat_pos')
        self.register_buffer('positions', positions)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes ``(B, K, 4)``, scores ``(B, K)``, labels ``(B, K)``."""
        model, head = self.model, self.model.bbox_head
        feats = model.extract_feat(x)
        inputs = dict(self.encoder_inputs, feat_pos=self.positions)
        inputs['feat'] = torch.cat(
            [f.flatten(2).transpose(1, 2) for f in feats], 1
        )
        if inputs['feat_mask'] is not None:
            inputs['feat_mask'] = inputs['feat_mask'].expand(x.shape[0], -1)
        queries, _ = model.pre_decoder(**model.forward_encoder(**inputs))
        states = model.forward_decoder(**{**self.decoder_inputs, **queries})
        logits, boxes = (layers[-1] for layers in head(**states))

        number, classes = (int(size) for size in logits.shape[1:])
        count = head.test_cfg.get('max_per_img', number)
        scores, indices = logits.sigmoid().flatten(1).topk(count, dim=1)
        query = torch.div(indices, classes, rounding_mode='floor')
        labels = indices - query * classes
        height, width = self.shape
        boxes = bbox_cxcywh_to_xyxy(B.take(boxes, query))
        boxes = boxes * boxes.new_tensor([width, height, width, height])
        return B.clip(boxes, height, width), scores, labels
