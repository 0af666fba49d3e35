"""What every reader returns: annotated images, and what was left out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..coco import polygon_area

# Points of the polygon that stands for a circle or an ellipse.
_ROUND = 64


@dataclass
class Instance:
    """An object in an image.

    Attributes:
        label (str): Name of its class.
        bbox (tuple): x, y, width, height in pixels, as in COCO.
        segmentation (list | dict): COCO's polygons or RLE; empty for a box.
        iscrowd (bool): Whether it is a crowd region, which is not evaluated.
    """

    label: str
    bbox: tuple[float, float, float, float]
    segmentation: list[list[float]] | dict = field(default_factory=list)
    iscrowd: bool = False


@dataclass
class Sample:
    """An annotated image.

    Attributes:
        image (Path): The image file.
        width (int): As the image is seen, turned as its EXIF data says.
        height (int): Likewise.
        split (str): ``'train'``, ``'val'`` or ``'test'``; ``''`` if open.
        instances (list[Instance]): Its objects.
        label_map (Path, optional): Its label map.
        labels (frozenset[str]): Its classes, to split evenly.
        name (str): Its file name where it is written.
        turned (bool): Whether EXIF exchanges width and height.
        stored (bool): Whether it was annotated without that.
    """

    image: Path
    width: int
    height: int
    split: str = ''
    instances: list[Instance] = field(default_factory=list)
    label_map: Path | None = None
    labels: frozenset[str] = frozenset()
    name: str = ''
    turned: bool = False
    stored: bool = False


class Notes(dict[str, list[str]]):
    """What was left out: for each reason, what and where."""

    def add(self, reason: str, name: object) -> None:
        """Count one more.

        Args:
            reason (str): Why it was left out.
            name (object): The file or annotation.
        """
        # Names come from files: nothing in them may steer a terminal.
        plain = ''.join(c if c.isprintable() else '?' for c in str(name))
        self.setdefault(reason, []).append(plain[:300])


@dataclass
class Annotated:
    """A data set as it was read.

    Attributes:
        format (str): Name of its format.
        classes (list[str]): Class names, in their order.
        samples (list[Sample]): Its images.
        notes (Notes): What was left out.
        palette (list, optional): RGB colors of the classes of label maps.
        read_map (Callable, optional): Reads the label map of a sample as a
            ``(H, W)`` array of uint8: 0 is ignored, 1 is the first class, as
            in ADE20K. Only data sets of label maps have it.
    """

    format: str
    classes: list[str]
    samples: list[Sample]
    notes: Notes
    palette: list[list[int]] | None = None
    read_map: Callable[[Sample], np.ndarray] | None = None


def add_instance(
    sample: Sample, notes: Notes, where: str, instance: Instance
) -> None:
    """Add an object to its image, cut at the image's border.

    Args:
        sample (Sample): The image.
        notes (Notes): Counts an object that is left out, as one that is there
            already, or is cut by more than a pixel.
        where (str): The object's place in the files, for the notes.
        instance (Instance): The object.
    """
    x, y, width, height = instance.bbox
    if not all(map(math.isfinite, instance.bbox)):
        return notes.add('box that is no number', where)
    if width <= 0 or height <= 0:
        return notes.add('empty box', where)
    left, right = max(x, 0.0), min(x + width, float(sample.width))
    top, bottom = max(y, 0.0), min(y + height, float(sample.height))
    if left >= right or top >= bottom:
        return notes.add('box outside of its image', where)
    # mmdet ignores them silently.
    if right - left < 1 or bottom - top < 1:
        return notes.add('box below 1 px', where)
    inside = (left - x, top - y, x + width - right, y + height - bottom)
    if isinstance(instance.segmentation, list):
        instance.segmentation = [
            clipped
            for outline in instance.segmentation
            if (clipped := _clip(outline, sample))
        ]
    if any(inside):
        instance.bbox = (left, top, right - left, bottom - top)
        if max(inside) > 1:
            notes.add('box cut at the border of its image (kept)', where)
    # It could be found once alone, and would halve the precision.
    if instance in sample.instances:
        return notes.add('object annotated twice', where)
    sample.instances.append(instance)
    return None


def _clip(outline: Sequence[float], sample: Sample) -> list[float]:
    """The part of a polygon in its image, by Sutherland and Hodgman."""
    points = np.reshape(outline, (-1, 2)).astype(float)
    if (points == points.clip(0, (sample.width, sample.height))).all():
        return list(outline)
    for axis, size in enumerate((sample.width, sample.height)):
        for border, inwards in ((0.0, 1), (float(size), -1)):
            ends = np.roll(points, -1, axis=0)
            depth = (points[:, axis] - border) * inwards
            beyond = (ends[:, axis] - border) * inwards
            crosses = np.sign(depth) * np.sign(beyond) < 0
            share = (depth[crosses] / (depth - beyond)[crosses])[:, None]
            cuts = np.zeros_like(points)
            cuts[crosses] = (1 - share) * points[crosses]
            cuts[crosses] += share * ends[crosses]
            cuts[:, axis] = border
            # After each point that is inside, where its edge is cut.
            kept = np.stack([depth >= 0, crosses], 1)
            points = np.stack([points, cuts], 1)[kept]
    return points.ravel().tolist()


def polygon(
    label: str, points: Sequence[Sequence[float]] | np.ndarray
) -> Instance:
    """Make an object of its outline.

    Args:
        label (str): Name of its class.
        points (Sequence | np.ndarray): x, y of at least three corners.

    Returns:
        Instance: With the box around the points.

    Raises:
        ValueError: If these are not points of an outline.
    """
    corners = np.asarray(points, float)
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise ValueError('a polygon needs three points of two numbers')
    x, y = corners.min(0).tolist()
    right, bottom = corners.max(0).tolist()
    return Instance(
        label, (x, y, right - x, bottom - y), [corners.ravel().tolist()]
    )


def ellipse(
    label: str, x: float, y: float, radius_x: float, radius_y: float
) -> Instance:
    """Make an object of an ellipse, a polygon with the exact box around.

    Args:
        label (str): Name of its class.
        x (float): The center.
        y (float): The center.
        radius_x (float): Half the width.
        radius_y (float): Half the height.

    Returns:
        Instance: The object.
    """
    angles = np.arange(_ROUND) * (2 * np.pi / _ROUND)
    points = np.stack(
        [x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], 1
    )
    return polygon(label, points.tolist())


def turn(
    points: Sequence[Sequence[float]] | np.ndarray,
    degrees: float,
    center: tuple[float, float],
) -> np.ndarray:
    """Turn points of an outline clockwise, as it is seen.

    Args:
        points (Sequence | np.ndarray): x, y of each.
        degrees (float): The angle.
        center (tuple): x, y of what stays where it is.

    Returns:
        np.ndarray: Of shape (n, 2).
    """
    cosine = math.cos(math.radians(degrees))
    sine = math.sin(math.radians(degrees))
    turned = np.array([[cosine, sine], [-sine, cosine]])
    return (np.asarray(points) - center) @ turned + center


def from_mask(
    label: str, mask: np.ndarray, left: int, top: int, sample: Sample
) -> Instance:
    """Make an object of the mask of a part of its image.

    Args:
        label (str): Name of its class.
        mask (np.ndarray): (height, width) of the part, bool.
        left (int): Where the part begins; it may reach beyond the image.
        top (int): Likewise.
        sample (Sample): The image.

    Returns:
        Instance: With the box around its pixels.

    Raises:
        ValueError: If it has no pixel in the image.
    """
    from pycocotools import mask as rle

    y, x = np.nonzero(mask)
    y, x = y + top, x + left
    inside = (y >= 0) & (y < sample.height) & (x >= 0) & (x < sample.width)
    pixels = np.zeros((sample.height, sample.width), np.uint8, order='F')
    pixels[y[inside], x[inside]] = 1
    if not pixels.any():
        raise ValueError('a mask without a pixel')
    runs = rle.encode(pixels)
    left, top, width, height = rle.toBbox(runs).tolist()
    return Instance(
        label,
        (left, top, width, height),
        as_text(runs),
    )


def as_text(runs: Mapping) -> dict:
    """Run lengths of pycocotools as COCO's files have them.

    Args:
        runs (Mapping): With bytes as ``counts``.

    Returns:
        dict: With text.
    """
    return dict(size=runs['size'], counts=runs['counts'].decode())


def area(instance: Instance) -> float:
    """The area of an object, as in COCO.

    Args:
        instance (Instance): The object.

    Returns:
        float: Of its polygons or its mask, else of its box; pixels.
    """
    if isinstance(instance.segmentation, dict):
        from pycocotools import mask

        return float(mask.area(instance.segmentation))
    if not instance.segmentation:
        return instance.bbox[2] * instance.bbox[3]
    return sum(map(polygon_area, instance.segmentation))
