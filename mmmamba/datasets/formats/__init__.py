"""Readers of the formats that people annotate in, one format a file."""

from ..findings import DatasetError
from ..images import decode_all
from . import coco, cvat, label_maps, label_studio, labelme, voc, yolo
from .others import describe_other
from .sample import Annotated, Instance, Notes, Sample, area
from .source import Source
from .split import split_samples
from .write import time_saved, write_dataset

_READERS = {
    'coco': coco,
    'cvat': cvat,
    'voc': voc,
    'yolo': yolo,
    'labelme': labelme,
    'label_studio': label_studio,
    'label_maps': label_maps,
}
#: Names for ``--format``.
FORMATS = tuple(_READERS)


def detect_format(source: Source) -> str:
    """Find out the format of a data set by its files.

    Args:
        source (Source): Its files.

    Returns:
        str: Of :data:`FORMATS`.

    Raises:
        DatasetError: If it is none or several of them.
    """
    found = [
        name
        for name, reader in _READERS.items()
        if name != 'label_maps' and reader.is_here(source)
    ]
    # Weaker evidence than the others': names of folders and files.
    if not found and label_maps.is_here(source):
        found = ['label_maps']
    if not found:
        broken = _broken_json(source)
        hint = f'{broken[0]} is broken' if broken else ''
        hint = hint or describe_other(source.files)
        hint = hint or label_maps.blurred(source)
        hint = hint or label_maps.unmatched(source)
        others = source.with_suffix('.xml', '.json', '.csv', '.txt')
        if not hint and others:
            hint = f'{source.name(others[0])} is in none'
        raise DatasetError(
            f'{source.root} has {len(source.images)} images, but no '
            f'annotations in a format that is known ({", ".join(FORMATS)}). '
            f'{hint + ". " if hint else ""}docs/prepare.md shows the layouts; '
            '--format names one and tells what it lacks'
        )
    if len(found) > 1:
        raise DatasetError(
            f'{source.root} has annotations in several formats '
            f'({", ".join(found)}): choose with --format, for example '
            f'--format {found[0]}'
        )
    return found[0]


def read_annotated(
    source: Source,
    format: str | None = None,
    classes: list[str] | None = None,
    ignored: tuple[int, ...] = (),
    difficult: str = 'keep',
    boxes: str = 'xywh',
) -> Annotated:
    """Read a data set in any of the formats.

    Args:
        source (Source): Its files.
        format (str, optional): Of :data:`FORMATS`; found out by default.
        classes (list[str], optional): Class names in the order of their
            numbers, for YOLO and label maps without them.
        ignored (tuple[int, ...]): Labels of label maps that are no class.
        difficult (str): What becomes of Pascal VOC's difficult objects, as
            in :func:`voc.read`.
        boxes (str): What the boxes of COCO's format are, as in
            :func:`coco.read`.

    Returns:
        Annotated: Its images, classes, and what was left out.

    Raises:
        DatasetError: If there is nothing usable.
    """
    format = format or detect_format(source)
    if classes and format not in ('yolo', 'label_maps'):
        raise DatasetError(
            f'--classes is for YOLO and label maps; {format} names its classes'
        )
    if ignored and format != 'label_maps':
        raise DatasetError('--ignore is for label maps alone')
    if difficult != 'keep' and format != 'voc':
        raise DatasetError('--difficult is for Pascal VOC alone')
    if boxes != 'xywh' and format != 'coco':
        raise DatasetError('--boxes is for the format coco alone')
    options = dict(
        label_maps=(classes, ignored),
        yolo=(classes,),
        voc=(difficult,),
        coco=(boxes,),
    )
    found = _READERS[format].read(source, *options.get(format, ()))
    if format in ('coco', 'label_studio'):
        for name in _broken_json(source):
            found.notes.add('broken annotation file', name)
    for sample in found.samples:
        if found.read_map is None:
            sample.labels = frozenset(i.label for i in sample.instances)
    _check_names(found, source)
    _leave_out_broken(source, found)
    if not any(sample.labels for sample in found.samples):
        reasons = '; '.join(
            f'{reason}: {names[0]}' for reason, names in found.notes.items()
        )
        raise DatasetError(
            f'{source.root} has no usable annotations in the format {format} '
            f'({reasons or "none was found"})'
        )
    return found


def _broken_json(source: Source) -> list[str]:
    """The names of the files that are no JSON, but should be."""
    files = source.with_suffix('.json')
    return [source.name(f) for f in files if source.read_json(f) is None]


def _leave_out_broken(source: Source, found: Annotated) -> None:
    """Decode every image: a truncated one would end a training."""
    decoded = decode_all(str(sample.image) for sample in found.samples)
    kept = []
    for sample in found.samples:
        reason = decoded[str(sample.image)]
        if isinstance(reason, str):
            name = source.name(sample.image)
            found.notes.add('broken image', f'{name}: {reason}')
        else:
            kept.append(sample)
    found.samples[:] = kept


def _check_names(found: Annotated, source: Source) -> None:
    """Refuse names that cannot serve; count those that may be one class."""
    classes = found.classes
    twice = [name for name in classes if classes.count(name) > 1]
    if twice or not all(name.strip() for name in classes):
        raise DatasetError(
            f'{source.root}: the class name '
            f'{twice[0] if twice else ""!r} is there twice or empty in '
            f'{classes}: rename it where the data set names its classes'
        )
    known: dict[str, str] = {}
    for name in classes:
        first = known.setdefault(name.casefold(), name)
        if first != name:
            found.notes.add(
                'class name that differs from another in case alone (kept)',
                f'{name}, {first}',
            )


__all__ = [
    'FORMATS',
    'Annotated',
    'Instance',
    'Notes',
    'Sample',
    'Source',
    'area',
    'detect_format',
    'read_annotated',
    'split_samples',
    'time_saved',
    'write_dataset',
]
