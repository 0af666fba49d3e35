"""COCO annotation files as people's tools export them, made right.

What can be right is made right: ids that are text, repeated or start at zero,
names with backslashes or folders in front, a missing ``area`` or ``iscrowd``.
What cannot be is left out and counted, or is an error. Nothing is silent:
each change is a :class:`~mmmamba.datasets.findings.Finding`.
"""

import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .findings import DatasetError, Finding, listing
from .images import Folder, ImageSize, may_be_one, read_sizes

# Nothing that is annotated is smaller; the toolboxes leave it out.
_LEAST_SIDE = 1.0
# Pixels by which a box may be past the border: exporters round.
_MARGIN = 1.5
# A point at more pixels than this is no point of an image; to draw a polygon
# with it would take all memory.
_FAR = 100_000

# What the message of each kind says, by how bad that is. {n} is the number of
# places, {where} lists the first, {images} is how many the file has.
_TEXTS = {
    'error': {
        'category_id': (
            'the categories of {file} share an id, or have none: {where}. '
            'Give each its own'
        ),
        'missing_image': (
            '{n} of the {images} images of {file} are missing or empty: '
            '{where}'
        ),
        'image_id': (
            '{n} images of {file} have no id, or the one of another image: '
            '{where}. Give each its own'
        ),
        'image_name': (
            '{n} images of {file} would be loaded from the file of another '
            'one, in a folder of another name: {where}. Set data_prefix so '
            'that the images lie in the folders that are listed, or take '
            'those that are not there out of the file'
        ),
        'broken_image': (
            '{n} of the {images} images of {file} are missing or empty, or '
            'cannot be read: {where}. Replace them, or take them out of the '
            'file'
        ),
        'negative_box': (
            '{n} boxes of {file} have a negative width or height: {where}. '
            'Write bbox as [x, y, width, height]'
        ),
        'image_size': '{n} images of {file} have no width or height: {where}',
        'image_size_other': (
            '{n} images of {file} are annotated at another size than they '
            'have, so that boxes would be in the wrong place: {where}. Use '
            'the images that were annotated, or correct width and height'
        ),
        'normalised_boxes': (
            'the boxes of {file} are fractions of the image, from 0 to 1; '
            'COCO has pixels. tools/dataset_tools/prepare.py --boxes '
            'normalized converts them'
        ),
        'corner_boxes': (
            'the boxes of {file} seem to be [x1, y1, x2, y2]; COCO has [x, y, '
            'width, height]. tools/dataset_tools/prepare.py --boxes xyxy '
            'converts them'
        ),
        'nothing_left': (
            'annotation file {file}: of its {annotations} annotations none is '
            'left to learn from'
        ),
        'all_ignored': (
            'every object of {file} is marked "ignore" or "iscrowd", so that '
            'nothing is learnt. Set both to 0'
        ),
    },
    'warning': {
        'image_twice': (
            '{n} images of {file} are listed twice: {where}; they are one, '
            'with the annotations of both'
        ),
        'unknown_image': (
            '{n} annotations of {file} are for images which the file does not '
            'list, and are lost: {where}'
        ),
        'unknown_category': (
            '{n} annotations of {file} are of categories which the file does '
            'not list, and are lost: {where}'
        ),
        'annotation_twice': (
            '{n} annotations of {file} repeat another one with the same '
            'image, class, box and outline, and are left out: {where}'
        ),
        'polygon': (
            '{n} objects of {file} have polygons of fewer than three points, '
            'which are left out: {where}'
        ),
        'segmentation': (
            '{n} objects of {file} have a segmentation that is neither '
            'polygons nor run lengths, and is left out: {where}'
        ),
        'no_box': (
            '{n} objects of {file} have no bbox [x, y, width, height] of '
            'finite numbers, and are lost: {where}'
        ),
        'image_size_wrong': (
            '{n} images of {file} have another width and height in the file '
            'than in the image, which serve: {where}'
        ),
        'tiny_box': (
            '{n} boxes of {file} are less than one pixel wide or high, and '
            'are lost: {where}'
        ),
        'outside_box': (
            '{n} boxes of {file} are outside of their images, and are lost: '
            '{where}'
        ),
        'mask_size': (
            '{n} masks of {file} are of another size than their images, and '
            'are left out: {where}'
        ),
    },
    'info': {
        'category_twice': (
            '{file} has categories of one name: {where}; they are one class'
        ),
        'file_name': (
            '{n} file names of {file} are spelt another way than those of the '
            'files, which were found: {where}'
        ),
        'image_id_text': (
            'the image ids of {file} are not numbers ({where}); they are '
            'numbered from 1'
        ),
        'ignored': (
            '{n} objects of {file} are marked "ignore" or "iscrowd": they '
            'count neither as found nor as missed. Detectors with '
            'ignore_iof_thr above 0 leave them out of training, others learn '
            'them as background'
        ),
        'annotation_id': (
            'annotation ids of {file} are missing, repeated or start at 0, '
            'which the evaluation takes for "not found"; they are numbered '
            'from 1'
        ),
        'far_point': (
            '{n} polygons of {file} have points far outside of any image, '
            'which are moved nearer: {where}'
        ),
        'box_of_polygon': (
            '{n} objects of {file} have no box that can be read; the one '
            'around their polygon serves: {where}'
        ),
        'area': (
            '{n} objects of {file} have no area, or 0; it is computed: {where}'
        ),
        'exif': (
            '{n} photos of {file} are turned by EXIF, and their annotations '
            'are of the stored pixels, as which they are loaded: {where}'
        ),
        'image_size_missing': (
            '{n} images of {file} have no width or height: {where}; those of '
            'the images serve'
        ),
        'no_polygon': (
            '{n} objects of {file} have no polygon, and others have; their '
            'box is their mask: {where}'
        ),
    },
}


def read_coco(file: str | Path) -> dict:
    """Read a COCO-format annotation file.

    Args:
        file (str | Path): The file.

    Returns:
        dict: Its content, with the lists ``images``, ``categories`` and
        ``annotations``; the last is empty where the file has none.

    Raises:
        DatasetError: If it is not JSON, not in COCO format or lists no
            images.
    """
    if os.path.isdir(file):
        raise DatasetError(
            f'annotation file {file} is a folder; name the JSON file in it'
        )
    try:
        # Some editors and .NET exporters begin with a byte-order mark.
        with open(file, encoding='utf-8-sig') as f:
            content = json.load(f)
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        size = os.path.getsize(file)
        raise DatasetError(
            f'annotation file {file} ({size} bytes) is not valid JSON: {error}'
        ) from None
    if not isinstance(content, dict):
        content = {}
    content.setdefault('annotations', [])  # as in files of test images
    wrong = [
        name
        for name in ('images', 'categories', 'annotations')
        if not isinstance(content.get(name), list)
        or not all(isinstance(entry, dict) for entry in content[name])
    ]
    if wrong:
        raise DatasetError(
            f'annotation file {file} is not in COCO format: it has no list '
            f'of {" and ".join(wrong)}, each a dict. '
            'tools/dataset_tools/prepare.py reads other formats'
        )
    for category in content['categories']:
        if not {'id', 'name'} <= set(category):
            raise DatasetError(
                f'annotation file {file}: a category has no id or no name: '
                f'{category}'
            )
    if not content['images']:
        raise DatasetError(f'annotation file {file} lists no images')
    for image in content['images']:
        lacking = {'id', 'file_name'} - set(image)
        if lacking:
            raise DatasetError(
                f'annotation file {file}: an image has no '
                f'{listing(sorted(lacking))}: {image}'
            )
    return content


class RightedCoco(NamedTuple):
    """An annotation file, made right.

    Attributes:
        content (dict): In COCO format. An image whose annotations are those
            of the stored pixels, although EXIF turns it, has ``turned``. An
            image or category that has another id now keeps that of the file
            as ``given_id``.
        findings (list[Finding]): What was made right, was left out, or is an
            error.
    """

    content: dict
    findings: list[Finding]


def right_coco(
    content: Mapping[str, Any],
    file: str,
    folder: str | None = None,
    sizes: Mapping[int, tuple[int, int]] | None = None,
) -> RightedCoco:
    """Make the content of a COCO-format annotation file right.

    Args:
        content (Mapping): What :func:`read_coco` returned; stays as it is.
        file (str): The annotation file, for the messages.
        folder (str, optional): Folder of the images, to look at their names
            and sizes. Defaults to None: they are taken as the file has them.
        sizes (Mapping[int, tuple[int, int]], optional): Width and height by
            id, of images that were loaded. Defaults to None.

    Returns:
        RightedCoco: The content, and what was found.
    """
    notes = _Notes(file, content)
    categories, category_of = _right_categories(content['categories'], notes)
    images, image_of = _right_images(content['images'], folder, notes)
    if folder is not None and sizes is None:
        _find_sizes(images, folder, notes)
    annotations = _right_annotations(
        content['annotations'], image_of, category_of, notes
    )
    _right_frames(images, annotations, sizes or {}, notes)
    annotations = _inside(images, annotations, notes)
    _look_at_boxes(images, annotations, content['annotations'], notes)
    for image in images:
        image.pop('_size', None)
    righted = dict(
        content, images=images, categories=categories, annotations=annotations
    )
    return RightedCoco(righted, notes.findings())


class _Notes:
    """Collects what is found, by kind, with its places."""

    def __init__(self, file: str, content: Mapping[str, Any]) -> None:
        self.file = file
        self._totals = {n: len(content[n]) for n in ('images', 'annotations')}
        self._places: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, place: object = '') -> None:
        """Note one more place of a kind of :data:`_TEXTS`."""
        self._places[kind].append(str(place))

    def findings(self) -> list[Finding]:
        found = []
        for severity, texts in _TEXTS.items():
            for kind in filter(self._places.get, texts):
                places = self._places[kind]
                where = listing(dict.fromkeys(places))
                values = dict(self._totals, file=self.file, where=where)
                text = texts[kind].format(n=len(places), **values)
                count = len(places)
                found.append(Finding(severity, kind, text, self.file, count))
        return found

    def count(self, kind: str) -> int:
        return len(self._places.get(kind, ()))


def as_id(value: object) -> object:
    """An id that compares equal whether it is text or a number.

    Text such as 1_2, which int() takes for 12, stays text.
    """
    if isinstance(value, str):
        try:
            return value if '_' in value else int(value)
        except ValueError:
            return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return None if value is None else str(value)


def as_number(value: object) -> float | None:
    """A finite number, or text that is one; else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and '_' in value:
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def renumbered(entry: Mapping[str, Any], new_id: object) -> dict:
    """Give an image or a category another id; it keeps that of its file.

    Args:
        entry (Mapping): The image or category.
        new_id (object): Its id from now on.

    Returns:
        dict: A copy, with ``given_id`` if the file has another id.
    """
    given = entry.get('given_id', entry['id'])
    new = dict(entry, id=new_id)
    return new if given == new_id else dict(new, given_id=given)


def _right_categories(
    categories: list[dict], notes: _Notes
) -> tuple[list[dict], dict[object, int]]:
    """Give each name one category; return the id that each id becomes."""
    righted: dict[str, dict] = {}
    category_of: dict[object, int] = {}
    name_of: dict[object, str] = {}
    numbers = {as_id(c['id']) for c in categories}
    keep = all(isinstance(n, int) for n in numbers)
    for category in categories:
        key, name = as_id(category['id']), str(category['name'])
        if key is None or name_of.get(key, name) != name:
            notes.add('category_id', f'{category["id"]} ({name})')
            continue
        name_of[key] = name
        if name in righted and righted[name]['_key'] != key:
            notes.add('category_twice', f'{name!r}')
        elif name not in righted:
            new = key if keep else len(righted) + 1
            category = dict(category, name=name, _key=key)
            righted[name] = renumbered(category, new)
        category_of[key] = righted[name]['id']
    for category in righted.values():
        del category['_key']
    return list(righted.values()), category_of


def _right_images(
    images: list[dict], folder: str | None, notes: _Notes
) -> tuple[list[dict], dict[object, dict]]:
    """Find each image's file, and return the image that each id means."""
    files = None if folder is None else Folder(folder)
    righted: dict[str, dict] = {}
    listed: dict[str, str] = {}  # the longest name of each
    image_of: dict[object, dict] = {}
    keys = [as_id(image['id']) for image in images]
    keep = all(isinstance(k, int) for k in keys)
    for number, (key, image) in enumerate(zip(keys, images), 1):
        name = str(image['file_name']).replace('\\', '/')
        if files is not None:
            found = files.find(name)
            if found is None:
                notes.add('missing_image', Path(files.path, name))
            else:
                name = found
        if name != image['file_name'] and not (
            files and os.path.isfile(files.path / str(image['file_name']))
        ):
            notes.add('file_name', image['file_name'])
        if (
            key is None
            or image_of.get(key, {'file_name': name})['file_name'] != name
        ):
            notes.add('image_id', name)
            continue
        given, other = str(image['file_name']), listed.get(name, '')
        listed[name] = max(given, other, key=len)
        if not may_be_one(given, other):
            notes.add('image_name', f'{other} and {given}')
        elif name in righted:
            notes.add('image_twice', name)
        if name in righted:
            image_of[key] = righted[name]
            continue
        new = key if keep else number
        righted[name] = renumbered(dict(image, file_name=name), new)
        image_of[key] = righted[name]
    if not keep:
        notes.add(
            'image_id_text', next(k for k in keys if not isinstance(k, int))
        )
    return list(righted.values()), image_of


def _find_sizes(images: list[dict], folder: str, notes: _Notes) -> None:
    """Read the size of each image, unless there are images missing."""
    if notes.count('missing_image'):
        return
    paths = [os.path.join(folder, image['file_name']) for image in images]
    sizes = read_sizes(paths)
    for image, path in zip(images, paths):
        size = sizes[path]
        if isinstance(size, ImageSize):
            image['_size'] = size
            continue
        notes.add(
            'broken_image',
            f'{path} ({size})',
        )


def _right_annotations(
    annotations: list[dict],
    image_of: Mapping[object, dict],
    category_of: Mapping[object, int],
    notes: _Notes,
) -> list[dict]:
    """Annotations whose fields have the types and values they must have."""
    righted = []
    outlines: dict[tuple, list] = defaultdict(list)
    for annotation in annotations:
        place = f'annotation {annotation.get("id")}'
        image = image_of.get(as_id(annotation.get('image_id')))
        if image is None:
            notes.add(
                'unknown_image',
                f'{place} is for image {annotation.get("image_id")}',
            )
            continue
        category = category_of.get(as_id(annotation.get('category_id')))
        if category is None:
            notes.add(
                'unknown_category',
                f'{place} is of category {annotation.get("category_id")}',
            )
            continue
        segmentation = _right_segmentation(annotation, place, notes)
        box = _right_box(annotation, segmentation, place, notes)
        if box is None:
            continue
        new = dict(
            annotation,
            image_id=image['id'],
            category_id=category,
            bbox=box,
            area=_right_area(annotation, segmentation, box, place, notes),
            iscrowd=int(
                _flag(annotation, 'iscrowd') or _flag(annotation, 'ignore')
            ),
        )
        if 'ignore' in annotation:
            new['ignore'] = int(_flag(annotation, 'ignore'))
        new.pop('segmentation', None)
        if segmentation:
            new['segmentation'] = segmentation
        same = outlines[(image['id'], category, *box, new['iscrowd'])]
        if segmentation in same:
            notes.add('annotation_twice', place)
            continue
        same.append(segmentation)
        if new['iscrowd']:
            notes.add('ignored', place)
        righted.append(new)
    ids = [as_id(a.get('id')) for a in righted]
    valid = all(isinstance(i, int) and i > 0 for i in ids)
    if not valid or len(set(ids)) < len(ids):
        notes.add('annotation_id')
        ids = list(range(1, len(ids) + 1))
    for annotation, new_id in zip(righted, ids):
        annotation['id'] = new_id
    return righted


def _flag(annotation: Mapping, name: str) -> bool:
    """A flag that may be missing, null or text."""
    return str(annotation.get(name)).lower() in ('1', '1.0', 'true')


def _right_segmentation(
    annotation: Mapping, place: str, notes: _Notes
) -> list | dict | None:
    """Polygons of at least three points, or run lengths; None for neither."""
    given = annotation.get('segmentation')
    if not given:
        return None
    if isinstance(given, dict):
        size, counts = given.get('size'), given.get('counts')
        if (
            isinstance(size, list)
            and len(size) == 2
            and all(isinstance(n, int) and n > 0 for n in size)
            and isinstance(counts, (list, str))
            and _area_of_runs(given) is not None
        ):
            return given
    elif isinstance(given, list):
        if not any(isinstance(part, (list, dict)) for part in given):
            given = [given]  # one polygon without the list of polygons
        polygons = []
        for part in given:
            part = part if isinstance(part, list) else []
            points = [n for n in map(as_number, part) if n is not None]
            if 6 <= len(points) == len(part) and len(points) % 2 == 0:
                near = [max(-_FAR, min(n, _FAR)) for n in points]
                if near != points:
                    notes.add('far_point', place)
                polygons.append(near)
        if polygons:
            if len(polygons) < len(given):
                notes.add('polygon', place)
            return polygons
    notes.add('segmentation', place)
    return None


def _area_of_runs(runs: Mapping) -> float | None:
    """The area of run lengths; None if they are damaged."""
    height, width = runs['size']
    counts = runs['counts']
    if isinstance(counts, str):
        counts = _uncompress(counts)
    whole = all(isinstance(n, int) and n >= 0 for n in counts)
    if not whole or sum(counts) != height * width:
        return None
    return float(sum(counts[1::2]))


def _uncompress(text: str) -> list[int]:
    """Read COCO's compressed run lengths, which pycocotools does not check.

    A number has five bits in each character, the lowest first, and 32 in all
    but the last; from the fourth on it is the difference to that before the
    previous one.
    """
    if not re.fullmatch('[0-o]*[0-O]', text):
        return [-1]
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes < 32) + 1
    lengths = np.diff(ends, prepend=0)
    if lengths.max() > 7:  # more than the 32 bits of a count
        return [-1]
    places = np.arange(len(codes)) - np.repeat(ends - lengths, lengths)
    numbers = np.add.reduceat((codes & 31) << (5 * places), ends - lengths)
    negative = codes[ends - 1] & 16 > 0
    numbers[negative] -= 1 << (5 * lengths[negative])
    for first in (1, 2):
        numbers[first::2] = numbers[first::2].cumsum()
    return numbers.tolist()


def _right_box(
    annotation: Mapping,
    segmentation: list | dict | None,
    place: str,
    notes: _Notes,
) -> list[float] | None:
    """``[x, y, width, height]``, or None if there is none to use."""
    given = annotation.get('bbox')
    box = None
    if isinstance(given, (list, tuple)) and len(given) == 4:
        numbers = [n for n in map(as_number, given) if n is not None]
        box = numbers if len(numbers) == 4 else None
    if box is None and segmentation:
        notes.add('box_of_polygon', place)
        box = _box_around(segmentation)
    if box is None:
        notes.add('no_box', f'{place} has {given}')
        return None
    if box[2] < 0 or box[3] < 0:
        notes.add('negative_box', f'{place} has {given}')
        return None
    return box


def _box_around(segmentation: list | dict) -> list[float]:
    if isinstance(segmentation, dict):
        from pycocotools import mask

        runs = segmentation
        if isinstance(runs['counts'], list):
            runs = mask.frPyObjects(runs, *runs['size'])
        return [float(n) for n in mask.toBbox(runs)]
    xs = [x for polygon in segmentation for x in polygon[::2]]
    ys = [y for polygon in segmentation for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _right_area(
    annotation: Mapping,
    segmentation: list | dict | None,
    box: list[float],
    place: str,
    notes: _Notes,
) -> float:
    """The area that is given, or that of the segmentation or the box."""
    area = as_number(annotation.get('area'))
    if area is not None and area > 0:
        return area
    notes.add('area', place)
    inside = None
    if isinstance(segmentation, dict):
        inside = _area_of_runs(segmentation)
    elif segmentation:
        inside = sum(map(polygon_area, segmentation))
    return inside or box[2] * box[3]


def polygon_area(points: Sequence[float] | np.ndarray) -> float:
    """The area of a polygon by the shoelace formula.

    Args:
        points (Sequence[float] | np.ndarray): x and y of each corner in turn.

    Returns:
        float: In pixels.
    """
    x, y = np.reshape(points, (-1, 2)).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _right_frames(
    images: list[dict],
    annotations: list[dict],
    sizes: Mapping[int, tuple[int, int]],
    notes: _Notes,
) -> None:
    """Give each image the size of the pixels that were annotated."""
    reach: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        far = reach[annotation['image_id']]
        far[:] = [max(far[0], x + width), max(far[1], y + height)]
    for image in images:
        width, height = (as_number(image.get(n)) for n in ('width', 'height'))
        given = width or 0.0, height or 0.0
        size: ImageSize | None = image.get('_size')
        frame: tuple[float, float]
        if image['id'] in sizes:
            frame = sizes[image['id']]
        elif size is None:
            frame = given
            if min(given) <= 0:
                notes.add('image_size', image['file_name'])
        elif given == (size.width, size.height):
            frame = given
        elif given == size.stored and size.turned:
            frame, image['turned'] = given, True
            notes.add('exif', image['file_name'])
        else:
            frame = _true_frame(image, given, size, reach[image['id']], notes)
        image['width'], image['height'] = (int(n) for n in frame)


def _true_frame(
    image: Mapping,
    given: tuple[float, float],
    size: ImageSize,
    reach: list[float],
    notes: _Notes,
) -> tuple[float, float]:
    """The frame of an image whose size is given wrong."""
    true = (size.width, size.height)
    inside = _within(reach, true)
    swapped = given == true[::-1]
    if min(given) <= 0:
        notes.add('image_size_missing', image['file_name'])
        return true
    if inside and (swapped or not _within(reach, given)):
        notes.add(
            'image_size_wrong',
            f'{image["file_name"]} is {true[0]}x{true[1]}, not '
            f'{given[0]:.0f}x{given[1]:.0f}',
        )
        return true
    notes.add(
        'image_size_other',
        f'{image["file_name"]} is {true[0]}x{true[1]}, annotated at '
        f'{given[0]:.0f}x{given[1]:.0f}',
    )
    return true


def _within(reach: list[float], frame: tuple[float, float]) -> bool:
    return all(far <= side + _MARGIN for far, side in zip(reach, frame))


def _inside(
    images: list[dict], annotations: list[dict], notes: _Notes
) -> list[dict]:
    """Leave out, and count, the boxes of which the image shows nothing."""
    frames = {i['id']: (i['width'], i['height']) for i in images}
    kept = []
    for annotation in annotations:
        x, y, width, height = annotation['bbox']
        frame = frames[annotation['image_id']]
        place = f'annotation {annotation["id"]}'
        if min(width, height) < _LEAST_SIDE:
            notes.add('tiny_box', place)
            continue
        if (
            min(x + width, frame[0]) <= max(x, 0)
            or min(y + height, frame[1]) <= max(y, 0)
        ) and min(frame) > 0:
            notes.add('outside_box', place)
            continue
        segmentation = annotation.get('segmentation')
        if isinstance(segmentation, dict) and segmentation['size'] != [
            *frame[::-1]
        ]:
            notes.add('mask_size', place)
            del annotation['segmentation']
        kept.append(annotation)
    bare = [a for a in kept if 'segmentation' not in a]
    if len(bare) < len(kept):
        for annotation in bare:
            x, y, width, height = annotation['bbox']
            right, bottom = x + width, y + height
            corners = [x, y, right, y, right, bottom, x, bottom]
            annotation['segmentation'] = [corners]
            notes.add('no_polygon', f'annotation {annotation["id"]}')
    return kept


def _look_at_boxes(
    images: list[dict],
    annotations: list[dict],
    given: list[dict],
    notes: _Notes,
) -> None:
    """Find what is wrong with all boxes at once."""
    if not given:
        return
    boxes = [
        [float(n) for n in a['bbox']]
        for a in given
        if isinstance(a.get('bbox'), list)
        and len(a['bbox']) == 4
        and None not in [as_number(n) for n in a['bbox']]
    ]
    if boxes and max(max(b) for b in boxes) <= 1.0:
        notes.add('normalised_boxes')
    elif _are_corners(images, annotations):
        notes.add('corner_boxes')
    elif not annotations and not notes.count('negative_box'):
        notes.add('nothing_left')
    elif annotations and all(a['iscrowd'] for a in annotations):
        notes.add('all_ignored')


def _are_corners(images: list[dict], annotations: list[dict]) -> bool:
    """Whether boxes make sense as corners only.

    All end right of and below where they begin, inside of the image, and as
    width and height a tenth of them would be past the border.
    """
    frames = {i['id']: (i['width'], i['height']) for i in images}
    past = by_area = 0
    for annotation in annotations:
        x, y, right, bottom = annotation['bbox']
        width, height = frames[annotation['image_id']]
        if not (
            x < right <= width + _MARGIN and y < bottom <= height + _MARGIN
        ):
            return False
        past += x + right > width + _MARGIN or y + bottom > height + _MARGIN
        corners = (right - x) * (bottom - y)
        by_area += (
            'segmentation' not in annotation
            and abs(annotation['area'] - corners) <= 0.02 * corners + 1
            and abs(annotation['area'] - right * bottom)
            > 0.02 * right * bottom + 1
        )
    return bool(annotations) and (
        past >= 0.1 * len(annotations) or by_area >= 0.9 * len(annotations)
    )
