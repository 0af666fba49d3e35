"""labelme's JSON: a file an image; rectangles, polygons, circles, masks."""

import math
from base64 import b64decode
from pathlib import Path

import cv2
import numpy as np

from .sample import (
    Annotated,
    Instance,
    Notes,
    Sample,
    add_instance,
    as_text,
    ellipse,
    from_mask,
    polygon,
)
from .source import Source

_JOINED = 'shape joined to another one of its group (kept)'
# What hostile or broken numbers and lists raise.
_UNREADABLE = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
    cv2.error,
)


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    seen: dict[Path, int] = {}
    for file in source.with_suffix('.json'):
        # A few of each folder tell: there may be thousands.
        seen[file.parent] = seen.get(file.parent, 0) + 1
        if seen[file.parent] <= 3 and _is_labelme(source.read_json(file)):
            return True
    return False


def read(source: Source) -> Annotated:
    """Read a data set.

    Args:
        source (Source): Its files.

    Returns:
        Annotated: Classes in the order of their names.
    """
    notes = Notes()
    samples: dict[Path, Sample] = {}
    used_groups = set()
    for file in source.annotation_files('.json'):
        name = source.name(file)
        content = source.read_json(file)
        if not isinstance(content, dict) or not _is_labelme(content):
            notes.add('broken annotation file', name)
            continue
        image = source.find_image(
            str(content.get('imagePath') or ''), file
        ) or source.find_image(file.stem, file)
        sample = source.open_once(image, samples, name, notes)
        if sample is None or not source.has_size(
            sample,
            content.get('imageWidth'),
            content.get('imageHeight'),
            notes,
        ):
            continue
        groups: dict[tuple, Instance] = {}
        for number, shape in enumerate(content['shapes'], 1):
            where = f'{name}: shape {number}'
            try:
                instance = _instance(shape, sample)
            except _UNREADABLE:
                notes.add('shape without readable points', where)
                continue
            if instance is None:
                kind = f'shape of type {str(shape.get("shape_type"))[:20]}'
                notes.add(kind, where)
                continue
            if instance.label == '__ignore__':  # as in labelme's converters
                notes.add('shape that is labelled __ignore__', where)
                continue
            group = shape.get('group_id')
            used_groups.add(str(group))
            if group is None:
                add_instance(sample, notes, where, instance)
            elif (instance.label, str(group)) in groups:
                _join(groups[instance.label, str(group)], instance, sample)
                notes.add(_JOINED, where)
            else:
                groups[instance.label, str(group)] = instance
        for (_, group), instance in groups.items():
            add_instance(sample, notes, f'{name}: group {group}', instance)
        samples[sample.image] = sample
    if _JOINED in notes and len(used_groups) == 1:
        notes.add(
            'one group has all shapes: an image has one object of each class '
            '(clear group_id if there are more)',
            f'group {used_groups.pop()}',
        )
    found = list(samples.values())
    classes = sorted({i.label for s in found for i in s.instances})
    source.note_unused(found, notes)
    return Annotated('labelme', classes, found, notes)


def _is_labelme(content: object) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get('shapes'), list)
        and 'imagePath' in content
    )


def _instance(shape: dict, sample: Sample) -> Instance | None:
    label = str(shape['label']).strip()
    points = [(float(x), float(y)) for x, y in shape['points']]
    kind = shape.get('shape_type') or 'polygon'
    if kind == 'polygon':
        return polygon(label, points)
    if kind == 'rectangle':  # two corners, or four since version 5.5
        (x1, x2), (y1, y2) = (
            (min(values), max(values)) for values in zip(*points)
        )
        return Instance(label, (x1, y1, x2 - x1, y2 - y1))
    if kind == 'circle':
        center, edge = points
        radius = math.dist(center, edge)
        return ellipse(label, *center, radius, radius)
    if kind == 'mask':  # a PNG of what is between two pixels
        content = np.frombuffer(b64decode(shape['mask'], validate=True), 'u1')
        mask = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        (left, top), (right, bottom) = points
        if mask is None or mask.shape != (bottom - top + 1, right - left + 1):
            raise ValueError('a mask of another size than its box')
        return from_mask(label, mask > 0, int(left), int(top), sample)
    return None


def _join(instance: Instance, part: Instance, sample: Sample) -> None:
    """Add another part of an object: shapes of one label and group."""
    parts = [_outline(instance), _outline(part)]
    if all(isinstance(outline, list) for outline in parts):
        instance.segmentation = [*parts[0], *parts[1]]
    else:
        instance.segmentation = _merge(parts, sample)
    left, top = np.minimum(instance.bbox[:2], part.bbox[:2]).tolist()
    right, bottom = np.maximum(
        np.add(instance.bbox[:2], instance.bbox[2:]),
        np.add(part.bbox[:2], part.bbox[2:]),
    ).tolist()
    instance.bbox = (left, top, right - left, bottom - top)


def _merge(parts: list[list | dict], sample: Sample) -> dict:
    """The mask of masks and polygons."""
    from pycocotools import mask as rle

    size = sample.height, sample.width
    masks = [
        rle.merge(rle.frPyObjects(part, *size))
        if isinstance(part, list)
        else part
        for part in parts
    ]
    return as_text(rle.merge(masks))


def _outline(instance: Instance) -> list[list[float]] | dict:
    """The polygons or the mask of a shape; of a rectangle its corners."""
    if instance.segmentation:
        return instance.segmentation
    x, y, width, height = instance.bbox
    right, bottom = x + width, y + height
    return [[x, y, right, y, right, bottom, x, bottom]]
