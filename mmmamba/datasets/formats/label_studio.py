"""Label Studio's JSON: one list of tasks, sizes in percent of the image."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ..images import SUFFIXES
from .sample import (
    Annotated,
    Instance,
    Notes,
    Sample,
    add_instance,
    ellipse,
    polygon,
    turn,
)
from .source import Source

# What hostile or broken numbers and lists raise.
_UNREADABLE = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    OverflowError,
)
# "labels" is <Labels>, whose shape is repeated in a result of its own.
_KINDS = ('rectanglelabels', 'polygonlabels', 'ellipselabels', 'labels')
_SHAPES = ('rectangle', 'polygon', 'ellipse')


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    return any(_files(source))


def read(source: Source) -> Annotated:
    """Read a data set, an export as JSON or JSON-MIN.

    Args:
        source (Source): Its files.

    Returns:
        Annotated: Classes in the order of their names.
    """
    notes = Notes()
    samples: dict[Path, Sample] = {}
    annotated: list[tuple[str, list]] = []
    named: list[tuple[str, Path | None]] = []
    for file in _files(source):
        tasks = source.read_json(file)
        assert isinstance(tasks, list)
        for number, task in enumerate(tasks, 1):
            if not isinstance(task, dict):
                where = f'{source.name(file)}: task {number}'
                notes.add('task that cannot be read', where)
                continue
            where = f'{source.name(file)}: task {task.get("id")}'
            results = _results(task, notes, where)
            if results is None:
                continue
            annotated.append((where, results))
            named.append(_find_image(source, file, task))
    for (where, results), image in zip(annotated, source.settle(named)):
        sample = source.open_once(image, samples, where, notes)
        if sample is None:
            continue
        samples[sample.image] = sample
        for number, result in enumerate(results, 1):
            _add(sample, result, notes, f'{where}, result {number}')
    found = list(samples.values())
    classes = sorted({i.label for s in found for i in s.instances})
    source.note_unused(found, notes)
    return Annotated('Label Studio', classes, found, notes)


def _files(source: Source) -> Iterator[Path]:
    for file in source.with_suffix('.json'):
        tasks = source.read_json(file)
        if isinstance(tasks, list) and any(map(_is_task, tasks)):
            yield file


def _is_task(task: object) -> bool:
    """Whether it is one; CreateML's images have their annotations beside."""
    return isinstance(task, dict) and (
        'data' in task or ('image' in task and 'annotations' not in task)
    )


def _results(task: dict, notes: Notes, where: str) -> list | None:
    """What was drawn in a task, or None if it was not annotated."""
    if 'data' not in task:  # JSON-MIN has the results under their tag's name
        return [
            result
            for value in task.values()
            if isinstance(value, list)
            for result in value
        ]
    given = task.get('annotations') or task.get('completions')
    annotations = [
        a
        for a in (given if isinstance(given, list) else [])
        if isinstance(a, dict) and not a.get('was_cancelled')
    ]
    if not annotations:
        notes.add('task without annotation', where)
        return None
    for _ in annotations[1:]:
        notes.add('further annotation of a task (the first is used)', where)
    results = annotations[0].get('result') or []
    if not isinstance(results, list):
        return [results]  # counted as one that cannot be read
    labelled = [
        r.get('id')
        for r in results
        if isinstance(r, dict) and r.get('type') == 'labels'
    ]
    return [
        r
        for r in results
        if not isinstance(r, dict)
        or r.get('type') not in _SHAPES
        or r.get('id') not in labelled
    ]


def _find_image(
    source: Source, file: Path, task: dict
) -> tuple[str, Path | None]:
    """The name and image of a task: as it is or without the upload's."""
    data = task.get('data')
    for value in (data if isinstance(data, dict) else task).values():
        if not isinstance(value, str):
            continue
        try:
            address = urlsplit(value)
        except ValueError:
            continue
        # /data/local-files/?d=folder/a.jpg, /data/upload/1/0a1b2c3d-a.jpg
        named = parse_qs(address.query).get('d', [unquote(address.path)])[0]
        short = re.sub(
            r'(^|/)(?:upload/\d+/)?[0-9a-f]{8}-([^/]+)$', r'\1\2', named
        )
        if not short.lower().endswith(SUFFIXES):  # another field
            continue
        image = source.find_image(named, file) or source.find_image(
            short, file
        )
        if image:
            return short, image
    return '', None


def _add(sample: Sample, result: dict, notes: Notes, where: str) -> None:
    """Add the object of one result."""
    try:
        value = result.get('value', result)  # JSON-MIN has no value
        kind = next((k for k in _KINDS if value.get(k)), None)
        if kind is None:
            kind = result.get('type') or next(
                (k for k in value if k.endswith('labels')), 'unknown'
            )
            return notes.add(f'result of type {str(kind)[:20]}', where)
        instance = _instance(kind, value, sample)
        for label in value[kind][1:]:
            notes.add('further label of an object', f'{where}: {label}')
    except _UNREADABLE:
        return notes.add('result without readable shape', where)
    return add_instance(sample, notes, where, instance)


def _instance(kind: str, value: dict, sample: Sample) -> Instance:
    label = str(value[kind][0]).strip()
    scale = np.array([sample.width, sample.height]) / 100
    if 'points' in value:
        return polygon(label, (np.array(value['points'], float) * scale))
    x, y = (np.array([value['x'], value['y']], float) * scale).tolist()
    angle = float(value.get('rotation') or 0)
    if 'radiusX' in value:
        radii = np.array([value['radiusX'], value['radiusY']], float) * scale
        outline = ellipse(label, 0, 0, *radii.tolist()).segmentation
        points = np.reshape(np.asarray(outline), (-1, 2))
    else:
        width, height = (
            np.array([value['width'], value['height']], float) * scale
        ).tolist()
        if not angle:
            return Instance(label, (x, y, width, height))
        # Turned clockwise about its first corner.
        points = np.array([(0, 0), (width, 0), (width, height), (0, height)])
    return polygon(label, turn(points, angle, (0, 0)) + (x, y))
