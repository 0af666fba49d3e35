"""Reading photos of any format, and drawing on them at a modest size."""

import argparse
import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmengine.visualization import Visualizer
from PIL import Image, ImageOps, UnidentifiedImageError

#: Longer side of drawn pictures, in pixels, unless asked otherwise.
MAX_SIZE = 1600


class PictureError(ValueError):
    """A file that is not an image, or one that is damaged."""


def read_image(file: str | Path) -> np.ndarray:
    """Read an image of any format that OpenCV or Pillow knows.

    Args:
        file (str | Path): The file; its name may have any suffix or none.

    Returns:
        np.ndarray: BGR, ``(H, W, 3)`` uint8, turned as its EXIF data say; of
        an animation the first picture.

    Raises:
        PictureError: If neither of them can read it; says why.
    """
    try:
        data = np.fromfile(file, np.uint8)
    except OSError as error:
        raise PictureError(error.strerror) from None
    if not data.size:
        raise PictureError('the file is empty')
    image = None
    if data[8:12].tobytes() != b'WEBP':  # OpenCV leaves those unturned
        # It raises for some formats, such as one that is too large.
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is not None:
        return image
    try:
        with Image.open(file) as opened:
            rgb = ImageOps.exif_transpose(opened).convert('RGB')
    except UnidentifiedImageError:
        raise PictureError('no format that OpenCV or Pillow knows') from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders raise any of these for damaged files.
        raise PictureError(f'damaged: {error}') from None
    except Image.DecompressionBombError as error:
        raise PictureError(f'too large: {error}') from None
    return np.asarray(rgb)[..., ::-1]


def add_max_size(parser: argparse.ArgumentParser) -> None:
    """Add the option that limits the size of pictures.

    Args:
        parser (ArgumentParser): The parser to extend.
    """
    parser.add_argument(
        '--max-size',
        type=_max_size,
        default=MAX_SIZE,
        metavar='PIXELS',
        help='longer side at most of each photo that is drawn; 0 for full '
        f'size, which is slow for large ones (default: {MAX_SIZE})',
    )


def _max_size(text: str) -> int:
    size = int(text)
    if size < 0:
        raise argparse.ArgumentTypeError(f'{size} is less than 0')
    return size


def fit(width: int, height: int, max_size: int) -> tuple[int, int]:
    """Compute the size of a drawn picture.

    Args:
        width (int): Width of the image.
        height (int): Its height.
        max_size (int): Longer side at most; 0 for any.

    Returns:
        tuple[int, int]: Width and height, never larger than the image's.
    """
    longer = max(width, height)
    if max_size == 0 or longer <= max_size:
        return width, height
    scale = max_size / longer
    return max(round(width * scale), 1), max(round(height * scale), 1)


def draw_fast(visualizer: Visualizer, max_size: int) -> None:
    """Let a visualizer shrink large images, and what it draws with them.

    Two steps that take seconds for a large picture, each with masks of objects
    or of classes, are replaced by fast ones that draw the same.

    Args:
        visualizer (Visualizer): Of mmdet or mmseg; changed in place.
        max_size (int): Longer side of pictures at most; 0 for any.
    """
    draw = visualizer.add_datasample

    def draw_small(name, image, data_sample=None, *args, **options) -> None:
        size = fit(image.shape[1], image.shape[0], max_size)
        if size != image.shape[1::-1]:
            # Objects that are not drawn need not be shrunk.
            threshold = options.get('pred_score_thr', 0.3)
            if data_sample is not None:
                data_sample = _shrink(data_sample, image, size, threshold)
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        draw(name, image, data_sample, *args, **options)

    visualizer.add_datasample = draw_small
    visualizer.draw_binary_masks = partial(_draw_masks, visualizer)
    if hasattr(visualizer, '_get_center_loc'):  # of mmseg
        visualizer._get_center_loc = _middle_of_longest_row


def _draw_masks(
    visualizer: Visualizer,
    masks: np.ndarray,
    colors: Sequence[tuple[int, int, int]],
    alphas: float,
) -> None:
    """Blend the pixels of masks ``(N, H, W)`` with one color each."""
    image = visualizer.get_image()
    for mask, color in zip(masks, colors):
        image[mask] = image[mask] * (1 - alphas) + np.array(color) * alphas
    extent = (0, visualizer.width, visualizer.height, 0)
    visualizer.ax_save.imshow(image, extent=extent, interpolation='nearest')


def _middle_of_longest_row(mask: np.ndarray) -> np.ndarray:
    """Where mmseg writes the name of a class: x and y within its mask."""
    y = (mask == 1).sum(1).argmax()
    columns = np.flatnonzero(mask[y] == 1)
    return np.array([columns[len(columns) // 2], y])


def _shrink(
    sample: BaseDataElement,
    image: np.ndarray,
    size: tuple[int, int],
    threshold: float,
) -> BaseDataElement:
    """The sample of an image that is resized to width and height."""
    factors = (size[0] / image.shape[1], size[1] / image.shape[0])
    small = sample.clone()
    small.pop('seg_logits', None)  # large, and not drawn
    for name, part in list(small.items()):
        if isinstance(part, InstanceData):
            if 'scores' in part:
                part = part[part.scores > threshold]
            part = _shrink_instances(part.cpu(), factors, size)
        elif isinstance(part, PixelData):
            part = _shrink_pixels(part.cpu(), size)
        setattr(small, name, part)
    return small


def _shrink_instances(
    instances: InstanceData,
    factors: tuple[float, float],
    size: tuple[int, int],
) -> InstanceData:
    small = instances.clone()
    boxes, masks = instances.get('bboxes'), instances.get('masks')
    if isinstance(boxes, torch.Tensor):
        small.bboxes = boxes * boxes.new_tensor(factors * 2)
    elif boxes is not None:  # a class of mmdet
        small.bboxes = boxes.clone()
        small.bboxes.rescale_(factors)
    if isinstance(masks, torch.Tensor):
        small.masks = _resize(masks, size)
    elif masks is not None:  # a class of mmdet
        small.masks = masks.resize(size[::-1])
    return small


def _shrink_pixels(pixels: PixelData, size: tuple[int, int]) -> PixelData:
    maps = {name: torch.as_tensor(value) for name, value in pixels.items()}
    return PixelData(**{name: _resize(m, size) for name, m in maps.items()})


def _resize(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize maps ``(N, H, W)`` to the nearest pixel, in their dtype."""
    rows, columns = (
        torch.arange(new) * old // new
        for new, old in zip(size[::-1], maps.shape[-2:])
    )
    return maps[:, rows[:, None], columns]
