"""YOLO's text files: a line an object, in parts of the image's size."""

import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import yaml

from ..findings import DatasetError
from .sample import (
    Annotated,
    Instance,
    Notes,
    Sample,
    add_instance,
    polygon,
)
from .source import Source, agreed, differ, folders_shared, read_names

_NAME_FILES = ('classes.txt', 'obj.names', '_darknet.labels')
# The folders of Ultralytics' own results, such as runs/detect/exp/.
_RUN = re.compile(
    r'(?:^|/)runs/(?:detect|segment|pose|obb|classify|[^/]+/exp\d*)/'
)
_OF_RUN = 'file of a run of Ultralytics (in runs/)'
_LISTS = {'train': 'train', 'val': 'val', 'valid': 'val', 'test': 'test'}


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    labels = _label_files(source)
    lines = [
        line
        for path in list(labels.values())[:50]
        for line in _lines(path)[:3]
    ]
    return any(_numbers(line) for line in lines) or (
        bool(labels) and bool(_settings(source))
    )


def read(source: Source, names: list[str] | None = None) -> Annotated:
    """Read a data set.

    Args:
        source (Source): Its files.
        names (list[str], optional): Class names, where no file has them.

    Returns:
        Annotated: Classes in the order of their numbers.

    Raises:
        DatasetError: If there are no class names.
    """
    notes = Notes()
    files = _settings(source)
    classes = _names(source, files)
    if classes and names:
        raise DatasetError(
            f'--classes: {source.root} names its classes: {", ".join(classes)}'
        )
    classes = classes or names or []
    if not classes:
        raise DatasetError(
            f'{source.root} has YOLO labels, but no class names: there is no '
            'data.yaml with names, no classes.txt and no obj.names. Name them '
            'in the order of their numbers: --classes NAME NAME ...'
        )
    settings = next(iter(files.values()), {})
    key_points = _key_points(settings)
    splits = _splits(source, settings)
    labels = _label_files(source)
    # As in other formats, of two images of one name that in images/ counts.
    named = {i.stem for i in labels if source.in_image_folder(i)}
    samples = []
    for image in source.images:
        if _is_of_run(source, image):
            notes.add(_OF_RUN, source.name(image))
            continue
        outside = image.stem in named and not source.in_image_folder(image)
        if outside and image not in labels:
            notes.add('image named as one in images/', source.name(image))
            continue
        sample = source.open(image, notes, splits.get(image, ''))
        if sample is None:
            continue
        samples.append(sample)
        if image not in labels:
            continue  # as in YOLO: an image without objects
        name = source.name(labels[image])
        for number, line in enumerate(_lines(labels[image]), 1):
            if not line.strip():
                continue
            where = f'{name}: line {number}'
            values = _numbers(line)
            if values is None:
                notes.add('line that is no YOLO label', where)
                continue
            if len(values) == 5 + key_points:
                values = values[:5]
            _add(sample, values, classes, notes, where)
    used = set(labels.values())
    for file in source.with_suffix('.txt'):
        if file in used or not any(map(_numbers, _lines(file))):
            continue
        reason = 'label file without image'
        if _is_of_run(source, file):
            reason = _OF_RUN
        elif _are_predictions(file):
            reason = 'label file of predictions, with scores'
        notes.add(reason, source.name(file))
    return Annotated('YOLO', classes, samples, notes)


def _add(
    sample: Sample,
    values: list[float],
    classes: list[str],
    notes: Notes,
    where: str,
) -> None:
    """Add the object of a line: number of its class, then box or points."""
    index = int(values[0])
    if index != values[0] or not 0 <= index < len(classes):
        return notes.add('unknown class number', where)
    label = classes[index]
    size = np.array([sample.width, sample.height], float)
    if len(values) <= 6:  # a sixth is the score of a prediction
        if max(map(abs, values[1:5])) > 2:
            return notes.add('box that is not in parts of the image', where)
        center, extent = np.reshape(values[1:5], (2, 2)) * size
        x, y = (center - extent / 2).tolist()
        width, height = extent.tolist()
        instance = Instance(label, (x, y, width, height))
    else:
        # An odd number of coordinates: the last is a score, too.
        points = values[1 : 1 + (len(values) - 1) // 2 * 2]
        # A key point has 2 where it is visible.
        if max(map(abs, points)) > 1.5:
            return notes.add(
                'points that are not in parts of the image (if they are key '
                'points, data.yaml needs kpt_shape)',
                where,
            )
        instance = polygon(label, (np.reshape(points, (-1, 2)) * size))
    return add_instance(sample, notes, where, instance)


def _lines(path: Path) -> list[str]:
    return path.read_text('utf-8-sig', 'replace').splitlines()


def _numbers(line: str) -> list[float] | None:
    """The numbers of a label, or None if the line is none."""
    try:
        values = [float(value) for value in line.split()]
    except ValueError:
        return None
    finite = all(map(math.isfinite, values))
    return values if finite and len(values) >= 5 else None


def _label_files(source: Source) -> dict[Path, Path]:
    """The label file of each image that has one.

    It lies beside the image, or in labels/ where the image is in images/; if
    no image has one there, all lie elsewhere.
    """
    texts = {
        text
        for text in source.with_suffix('.txt')
        if text.name not in _NAME_FILES and not _is_of_run(source, text)
    }
    found = {}
    for image in source.images:
        beside = image.with_suffix('.txt')
        parts = list(image.relative_to(source.root).parts)
        for i in reversed(range(len(parts) - 1)):
            if parts[i].lower() == 'images':
                parts[i] = {'images': 'labels'}.get(parts[i], 'Labels')
                break
        mirrored = source.root.joinpath(*parts).with_suffix('.txt')
        if mirrored in texts:
            found[image] = mirrored
        elif beside in texts:
            found[image] = beside
    return found or _labels_elsewhere(source, texts)


def _labels_elsewhere(source: Source, texts: set[Path]) -> dict[Path, Path]:
    """The label files of a data set that has none where they should be.

    They go by their stem and folders; none is that of two images.
    """
    named: dict[Path, list[tuple[int, Path]]] = defaultdict(list)
    for text in texts:
        if _are_predictions(text):
            continue
        name = source.name(text.with_suffix(''))
        image = source.find_image(name, text)
        if image is None or image.stem != text.stem:
            continue
        if not differ(source.split_of(image), source.split_of(text)):
            named[image].append((folders_shared(image, name), text))
    found = {}
    for image, ranked in named.items():
        ranked.sort(reverse=True)
        if len(ranked) == 1 or ranked[0][0] > ranked[1][0]:
            found[image] = ranked[0][1]
    return found


def _is_of_run(source: Source, file: Path) -> bool:
    """Whether Ultralytics wrote a file: drawings, predictions, lists."""
    return bool(_RUN.search(source.name(file)))


def _are_predictions(text: Path) -> bool:
    """Whether each line of a file is a box with a score."""
    rows = [_numbers(line) for line in _lines(text) if line.strip()]
    return bool(rows) and all(row and len(row) == 6 for row in rows)


def _settings(source: Source) -> dict[Path, dict]:
    """The YAML files that name classes, and what they say, all as text."""
    found = {}
    for file in source.with_suffix('.yaml', '.yml'):
        try:
            # Its loader makes nothing but texts: else yes is a truth value.
            content = yaml.load(file.read_text('utf-8-sig'), yaml.BaseLoader)
        except (OSError, ValueError, RecursionError, yaml.YAMLError):
            continue
        if isinstance(content, dict) and 'names' in content:
            found[file] = content
    return found


def _key_points(settings: dict) -> int:
    """How many values of key points follow each box."""
    shape = settings.get('kpt_shape')
    if not isinstance(shape, list) or len(shape) != 2:
        return 0
    try:
        return math.prod(map(int, shape))
    except (TypeError, ValueError):
        return 0


def _names(source: Source, settings: dict[Path, dict]) -> list[str]:
    """The classes, which all files must name alike."""
    tables = {
        file: _yaml_names(file, content['names'])
        for file, content in settings.items()
    }
    tables |= {
        file: read_names(file)
        for file in source.files
        if file.name in _NAME_FILES or file.suffix == '.names'
    }
    return agreed({f: names for f, names in tables.items() if names}) or []


def _yaml_names(file: Path, names: object) -> list[str]:
    """A list, or a mapping of numbers, as names; else none."""
    if isinstance(names, dict):
        try:
            numbers = {int(key): name for key, name in names.items()}
        except (TypeError, ValueError):
            numbers = {}
        if sorted(numbers) != list(range(len(names))):
            raise DatasetError(
                f'{file}: the keys of names must be 0 to '
                f'{len(names) - 1}; they are {", ".join(map(str, names))}'
            )
        names = [numbers[i] for i in range(len(names))]
    if not isinstance(names, list):
        return []
    # A list within would become a text of any length.
    if not all(isinstance(name, str) for name in names):
        raise DatasetError(f'{file}: names must be a list of names')
    return [name.strip() for name in names]


def _splits(source: Source, settings: dict) -> dict[Path, str]:
    """The splits that data.yaml or lists of images name."""
    splits: dict[Path, str] = {}
    moved: dict[Path, str] = {}  # named by paths of another machine
    for key, split in _LISTS.items():
        entries = settings.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, str):
                images, whole = _entry(source, entry, split)
                known = splits if whole else moved
                known.update(dict.fromkeys(images, split))
    splits = {**moved, **splits}
    for file in source.with_suffix('.txt'):
        split = _LISTS.get(file.stem.removeprefix('autosplit_'), '')
        if split:
            splits.update(dict.fromkeys(_listed(source, file), split))
    return splits


def _entry(source: Source, entry: str, split: str) -> tuple[list[Path], bool]:
    """The images of a path in data.yaml, and whether all of it was found.

    Of a path of another machine the end is; it names none that are in the
    folder of another split.
    """
    parts = entry.replace('\\', '/').split('/')
    parts = [part for part in parts if part not in ('', '.', '..')]
    for start in range(len(parts)):
        images = _below(source, '/'.join(parts[start:]))
        if start:
            images = [
                image
                for image in images
                if not differ(source.split_of(image), split)
            ]
        if images:
            return images, not start
    return [], False


def _below(source: Source, tail: str) -> list[Path]:
    """The images of the folders, or of the lists, whose paths end so."""
    images = [i for i in source.images if f'/{tail}/' in f'/{source.name(i)}']
    for file in source.with_suffix('.txt'):
        if f'/{source.name(file)}'.endswith(f'/{tail}'):
            images += _listed(source, file)
    return images


def _listed(source: Source, file: Path) -> list[Path]:
    """The images that a text file lists, one a line."""
    found = (source.find_image(x.strip(), file) for x in _lines(file))
    return [image for image in found if image]
