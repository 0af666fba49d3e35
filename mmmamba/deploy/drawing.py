"""Drawing what an exported model found: Pillow and numpy alone."""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw, ImageFont


def draw(
    image: np.ndarray,
    found: dict,
    facts: SimpleNamespace,
    score_thr: float = 0.3,
    opacity: float = 0.5,
) -> np.ndarray:
    """Draw objects, a label map, or the best classes.

    Args:
        image (np.ndarray): BGR, ``(H, W, 3)`` uint8.
        found (dict): Of :meth:`ExportedModel.predict`.
        facts (SimpleNamespace): Of the model.
        score_thr (float): Least score of a drawn object. Defaults to 0.3.
        opacity (float): Of masks and label maps. Defaults to 0.5.

    Returns:
        np.ndarray: BGR, of the same shape.

    Raises:
        ValueError: If it ends in feature maps.
    """
    rgb = image[..., ::-1].copy()
    if facts.task == 'segmentation':
        colors = np.array(_colors(facts, int(found['label_map'].max()) + 1))
        mixed = rgb * (1 - opacity) + colors[found['label_map']] * opacity
        return mixed.round().astype(np.uint8)[..., ::-1]
    if facts.task == 'classification':
        best = found['scores'].argsort()[::-1][:3]
        text = '\n'.join(
            f'{_name(facts, i)} {found["scores"][i]:.2f}' for i in best
        )
        picture = Image.fromarray(rgb)
        _write(ImageDraw.Draw(picture), (2, 2), text, _size(rgb))
        return np.asarray(picture)[..., ::-1]
    if facts.task != 'detection':
        raise ValueError('feature maps are not drawn')
    kept = found['scores'] > score_thr
    labels = found['labels'][kept]
    colors = np.array(_colors(facts, int(labels.max(initial=0)) + 1))
    if 'masks' in found:
        for mask, label in zip(found['masks'][kept], labels):
            rgb[mask] = rgb[mask] * (1 - opacity) + colors[label] * opacity
    picture = Image.fromarray(rgb)
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(rgb.shape) / 400))
    boxes = [[float(v) for v in box] for box in found['boxes'][kept]]
    for box, label in zip(boxes, labels):
        pen.rectangle(box, outline=tuple(colors[label].tolist()), width=width)
    # Names lie above all boxes.
    for box, score, label in zip(boxes, found['scores'][kept], labels):
        text = f'{_name(facts, label)}: {score * 100:.1f}'
        _write(pen, (box[0], box[1]), text, _size(rgb))
    return np.asarray(picture)[..., ::-1]


def _write(pen: ImageDraw.ImageDraw, at: tuple, text: str, size: int) -> None:
    """White letters on black."""
    font = _font(text.isascii(), size)
    pen.rectangle(pen.textbbox(at, text, font), fill=(0, 0, 0))
    pen.text(at, text, (255, 255, 255), font)


#: Fonts of the system for what Pillow's own has no letters for.
_FONTS = (
    *('NotoSansCJK-Regular.ttc', 'msyh.ttc', 'Arial Unicode.ttf'),
    *('DejaVuSans.ttf', 'Arial.ttf'),
)


@functools.cache  # a font is looked for in all folders of the system
def _font(ascii_letters: bool, size: int):
    """Choose a font that has more than ASCII's letters, if it must."""
    for name in () if ascii_letters else _FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _size(image: np.ndarray) -> int:
    return max(9, min(round(max(image.shape) / 60), 40))


def _name(facts: SimpleNamespace, label: int) -> str:
    if label < len(facts.classes):
        return facts.classes[label]
    return str(label)


def _colors(facts: SimpleNamespace, count: int) -> list:
    """Colors of the classes; where none are known, far from each other."""
    colors = [list(color) for color in facts.palette]
    rng = np.random.default_rng(0)
    while len(colors) < count:
        colors.append(rng.integers(0, 256, 3).tolist())
    return colors
