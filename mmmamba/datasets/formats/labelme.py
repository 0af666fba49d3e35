"""labelme's JSON: a file an image, rectangles, polygons and circles."""

import math
from pathlib import Path

import numpy as np

from .sample import (
    Annotated,
    Instance,
    Notes,
    add_instance,
    ellipse,
    polygon,
)
from .source import Source

# What hostile or broken numbers and lists raise.
_UNREADABLE = (
    TypeError,
    ValueError,
    KeyError,
    AttributeError,
    OverflowError,
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
    samples = {}
    for file in source.with_suffix('.json'):
        name = source.name(file)
        content = source.read_json(file)
        if not isinstance(content, dict) or not _is_labelme(content):
            notes.add('broken annotation file', name)
            continue
        image = source.find_image(
            str(content.get('imagePath') or ''), file
        ) or source.find_image(file.stem, file)
        if image is None:
            notes.add('image not found', name)
            continue
        if image in samples:
            notes.add('image annotated twice', name)
            continue
        sample = source.open(image, notes)
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
                instance = _instance(shape)
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
            if group is None:
                add_instance(sample, notes, where, instance)
            elif (instance.label, str(group)) in groups:
                _join(groups[instance.label, str(group)], instance)
            else:
                groups[instance.label, str(group)] = instance
        for (_, group), instance in groups.items():
            add_instance(sample, notes, f'{name}: group {group}', instance)
        samples[image] = sample
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


def _instance(shape: dict) -> Instance | None:
    label = str(shape['label'])
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
    return None


def _join(instance: Instance, part: Instance) -> None:
    """Add another part of an object: shapes of one label and group."""
    instance.segmentation = [*_outline(instance), *_outline(part)]
    left, top = np.minimum(instance.bbox[:2], part.bbox[:2]).tolist()
    right, bottom = np.maximum(
        np.add(instance.bbox[:2], instance.bbox[2:]),
        np.add(part.bbox[:2], part.bbox[2:]),
    ).tolist()
    instance.bbox = (left, top, right - left, bottom - top)


def _outline(instance: Instance) -> list[list[float]]:
    """The polygons of a shape; of a rectangle its corners."""
    if instance.segmentation:
        return list(instance.segmentation)
    x, y, width, height = instance.bbox
    right, bottom = x + width, y + height
    return [[x, y, right, y, right, bottom, x, bottom]]
