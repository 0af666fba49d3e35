"""From a photo to the input of an exported model, and back.

The same pixels as mmcv's and mmseg's, in numpy and OpenCV. Where OpenCV is
not installed, Pillow serves; its resizing differs a little.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

try:
    import cv2
except ImportError:
    cv2 = None  # type: ignore[assignment]

#: Names in a config, and in OpenCV.
INTERPOLATIONS = dict(
    nearest='NEAREST',
    bilinear='LINEAR',
    bicubic='CUBIC',
    area='AREA',
    lanczos='LANCZOS4',
)


def resize(
    image: np.ndarray, height: int, width: int, interpolation: str = 'bilinear'
) -> np.ndarray:
    """Resize an image or a map ``(H, W)`` or ``(H, W, C)``."""
    if image.shape[:2] == (height, width):
        return image
    if cv2 is not None:
        flag = getattr(cv2, f'INTER_{INTERPOLATIONS[interpolation]}')
        if image.ndim == 3 and image.shape[2] > 512:  # the most of OpenCV
            parts = np.split(image, range(512, image.shape[2], 512), 2)
            parts = [resize(p, height, width, interpolation) for p in parts]
            return np.concatenate([np.atleast_3d(p) for p in parts], 2)
        return cv2.resize(image, (width, height), interpolation=flag)
    if image.dtype == np.uint8:
        return _pillow_resize(image, (height, width), interpolation)
    layers = [
        _pillow_resize(layer, (height, width), interpolation)
        for layer in np.moveaxis(np.atleast_3d(image), 2, 0)
    ]
    return np.stack(layers, -1).reshape(height, width, *image.shape[2:])


def prepare(
    image: np.ndarray, facts: SimpleNamespace
) -> tuple[np.ndarray, tuple[int, int]]:
    """Bring a BGR image into the form of the input.

    Args:
        image (np.ndarray): ``(H, W, 3)`` uint8.
        facts (SimpleNamespace): Of the model.

    Returns:
        tuple[np.ndarray, tuple[int, int]]: The input, and the size that the
        image has in it.
    """
    frame = facts.shape or facts.resize.get('crop')
    if facts.resize.get('crops', facts.task == 'classification'):
        image = _crop(image, frame, facts.resize)
        height, width = size = image.shape[:2]
    else:
        height, width = frame or image.shape[:2]
        size = _fitting(image.shape[:2], (height, width), facts.resize)
        image = _resize_as(image, size, facts.resize)
    missing = [(0, height - size[0]), (0, width - size[1])]
    if 'pad_value' in facts.resize:  # padded before it is normalized
        image = _pad(image, missing, np.array(facts.resize['pad_value']))
        missing = [(0, 0), (0, 0)]
    if facts.preprocessed:
        # The value that becomes 0, as rounding allows.
        mean = facts.mean[::-1] if facts.bgr_to_rgb else facts.mean
        return _pad(image, missing, np.round(mean)), size
    if facts.bgr_to_rgb:
        image = image[..., ::-1]
    mean, std = (np.array(v, np.float32) for v in (facts.mean, facts.std))
    x = (image.astype(np.float32) - mean) / std
    x = _pad(x, missing, np.zeros(3, np.float32))
    return np.ascontiguousarray(x.transpose(2, 0, 1)), size


def _fitting(
    old: tuple[int, int], new: tuple[int, int], how: dict
) -> tuple[int, int]:
    """Size of an image in a frame, as ``mmcv.rescale_size`` rounds it."""
    if not how.get('keep_ratio', True):
        return tuple(how.get('scale') or new)
    factor = min(new[0] / old[0], new[1] / old[1])
    if 'scale' in how:  # of the longer and the shorter side, either way up
        long, short = max(how['scale']), min(how['scale'])
        factor = min(factor, long / max(old), short / min(old))
    return (
        max(1, min(int(old[0] * factor + 0.5), new[0])),
        max(1, min(int(old[1] * factor + 0.5), new[1])),
    )


def _crop(
    image: np.ndarray, frame: tuple[int, int] | None, how: dict
) -> np.ndarray:
    """Resize to a scale, or one side, and take the centre if there is one."""
    old = image.shape[:2]
    if 'scale' in how:
        new = _fitting(old, (max(how['scale']),) * 2, how)
    elif frame is None and 'edge' not in how:
        return image
    else:
        edge = how.get('edge', min(frame or old))
        side = how.get('side', 'short')
        by_width = dict(short=old[1] <= old[0], long=old[1] > old[0])
        if by_width.get(side, side == 'width'):
            new = (int(edge * old[0] / old[1]), edge)
        else:
            new = (edge, int(edge * old[1] / old[0]))
    image = _resize_as(image, new, how)
    if frame is None:
        return image
    height, width = frame
    top = max(0, int(round((new[0] - height) / 2.0)))
    left = max(0, int(round((new[1] - width) / 2.0)))
    image = image[top : top + height, left : left + width]
    missing = [(0, height - image.shape[0]), (0, width - image.shape[1])]
    return _pad(image, missing, np.array(how.get('pad_value', (0, 0, 0))))


def _resize_as(image: np.ndarray, size: tuple, how: dict) -> np.ndarray:
    """Resize by the backend and the interpolation of the config."""
    interpolation = how.get('interpolation', 'bilinear')
    if how.get('backend') == 'pillow':
        return _pillow_resize(image, size, interpolation)
    return resize(image, size[0], size[1], interpolation)


def _pillow_resize(image, size, interpolation) -> np.ndarray:
    from PIL import Image

    kind = 'BOX' if interpolation == 'area' else interpolation.upper()
    method = Image.Resampling[kind]
    picture = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(picture.resize((size[1], size[0]), method))


def _pad(x: np.ndarray, missing: list, value: np.ndarray) -> np.ndarray:
    """Pad at the bottom and the right with one value a channel."""
    if not any(sum(m) for m in missing):
        return np.ascontiguousarray(x)
    padded = np.empty(
        (x.shape[0] + missing[0][1], x.shape[1] + missing[1][1], x.shape[2]),
        x.dtype,
    )
    padded[:] = value.astype(x.dtype)
    padded[: x.shape[0], : x.shape[1]] = x
    return padded


def objects(
    outputs: dict, shape: tuple, size: tuple, facts: SimpleNamespace
) -> dict:
    """Bring the objects of a detector back to the pixels of the photo."""
    found = outputs['labels'] >= 0
    # mmdet divides by the factors of the sizes.
    factor = np.array([size[1] / shape[1], size[0] / shape[0]] * 2, np.float32)
    boxes = outputs['boxes'] / factor
    # A box may reach into the padding, or lie in it.
    height, width = shape
    inside = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    found &= (inside[:, 2:] > inside[:, :2]).all(1)
    result = dict(
        boxes=inside[found],
        scores=outputs['scores'][found],
        labels=outputs['labels'][found],
    )
    if 'masks' in outputs:  # they fill the whole box
        result['masks'] = paste(
            outputs['masks'][found], boxes[found], shape, facts.mask_threshold
        )
    return result


def paste(
    masks: np.ndarray, boxes: np.ndarray, shape: tuple, threshold: float
) -> np.ndarray:
    """Paste masks ``(N, M, M)`` into their boxes: ``(N, H, W)`` bool.

    Bilinear, as mmdet's ``_do_paste_mask``: beyond the outermost samples a
    mask falls to 0.
    """
    result = np.zeros((len(masks), *shape), bool)
    side = masks.shape[-1] if len(masks) else 0
    for mask, box, target in zip(masks, boxes, result):
        x1, y1, x2, y2 = box
        if x2 <= x1 or y2 <= y1:
            continue
        padded = np.pad(mask, 1)
        top, left = max(int(y1) - 1, 0), max(int(x1) - 1, 0)
        bottom = min(int(np.ceil(y2)) + 1, shape[0])
        right = min(int(np.ceil(x2)) + 1, shape[1])
        # Positions of the pixels' centres among the samples of the mask.
        rows = (np.arange(top, bottom) + 0.5 - y1) / (y2 - y1) * side - 0.5
        columns = (np.arange(left, right) + 0.5 - x1) / (x2 - x1) * side - 0.5
        upper, row_part = _neighbours(rows, side)
        first, column_part = _neighbours(columns, side)
        row_part, column_part = row_part[:, None], column_part[None]
        values = (
            padded[upper][:, first] * (1 - row_part) * (1 - column_part)
            + padded[upper + 1][:, first] * row_part * (1 - column_part)
            + padded[upper][:, first + 1] * (1 - row_part) * column_part
            + padded[upper + 1][:, first + 1] * row_part * column_part
        )
        target[top:bottom, left:right] = values >= threshold
    return result


def _neighbours(
    position: np.ndarray, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Index in the padded mask of the sample before, and the way behind it."""
    position = np.clip(position, -1, side - 1e-6)
    before = np.floor(position).astype(int)
    return before + 1, (position - before).astype(np.float32)


def label_map(
    outputs: dict, shape: tuple, size: tuple, facts: SimpleNamespace
) -> dict:
    """Bring the map of a segmentor to the size of the photo."""
    if 'label_map' in outputs:
        labels = outputs['label_map'][: size[0], : size[1]]
        return dict(label_map=resize(labels, shape[0], shape[1], 'nearest'))
    logits = outputs['logits'][:, : size[0], : size[1]].transpose(1, 2, 0)
    if facts.align_corners:
        logits = _stretch(logits, shape)
    else:
        logits = resize(np.ascontiguousarray(logits), shape[0], shape[1])
    if logits.ndim == 2 or logits.shape[2] == 1:
        scores = 1 / (1 + np.exp(-logits.reshape(shape)))
        return dict(label_map=(scores > facts.threshold).astype(np.uint8))
    dtype = np.uint8 if logits.shape[2] <= 256 else np.int32
    return dict(label_map=logits.argmax(-1).astype(dtype))


def _stretch(x: np.ndarray, shape: tuple) -> np.ndarray:
    """Resize a map ``(H, W, C)`` bilinearly, corners on corners."""
    for axis, new in enumerate(shape):
        at = np.linspace(0, x.shape[axis] - 1, new, dtype=np.float32)
        first = at.astype(int)
        after = np.minimum(first + 1, x.shape[axis] - 1)
        part = np.expand_dims(at - first, (1, 2) if axis == 0 else (0, 2))
        x = x.take(first, axis) * (1 - part) + x.take(after, axis) * part
    return x
