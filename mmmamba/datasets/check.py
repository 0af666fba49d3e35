"""Find out before training, not an hour into it, that the data is not right.

mmdet ignores annotations of categories it does not know and finds a missing
image when a worker first needs it. These checks read the annotation file
once, list each image folder once, and say what is wrong and what to do.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from PIL import Image

# Label maps that are looked into: reading all would take minutes.
_MAPS_READ = 10
_DOCS = 'docs/dataset_prepare.md'


class DatasetError(RuntimeError):
    """A data set that cannot serve; the message says why."""


def check_datasets(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check the data sets a run is about to use.

    COCO-format annotation files are checked for their content, other data
    sets for being there. Data behind a remote backend is not checked.

    Args:
        cfg (Config): The config of the run.
        splits (tuple[str, ...]): Of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        DatasetError: If a file is missing or not what the config expects.
    """
    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))):
        return  # one process of a launch is enough
    done = set()
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        for dataset in _leaves(loader.dataset):
            paths = _local_paths(dataset)
            key = json.dumps([paths, dataset.get('metainfo')], default=str)
            if key in done or not paths:
                continue
            done.add(key)
            for name, path in paths.items():
                if not Path(path).exists():
                    raise DatasetError(
                        f'{split}_dataloader: {name} {path} does not exist. '
                        f'{_DOCS} says how to get COCO, ADE20K and ImageNet '
                        'and where they go; the README section "Your own data '
                        'set" says how to point a config elsewhere'
                    )
            classes = _classes(dataset)
            if classes:
                _check_num_classes(cfg.model, classes)
            folder = _image_folder(dataset, paths)
            if folder:
                _check_class_folders(cfg.model, folder, classes)
            if 'ann_file' in paths and _is_coco(dataset):
                _check_coco(paths, classes, split)
            if 'data_prefix.seg_map_path' in paths and not dataset.get(
                'ann_file'
            ):
                _check_label_maps(dataset, paths, classes)
        _check_evaluator(cfg, split)


def _leaves(dataset: Mapping) -> Iterator[Mapping]:
    """The data sets inside wrappers such as ``RepeatDataset``."""
    if 'dataset' in dataset:
        yield from _leaves(dataset['dataset'])
    elif 'datasets' in dataset:
        for child in dataset['datasets']:
            yield from _leaves(child)
    else:
        yield dataset


def _local_paths(dataset: Mapping) -> dict[str, str]:
    """Annotation file and folders of a data set, as mmengine joins them."""
    if dataset.get('backend_args'):
        return {}
    root = dataset.get('data_root') or ''
    paths = {}
    if dataset.get('ann_file'):
        paths['ann_file'] = os.path.join(root, dataset['ann_file'])
    prefix = dataset.get('data_prefix') or {}
    prefix = prefix if isinstance(prefix, Mapping) else dict(img=prefix)
    for name, folder in prefix.items():
        if folder is not None:
            paths[f'data_prefix.{name}'] = os.path.join(root, folder)
    if not paths and root:
        paths['data_root'] = root
    return {n: p for n, p in paths.items() if '://' not in p}


def _dataset_class(dataset: Mapping) -> type[BaseDataset]:
    kind = dataset['type']
    if isinstance(kind, type):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:
        dataset_class = registry.get(kind)
    if dataset_class is None:
        raise DatasetError(f'unknown data set type {kind!r}')
    return dataset_class


def _is_coco(dataset: Mapping) -> bool:
    """Whether the annotation file is of COCO instances.

    Not so for the subclasses for panoptic segmentation and for LVIS.
    """
    ancestors = {c.__name__ for c in _dataset_class(dataset).__mro__}
    return 'CocoDataset' in ancestors and not ancestors & {
        'CocoPanopticDataset',
        'LVISV05Dataset',
    }


def _classes(dataset: Mapping) -> tuple[str, ...] | None:
    """Class names that a data set will use, or None if not known yet."""
    dataset_class = _dataset_class(dataset)
    metainfo = dict(dataset.get('metainfo') or {})
    if dataset.get('classes'):  # mmpretrain's way to give them
        metainfo['classes'] = dataset['classes']
    classes = dataset_class._load_metainfo(metainfo).get('classes')
    if isinstance(classes, str):
        raise DatasetError(
            f'metainfo.classes is the string {classes!r}; a tuple of one name '
            f"needs a comma: ('{classes}', )"
        )
    # Panoptic heads divide the classes among themselves.
    if not classes or 'Panoptic' in dataset_class.__name__:
        return None
    return tuple(classes)


def _image_folder(dataset: Mapping, paths: Mapping[str, str]) -> str | None:
    """The folder of an mmpretrain data set that has a folder a class."""
    ancestors = {c.__name__ for c in _dataset_class(dataset).__mro__}
    if 'CustomDataset' not in ancestors or dataset.get('ann_file'):
        return None
    if 'data_root' in paths and dataset.get('split'):  # ImageNet's
        return os.path.join(paths['data_root'], dataset['split'])
    return next(iter(paths.values()))


def _check_class_folders(
    model: Mapping, path: str, classes: tuple[str, ...] | None
) -> None:
    """Classes are numbered by their folders' sorted names (mmpretrain)."""
    if not os.path.isdir(path):
        raise DatasetError(f'the image folder {path} does not exist')
    folders = sorted(e.name for e in os.scandir(path) if e.is_dir())
    if not folders:
        raise DatasetError(
            f'{path} has no folders: one for each class is expected, with '
            'its images'
        )
    if classes is None:
        _check_num_classes(model, tuple(folders))
    elif len(classes) != len(folders):
        raise DatasetError(
            f'{path} has {len(folders)} folders ({_listing(folders)}), but '
            f'the config names {len(classes)} classes ({_listing(classes)})'
        )
    elif set(classes) == set(folders) and list(classes) != folders:
        raise DatasetError(
            f"the folders of {path} are numbered in their names' order, which "
            f'is not that of the classes in the config: set classes={folders}'
        )


def _check_num_classes(model: Mapping, classes: tuple[str, ...]) -> None:
    for where, number in _num_classes(model, 'model'):
        if number != len(classes):
            raise DatasetError(
                f'{where}.num_classes is {number}, but the data set has '
                f'{len(classes)} classes ({_listing(classes)}). Set '
                f'{where}.num_classes={len(classes)}, or the classes by '
                'metainfo=dict(classes=...) in every data set'
            )


def _num_classes(node, where: str) -> Iterator[tuple[str, int]]:
    """Every ``num_classes`` that must be the data set's.

    An RPN knows one class, an auxiliary semantic head those of another task.
    """
    if isinstance(node, Mapping):
        if isinstance(node.get('num_classes'), int):
            yield where, node['num_classes']
        for name, child in node.items():
            if name not in ('rpn_head', 'semantic_head'):
                yield from _num_classes(child, f'{where}.{name}')
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from _num_classes(child, f'{where}.{i}')


def _check_evaluator(cfg: Config, split: str) -> None:
    """An evaluator that reads another file than its loader scores nonsense."""
    evaluators = cfg.get(f'{split}_evaluator') or []
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    files = {
        os.path.realpath(path['ann_file'])
        for path in map(
            _local_paths, _leaves(cfg[f'{split}_dataloader'].dataset)
        )
        if 'ann_file' in path
    }
    for evaluator in evaluators:
        ann_file = evaluator.get('ann_file')
        if ann_file and files and os.path.realpath(ann_file) not in files:
            raise DatasetError(
                f'{split}_evaluator.ann_file is {ann_file}, but '
                f'{split}_dataloader reads {_listing(sorted(files))}; set '
                'both to the same file'
            )


def _check_coco(
    paths: Mapping[str, str], classes: tuple[str, ...] | None, split: str
) -> None:
    """Check a COCO-format file against the config and the image folder."""
    file = paths['ann_file']
    content = read_coco(file)
    names = [category['name'] for category in content['categories']]
    if classes is not None:
        unknown = [n for n in names if n not in classes]
        absent = [c for c in classes if c not in names]
        if unknown or absent:
            raise DatasetError(
                f'the categories of {file} are not the classes of the config:'
                + (
                    f' {_listing(unknown)} are in the file only;'
                    if unknown
                    else ''
                )
                + (
                    f' {_listing(absent)} are in the config only;'
                    if absent
                    else ''
                )
                + f' set metainfo=dict(classes={tuple(names)}) in the data '
                'set, and num_classes in the model'
            )
        if tuple(names) != classes:
            raise DatasetError(
                f'{file} lists its categories in another order than the '
                'config; mmdet numbers them as the file does, so names would '
                f'be mixed up. Set metainfo=dict(classes={tuple(names)})'
            )
    if split == 'train' and not content['annotations']:
        raise DatasetError(
            f'annotation file {file} has no annotations: there '
            'is nothing to train on'
        )
    check_annotations(file, content)
    for annotation in content['annotations']:
        if 'area' not in annotation:  # the evaluation needs it
            raise DatasetError(
                f'annotation {annotation.get("id")} of {file} has no area'
            )
    folder = paths.get('data_prefix.img', '')
    check_images(file, folder, [i['file_name'] for i in content['images']])


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
    try:
        with open(file, encoding='utf-8') as f:
            content = json.load(f)
    except (ValueError, UnicodeDecodeError) as error:
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
            f'of {" and ".join(wrong)}, each a dict'
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
        lacking = {'id', 'file_name', 'width', 'height'} - set(image)
        if lacking:
            raise DatasetError(
                f'annotation file {file}: an image has no '
                f'{_listing(sorted(lacking))}: {image}'
            )
    return content


def check_annotations(file: str | Path, content: dict) -> None:
    """Check that every annotation has a box, an image and a category.

    Args:
        file (str | Path): The annotation file, for the message.
        content (dict): What :func:`read_coco` returned.

    Raises:
        DatasetError: If one has not.
    """
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    for annotation in content['annotations']:
        name = f'annotation {annotation.get("id")} of {file}'
        if annotation.get('image_id') not in images:
            raise DatasetError(
                f'{name} is for image '
                f'{annotation.get("image_id")}, which the file '
                'does not list'
            )
        if annotation.get('category_id') not in categories:
            raise DatasetError(
                f'{name} is of category '
                f'{annotation.get("category_id")}, which the '
                'file does not list'
            )
        box = annotation.get('bbox')
        if not isinstance(box, list) or len(box) != 4:
            raise DatasetError(f'{name} has no bbox [x, y, width, height]')


def check_images(
    file: str | Path, folder: str | Path, names: list[str]
) -> None:
    """Check that every image is there and not empty, a folder at a time.

    Args:
        file (str | Path): The annotation file, for the message.
        folder (str | Path): Folder of the images.
        names (list[str]): Their paths below it.

    Raises:
        DatasetError: If one is missing or empty.
    """
    by_folder = defaultdict(list)
    for name in names:
        path = Path(folder, name)
        by_folder[path.parent].append(path.name)
    wrong = []
    for parent, children in by_folder.items():
        sizes = {}
        if parent.is_dir():
            with os.scandir(parent) as entries:
                sizes = {
                    e.name: e.stat().st_size for e in entries if e.is_file()
                }
        wrong += [str(parent / c) for c in children if not sizes.get(c)]
    if wrong:
        raise DatasetError(
            f'{len(wrong)} of the {len(names)} images of {file} are missing '
            f'or empty: {_listing(wrong)}'
        )


def _check_label_maps(
    dataset: Mapping, paths: Mapping[str, str], classes: tuple | None
) -> None:
    """Check that each image has a label map, and some of the maps."""
    image_suffix = dataset.get('img_suffix', '.jpg')
    suffix = dataset.get('seg_map_suffix', '.png')
    images = Path(paths['data_prefix.img_path'])
    maps = Path(paths['data_prefix.seg_map_path'])
    names = sorted(
        str(p.relative_to(images)).removesuffix(image_suffix)
        for p in images.rglob(f'*{image_suffix}')
    )
    if not names:
        raise DatasetError(f'{images} has no images {image_suffix}')
    present = {str(p.relative_to(maps)) for p in maps.rglob(f'*{suffix}')}
    missing = [n + suffix for n in names if n + suffix not in present]
    if missing:
        raise DatasetError(
            f'{len(missing)} of the {len(names)} images of {images} have no '
            f'label map in {maps}: {_listing(missing)}'
        )
    for name in names[:_MAPS_READ]:
        _check_label_map(maps / (name + suffix), dataset, classes)


def _check_label_map(
    path: Path, dataset: Mapping, classes: tuple | None
) -> None:
    try:
        with Image.open(path) as file:
            labels = np.asarray(file)
    except OSError as error:
        raise DatasetError(f'label map {path}: {error}') from None
    if labels.ndim != 2:
        raise DatasetError(
            f'label map {path} is {file.mode}, a picture of {labels.shape[2]} '
            'channels; it must have one, of class numbers: grey or palette'
        )
    if classes is None:
        return
    # ADE20K's own data set reduces by default.
    default = dataset.get('type') == 'ADE20KDataset'
    shift = bool(dataset.get('reduce_zero_label', default))
    highest = len(classes) - 1 + shift
    wrong = [n for n in np.unique(labels) if n > highest and n != 255]
    if wrong:
        raise DatasetError(
            f'label map {path} has the labels {_listing(wrong)}; the '
            f'{len(classes)} classes of the config are {int(shift)} to '
            f'{highest}'
            + (', after 0 for "ignore"' if shift else '')
            + ', and 255 is "ignore". Correct metainfo=dict(classes=...), '
            'num_classes or reduce_zero_label'
        )


def _listing(names, most: int = 3) -> str:
    names = [str(n) for n in names]
    more = f' and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
