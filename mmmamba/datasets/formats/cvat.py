"""CVAT's own XML, "CVAT for images": a file for all images."""

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ..findings import DatasetError
from .sample import (
    Annotated,
    Instance,
    Notes,
    Sample,
    add_instance,
    ellipse,
    from_mask,
    polygon,
    turn,
)
from .source import Source
from .xml import parse_xml


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    files = source.with_suffix('.xml')[:20]
    return any(parse_xml(file, 'annotations') is not None for file in files)


def read(source: Source) -> Annotated:
    """Read a data set: boxes, polygons, masks and ellipses.

    Args:
        source (Source): Its files.

    Returns:
        Annotated: Classes in the order of the task's labels.

    Raises:
        DatasetError: If it is a video.
    """
    notes = Notes()
    samples: dict = {}
    labels: dict[str, None] = {}  # an ordered set
    elements: list[tuple[Element, str, str, Path | None]] = []
    for file in source.with_suffix('.xml'):
        root = parse_xml(file, 'annotations')
        if root is None:
            notes.add('broken annotation file', source.name(file))
            continue
        if root.find('track') is not None:
            raise DatasetError(
                f'{file} is "CVAT for video", which has tracks instead of '
                'images: export the task as "COCO" or "CVAT for images"'
            )
        for label in root.iterfind('meta//labels/label/name'):
            labels[(label.text or '').strip()] = None
        for element in root.iter('image'):
            name = element.get('name') or ''
            # As of a folder of that name; an absolute name stays below.
            split = source.split_of(
                source.root / f'./{element.get("subset") or ""}/{name}'
            )
            image = source.find_image(name, file, split)
            elements.append((element, name, split, image))
    images = source.settle((name, image) for _, name, _, image in elements)
    for (element, name, split, _), image in zip(elements, images):
        sample = source.open_once(image, samples, name, notes, split)
        size = element.get('width'), element.get('height')
        if sample is None or not source.has_size(sample, *size, notes):
            continue
        _add_shapes(sample, element, name, notes)
        samples[sample.image] = sample
    found = list(samples.values())
    used = {i.label for s in found for i in s.instances}
    classes = [label for label in labels if label in used]
    classes += sorted(used - set(classes))
    source.note_unused(found, notes)
    return Annotated('CVAT', classes, found, notes)


def _add_shapes(
    sample: Sample, element: Element, name: str, notes: Notes
) -> None:
    for number, shape in enumerate(element, 1):
        where = f'{name}: shape {number}'
        if shape.tag == 'tag':  # of the whole image
            continue
        try:
            instance = _instance(shape, sample)
        except (TypeError, ValueError, OverflowError):
            notes.add('shape without readable label or points', where)
            continue
        if instance is None:
            notes.add(f'shape of type {shape.tag[:20]}', where)
        else:
            add_instance(sample, notes, where, instance)


def _instance(shape: Element, sample: Sample) -> Instance | None:
    label = (shape.get('label') or '').strip()
    if not label:
        raise ValueError('no label')

    def numbers(*names: str) -> list[float]:
        return [float(shape.get(name) or 'nan') for name in names]

    angle = float(shape.get('rotation') or 0)
    if shape.tag == 'box':
        left, top, right, bottom = numbers('xtl', 'ytl', 'xbr', 'ybr')
        box = Instance(label, (left, top, right - left, bottom - top))
        if not angle:
            return box
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        center = ((left + right) / 2, (top + bottom) / 2)
        return polygon(label, turn(corners, angle, center))
    if shape.tag == 'polygon':
        return polygon(
            label,
            [
                [float(value) for value in point.split(',')]
                for point in (shape.get('points') or '').split(';')
            ],
        )
    if shape.tag == 'ellipse':
        x, y, radius_x, radius_y = numbers('cx', 'cy', 'rx', 'ry')
        found = ellipse(label, x, y, radius_x, radius_y)
        if not angle:
            return found
        points = np.reshape(np.asarray(found.segmentation), (-1, 2))
        return polygon(label, turn(points, angle, (x, y)))
    if shape.tag == 'mask':
        left, top, width, height = map(
            int, numbers('left', 'top', 'width', 'height')
        )
        runs = [int(run) for run in (shape.get('rle') or '').split(',')]
        if min(runs) < 0 or sum(runs) != width * height:
            raise ValueError('runs of another size')
        if width * height > sample.width * sample.height:
            raise ValueError('a mask larger than its image')
        # In turn of the background and the object, row by row.
        pixels = np.repeat(np.arange(len(runs)) % 2, runs)
        return from_mask(
            label, pixels.reshape(height, width) == 1, left, top, sample
        )
    return None
