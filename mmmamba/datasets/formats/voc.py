"""Pascal VOC's XML: a file an image, in Annotations/ or beside the image."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element

from .sample import (
    Annotated,
    Instance,
    Notes,
    Sample,
    add_instance,
    polygon,
)
from .source import Source
from .xml import parse_xml

_DIFFICULT = {
    'keep': 'object marked difficult (kept)',
    'ignore': 'object marked difficult (ignored)',
    'drop': 'object marked difficult',
}


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    return any(
        parse_xml(file, 'annotation') is not None
        for file in source.with_suffix('.xml')[:20]
    )


def read(source: Source, difficult: str = 'keep') -> Annotated:
    """Read a data set.

    VOC counts pixels from 1 and includes the last one, so that a box is
    ``xmin - 1`` to ``xmax`` from edge to edge (as in ``supervision``). A box
    that starts at 0 shows that these are edges, as Label Studio and Datumaro
    write them: ``xmin`` to ``xmax``.

    Args:
        source (Source): Its files.
        difficult (str): What becomes of objects that are marked difficult:
            ``'keep'``, ``'ignore'`` (neither found nor missed, as in VOC's
            own evaluation) or ``'drop'``.

    Returns:
        Annotated: Classes in the order of their names.
    """
    notes = Notes()
    samples: dict[Path, Sample] = {}
    objects: list[tuple[Sample, str, Instance]] = []
    splits = source.listed_splits()
    files: list[tuple[Path, Element]] = []
    named: list[tuple[str, Path | None]] = []
    for file in source.annotation_files('.xml'):
        root = parse_xml(file, 'annotation')
        if root is None:
            notes.add('broken annotation file', source.name(file))
            continue
        files.append((file, root))
        named.append(_find_image(source, file, root))
    for (file, root), image in zip(files, source.settle(named)):
        name = source.name(file)
        split = splits.get(file.stem, '')
        sample = source.open_once(image, samples, name, notes, split)
        if sample is None:
            continue
        size = root.findtext('size/width'), root.findtext('size/height')
        if not source.has_size(sample, *size, notes):
            continue
        for number, element in enumerate(root.iter('object'), 1):
            where = f'{name}: object {number}'
            try:
                instance = _instance(element)
            except (TypeError, ValueError):
                notes.add('object without a readable name or box', where)
                continue
            if min(instance.bbox[2:]) < 0:
                notes.add('box with exchanged corners (kept)', where)
                x, y, width, height = instance.bbox
                x, y = min(x, x + width), min(y, y + height)
                instance.bbox = (x, y, abs(width), abs(height))
            if _integer(element.findtext('difficult')):
                notes.add(_DIFFICULT[difficult], where)
                if difficult == 'drop':
                    continue
                instance.iscrowd = difficult == 'ignore'
            objects.append((sample, where, instance))
        samples[sample.image] = sample
    from_zero = next((o for o in objects if _is_edge(o[2])), None)
    if from_zero:
        notes.add('boxes counted from 0 (kept so)', from_zero[1])
    for sample, where, instance in objects:
        if not from_zero:
            _count_from_zero(instance)
        add_instance(sample, notes, where, instance)
    found = list(samples.values())
    classes = sorted({i.label for s in found for i in s.instances})
    source.note_unused(found, notes)
    return Annotated('Pascal VOC', classes, found, notes)


def _find_image(
    source: Source, file: Path, root: Element
) -> tuple[str, Path | None]:
    """The image of a file, and its name with the folders in Annotations/."""
    below = Path(re.split(r'(?i)/annotations/', f'/{source.name(file)}')[-1])
    folder = '' if below.is_absolute() else below.parent
    # The name inside is often that from before a renaming.
    for name in (file.stem, root.findtext('filename')):
        image = name and source.find_image(f'{folder}/{name}', file)
        if image:
            return f'{folder}/{image.name}', image
    return '', None


def _integer(text: str | None) -> int:
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def _instance(element: Element) -> Instance:
    label = (element.findtext('name') or '').strip()
    if not label:
        raise ValueError('no name')
    left, top, right, bottom = (
        float(element.findtext(f'bndbox/{side}') or 'nan')
        for side in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    box = (left, top, right - left, bottom - top)
    outline = element.find('polygon')
    if outline is None:
        return Instance(label, box)
    # Roboflow's: <x1>, <y1>, <x2>, ...
    points = [
        (
            float(outline.findtext(f'x{i}') or 'nan'),
            float(outline.findtext(f'y{i}') or 'nan'),
        )
        for i in range(1, len(outline) // 2 + 1)
    ]
    return Instance(label, box, polygon(label, points).segmentation)


def _is_edge(instance: Instance) -> bool:
    """Whether a box starts where no pixel counted from 1 can."""
    return any(0 <= start < 1 for start in instance.bbox[:2])


def _count_from_zero(instance: Instance) -> None:
    """From pixels counted from 1, the last one included, to edges."""
    x, y, width, height = instance.bbox
    instance.bbox = (x - 1, y - 1, width + 1, height + 1)
    assert isinstance(instance.segmentation, list)
    # These are points, not pixels.
    instance.segmentation = [
        [value - 1 for value in part] for part in instance.segmentation
    ]
