"""COCO's JSON: one file or a file a split, also Roboflow's and CVAT's."""

from collections.abc import Iterator
from pathlib import Path

from ..coco import as_id, as_number, right_coco
from ..findings import raise_errors
from .sample import Annotated, Instance, Notes, Sample, add_instance, as_text
from .source import Source

_LISTS = ('images', 'annotations', 'categories')
# Every file that is written has them anew.
_NO_NEWS = ('area', 'annotation_id', 'image_id_text')


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    return any(_files(source))


def read(source: Source, boxes: str = 'xywh') -> Annotated:
    """Read a data set; the files are made right as for training.

    Args:
        source (Source): Its files.
        boxes (str): What their boxes are: ``'xywh'`` as in COCO, ``'xyxy'``
            for corners, ``'normalized'`` for fractions of the image.

    Returns:
        Annotated: Classes in the order of the files.

    Raises:
        DatasetError: If boxes cannot be those of COCO, or ids are shared.
    """
    notes = Notes()
    samples: dict[Path, Sample] = {}
    classes: list[str] = []
    files = list(_files(source))
    # COCO itself has files of key points beside those of instances.
    instances = [f for f in files if 'instances' in f.stem]
    contents = {}
    for file in files:
        if instances and file not in instances:
            notes.add('annotation file not used', source.name(file))
        else:
            contents[file] = _readable(source, file, notes)
    paths = _find_images(source, contents)
    for file, content in contents.items():
        entries = content['images']
        found = _with_image(source, file, entries, paths, samples, notes)
        if not found:
            continue
        content = dict(content, images=found)
        if boxes != 'xywh':
            _convert(source, content, boxes, samples)
        content, findings = right_coco(
            content, source.name(file), str(source.root)
        )
        raise_errors(findings)
        for finding in findings:
            if finding.kind not in _NO_NEWS:
                for _ in range(finding.count):
                    notes.add(finding.kind.replace('_', ' '), finding.message)

        names = {c['id']: c['name'] for c in content['categories']}
        classes += [n for n in names.values() if n not in classes]
        by_id = {}
        for image in content['images']:
            sample = samples[source.root / image['file_name']]
            sample.width, sample.height = image['width'], image['height']
            sample.stored = image.get('turned', False)
            by_id[image['id']] = sample
        for annotation in content['annotations']:
            add_instance(
                by_id[annotation['image_id']],
                notes,
                f'{source.name(file)}: annotation {annotation["id"]}',
                Instance(
                    names[annotation['category_id']],
                    tuple(annotation['bbox']),
                    _compressed(annotation.get('segmentation') or []),
                    bool(annotation['iscrowd']),
                ),
            )
    all_samples = list(samples.values())
    source.note_unused(all_samples, notes)
    return Annotated('COCO', classes, all_samples, notes)


def _files(source: Source) -> Iterator[Path]:
    for file in source.with_suffix('.json'):
        content = source.read_json(file)
        if isinstance(content, dict) and all(
            isinstance(content.get(name), list) for name in _LISTS
        ):
            yield file


def _readable(source: Source, file: Path, notes: Notes) -> dict:
    """The content, without entries that are none or lack a name."""
    content = source.read_json(file)
    assert isinstance(content, dict)
    content = dict(content)
    for kind, needed in (
        ('images', {'id', 'file_name'}),
        ('categories', {'id', 'name'}),
        ('annotations', set()),
    ):
        entries, content[kind] = content[kind], []
        for number, entry in enumerate(entries, 1):
            if isinstance(entry, dict) and 'coco_url' in entry:  # LVIS
                entry = {'file_name': entry['coco_url'], **entry}
            if isinstance(entry, dict) and needed <= set(entry):
                content[kind].append(entry)
            else:
                notes.add(
                    f'entry of {kind} that cannot be read',
                    f'{source.name(file)}: entry {number}',
                )
    content['categories'] = [
        dict(c, name=str(c['name']).strip()) for c in content['categories']
    ]
    used = {str(a.get('category_id')) for a in content['annotations']}
    groups = {str(c.get('supercategory')) for c in content['categories']}
    # Roboflow adds the group of all classes as category 0.
    content['categories'] = [
        c
        for c in content['categories']
        if c['id'] != 0 or '0' in used or c['name'] not in groups
    ]
    return content


def _find_images(
    source: Source, contents: dict[Path, dict]
) -> dict[tuple[Path, str], Path | None]:
    """The image of each name in each file."""
    found = {
        (file, name): source.find_image(name, file, source.split_of_file(file))
        for file, content in contents.items()
        for name in (str(entry['file_name']) for entry in content['images'])
    }
    settled = source.settle((name, found[file, name]) for file, name in found)
    return dict(zip(found, settled))


def _with_image(
    source: Source,
    file: Path,
    entries: list[dict],
    paths: dict[tuple[Path, str], Path | None],
    samples: dict[Path, Sample],
    notes: Notes,
) -> list[dict]:
    """The entries of images that are there, named by their path."""
    split = source.split_of_file(file)
    before = set(samples)
    found = []
    for entry in entries:
        name = str(entry['file_name'])
        path = paths[file, name]
        if path is None:
            notes.add('image not found', f'{source.name(file)}: {name}')
            continue
        if path in before:
            notes.add('image in two files', f'{source.name(file)}: {name}')
            continue
        sample = samples.get(path) or source.open(path, notes, split)
        if sample:
            samples[path] = sample
            found.append(dict(entry, file_name=source.name(path)))
    return found


def _convert(
    source: Source, content: dict, boxes: str, samples: dict[Path, Sample]
) -> None:
    """Make the boxes, and polygons that are fractions, those of COCO."""
    sizes = {}
    for image in content['images']:
        sample = samples[source.root / image['file_name']]
        sizes[as_id(image['id'])] = (
            as_number(image.get('width')) or sample.width,
            as_number(image.get('height')) or sample.height,
        )
    annotations = []
    for annotation in content['annotations']:
        annotation = dict(annotation)
        annotations.append(annotation)
        size = sizes.get(as_id(annotation.get('image_id')))
        box = _numbers(annotation.get('bbox'))
        if size is None or len(box) != 4:
            continue  # right_coco counts it
        if boxes == 'xyxy':
            x, y, right, bottom = box
            annotation['bbox'] = [x, y, right - x, bottom - y]
            continue
        annotation['bbox'] = _scaled(box, size)
        parts = annotation.get('segmentation')
        if isinstance(parts, list) and parts:
            polygons = [_numbers(part) for part in parts]
            if all(polygons) and max(map(max, polygons)) <= 2:
                annotation['segmentation'] = [
                    _scaled(points, size) for points in polygons
                ]
    content['annotations'] = annotations


def _numbers(values: object) -> list[float]:
    """The numbers of a list; none if one of them is none."""
    if not isinstance(values, list):
        return []
    numbers = [n for n in map(as_number, values) if n is not None]
    return numbers if len(numbers) == len(values) else []


def _scaled(values: list[float], size: tuple[float, float]) -> list[float]:
    """Times width and height in turn."""
    return [n * size[i % 2] for i, n in enumerate(values)]


def _compressed(segmentation: list | dict) -> list | dict:
    """Polygons as they are, run lengths as pycocotools wants them."""
    if isinstance(segmentation, list) or isinstance(
        segmentation['counts'], str
    ):
        return segmentation
    from pycocotools import mask

    return as_text(mask.frPyObjects(segmentation, *segmentation['size']))
