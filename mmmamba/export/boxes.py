"""Boxes of detectors in arrays of fixed size, as exported graphs need them.

A detector finds a different number of objects in each image. In a graph all
arrays keep their size: what does not count has the score -1 until the end.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torchvision.ops import nms, roi_align

#: Score of a candidate that does not count.
NONE = -1.0


def top(
    scores: Tensor, count: int, *others: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Take the best candidates, in order.

    Args:
        scores (Tensor): ``(B, N)``.
        count (int): How many; all N if there are fewer.
        *others (Tensor): ``(B, N)`` or ``(B, N, C)``, of the same candidates.

    Returns:
        tuple[Tensor, list[Tensor]]: The scores and the others, of ``count``
        candidates.
    """
    count = min(count, int(scores.shape[1]))
    scores, indices = scores.topk(count, dim=1)
    return scores, [take(other, indices) for other in others]


def take(x: Tensor, indices: Tensor) -> Tensor:
    """Take the candidates ``(B, k)`` of ``(B, N)`` or ``(B, N, C)``."""
    if x.dim() == 2:
        return x.gather(1, indices)
    return x.gather(1, indices[..., None].expand(-1, -1, int(x.shape[2])))


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """Cut boxes ``(..., 4)`` at the border of the image."""
    x1, y1, x2, y2 = boxes.split(1, -1)
    return torch.cat(
        [
            x1.clamp(0, width),
            y1.clamp(0, height),
            x2.clamp(0, width),
            y2.clamp(0, height),
        ],
        -1,
    )


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, cfg: dict, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression within groups, as ``mmcv.ops.batched_nms``.

    Args:
        boxes (Tensor): ``(B, N, 4)``.
        scores (Tensor): ``(B, N)``; those below 0 do not count.
        groups (Tensor): Class or level of each, ``(B, N)`` int64.
        cfg (dict): The config of mmcv's NMS.
        count (int): Objects to keep at most; all if it is not positive.

    Returns:
        tuple[Tensor, Tensor, Tensor]: Boxes, scores and groups of ``count``
        objects at most, the best first; behind the last one scores are -1.
    """
    if count <= 0:
        count = int(scores.shape[1])
    # As mmcv does it: boxes of two groups are moved far from each other.
    counted = (scores >= 0).to(boxes.dtype)
    largest = (boxes * counted[..., None]).amax((1, 2))[:, None]
    offsets = groups.to(boxes.dtype) * (largest + 1)
    moved = boxes
    if not cfg.get('class_agnostic', False):
        moved = boxes + offsets[..., None]
    kept = keep(moved, scores, cfg['iou_threshold'], count)
    scores = torch.where(kept, scores, torch.full_like(scores, NONE))
    scores, (boxes, groups) = top(scores, count, boxes, groups)
    return boxes, scores, groups


def keep(
    boxes: Tensor, scores: Tensor, iou_threshold: float, count: int
) -> Tensor:
    """Tell which of the boxes ``(B, N, 4)`` are kept: ``(B, N)`` bool."""
    if torch.onnx.is_in_onnx_export():
        return NMS.apply(boxes, scores, iou_threshold, count)
    return _keep(boxes, scores, iou_threshold, count)


# Two boxes far from any image and from each other.
_FAR = [
    [-2e6, -2e6, -2e6 + 100, -2e6 + 100],
    [-1e6, -1e6, -1e6 + 100, -1e6 + 100],
]


def _keep(boxes, scores, iou_threshold, count) -> Tensor:
    counted = scores > 0
    # torch.export wants two results at least: those of the boxes far away,
    # one of which is where all candidates are that do not count.
    far = boxes.new_tensor(_FAR)
    boxes = torch.where(counted[..., None], boxes, far[0])
    scores = F.pad(torch.where(counted, scores, NONE), (0, 2), value=NONE)
    rows = []
    for image_boxes, image_scores in zip(boxes, scores):
        best = nms(torch.cat([image_boxes, far]), image_scores, iou_threshold)
        marks = torch.zeros_like(image_scores)
        rows.append(marks.index_fill(0, best[:count], 1)[:-2])
    return (torch.stack(rows) > 0) & counted


class NMS(Function):
    """:func:`keep` as ONNX has it."""

    @staticmethod
    def forward(ctx, boxes, scores, iou_threshold, count):
        """Do as in PyTorch."""
        return _keep(boxes, scores, iou_threshold, count)

    @staticmethod
    def symbolic(g, boxes, scores, iou_threshold, count):
        """Mark the indices that NonMaxSuppression gives."""
        number = g.op(
            'Constant', value_t=torch.tensor([count], dtype=torch.int64)
        )
        iou = g.op('Constant', value_t=torch.tensor([float(iou_threshold)]))
        least = g.op('Constant', value_t=torch.tensor([0.0]))
        one = g.op('Constant', value_t=torch.tensor([1]))
        zero = g.op('Constant', value_t=torch.tensor([0]))
        kept = g.op(
            'NonMaxSuppression',
            boxes,
            g.op('Unsqueeze', scores, one),  # as a single class
            number,
            iou,
            least,
        )
        # (M, 3): image, class, box
        columns = g.op('Constant', value_t=torch.tensor([0, 2]))
        indices = g.op('Gather', kept, columns, axis_i=1)
        marks = g.op(
            'Expand',
            g.op('Constant', value_t=torch.tensor([1.0])),
            g.op('Gather', g.op('Shape', kept), zero, axis_i=0),
        )
        empty = g.op('Sub', scores, scores)
        marked = g.op('ScatterND', empty, indices, marks)
        half = g.op('Constant', value_t=torch.tensor(0.5))
        result = g.op('Greater', marked, half)
        result.setType(scores.type().with_dtype(torch.bool))
        return result


def align(
    x: Tensor, rois: Tensor, size: int, scale: float, sampling_ratio: int
) -> Tensor:
    """Pool RoIs ``(N, 5)`` of a map to ``(N, C, size, size)``.

    As mmcv's ``RoIAlign`` with ``aligned=True``; 0 samples are as many as the
    RoI has pixels.
    """
    if torch.onnx.is_in_onnx_export():
        return RoIAlign.apply(x, rois, size, scale, sampling_ratio)
    return roi_align(x, rois, size, scale, sampling_ratio, aligned=True)


class RoIAlign(Function):
    """:func:`align` as ONNX has it."""

    @staticmethod
    def forward(ctx, x, rois, size, scale, sampling_ratio):
        """Do as in PyTorch."""
        return roi_align(x, rois, size, scale, sampling_ratio, aligned=True)

    @staticmethod
    def symbolic(g, x, rois, size, scale, sampling_ratio):
        """Take images and boxes apart."""
        zero = g.op('Constant', value_t=torch.tensor(0))
        boxes = g.op('Constant', value_t=torch.tensor([1, 2, 3, 4]))
        images = g.op('Gather', rois, zero, axis_i=1)
        return g.op(
            'RoiAlign',
            x,
            g.op('Gather', rois, boxes, axis_i=1),
            g.op('Cast', images, to_i=7),  # int64
            coordinate_transformation_mode_s='half_pixel',
            mode_s='avg',
            output_height_i=size,
            output_width_i=size,
            sampling_ratio_i=sampling_ratio,
            spatial_scale_f=scale,
        )


def with_image(boxes: Tensor) -> Tensor:
    """Make RoIs ``(B * N, 5)``, image first, of boxes ``(B, N, 4)``."""
    images = torch.ones_like(boxes[..., :1]).cumsum(0) - 1
    return torch.cat([images, boxes], -1).reshape(-1, 5)


def finish(
    boxes: Tensor, scores: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Give rows without an object zeros, and the label -1."""
    found = scores > 0
    scores = F.relu(scores)
    boxes = boxes * found[..., None].to(boxes.dtype)
    labels = torch.where(found, labels, torch.full_like(labels, -1))
    return boxes, scores, labels
