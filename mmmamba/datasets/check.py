"""Find out before training, not an hour into it, that the data is not right.

The data sets of a config are loaded as training would load them, images and
label maps are opened, and what is wrong is a list of findings that say what
to do.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import TypeVar

from mmcv.image import rescale_size
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log
from mmengine.registry import DATASETS

from .class_folders import (
    compare_class_folders,
    find_unread_images,
    read_class_folders,
)
from .coco import as_id, read_coco, right_coco
from .config import leaves
from .findings import SEVERITIES, DatasetError, Finding, listing, raise_errors
from .images import ImageSize, decode_all, read_size
from .label_maps import check_labels, count_labels
from .loaded import Summary, load

_DOCS = 'docs/dataset_prepare.md'
# What a run opens at most before it starts; the tool opens all.
_MOST_IMAGES = 20000
_MOST_MAPS = 2000
_OURS = "type='CustomCocoDataset' (evaluator: 'CustomCocoMetric')"
# What our data set makes right and mmdet's gets wrong without a word.
_WRONG_IN_MMDET = (
    *('category_twice', 'unknown_category', 'unknown_image'),
    *('file_name', 'image_id_text', 'image_twice', 'exif'),
    *('image_size_missing', 'image_size_wrong'),
    *('annotation_id', 'annotation_twice', 'box_of_polygon', 'no_box'),
)

_T = TypeVar('_T')


@dataclass
class Report:
    """What was found.

    Attributes:
        findings (list[Finding]): The worst first.
        splits (dict[str, Summary]): What each split has.
    """

    findings: list[Finding] = field(default_factory=list)
    splits: dict[str, Summary] = field(default_factory=dict)


def check_datasets(cfg: Config, splits: tuple[str, ...]) -> None:
    """Check the data sets a run is about to use; log what is lost.

    Args:
        cfg (Config): The config of the run.
        splits (tuple[str, ...]): Of ``'train'``, ``'val'`` and ``'test'``.

    Raises:
        DatasetError: If training would fail, lose everything or learn wrong
            labels.
    """
    if int(os.environ.get('RANK', os.environ.get('SLURM_PROCID', 0))):
        return  # one process of a launch is enough
    report = inspect_datasets(cfg, splits, _MOST_IMAGES, _MOST_MAPS)
    missing = [f for f in report.findings if f.kind == 'missing_path']
    # Until the files are there, the rest is of no interest.
    raise_errors(missing[:1] or report.findings)
    for finding in report.findings:
        if finding.severity == 'warning':
            print_log(
                f'{finding.split}: {finding.message}',
                logger='current',
                level=logging.WARNING,
            )


def inspect_datasets(
    cfg: Config,
    splits: tuple[str, ...],
    most_images: int | None = None,
    most_maps: int | None = None,
) -> Report:
    """Load the data sets of a config and report what is in them.

    Data behind a remote backend is not looked at. Images that decoded are
    remembered in ``cfg.work_dir``.

    Args:
        cfg (Config): The config.
        splits (tuple[str, ...]): Of ``'train'``, ``'val'`` and ``'test'``.
        most_images (int, optional): Images to decode in each data set.
            Defaults to None: all.
        most_maps (int, optional): Label maps to read. Defaults to None: all.

    Returns:
        Report: The findings, and a summary of each split.
    """
    report = Report()
    done: dict[str, str] = {}
    class_folders: dict[str, list[str]] = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        for dataset in leaves(loader.dataset):
            paths = _local_paths(dataset)
            key = json.dumps(
                [paths, dataset.get('metainfo'), dataset.get('type')],
                default=str,
            )
            if key in done or not paths:
                continue
            done[key] = split
            look = _Look(cfg, split, dataset, paths)
            look.look(most_images, most_maps)
            report.findings += [f.of(split) for f in look.findings]
            class_folders.update(look.class_folders)
            if look.summary is not None:
                _add(report.splits, split, look.summary)
        _attempt(report.findings, 'evaluator', _check_evaluator, cfg, split)
        _attempt(report.findings, 'evaluator', _check_topk, cfg, split)
    if any(_has_last_class(s) for s in report.splits.values()):
        other = 'reduce_zero_label'
        report.findings = [f for f in report.findings if f.kind != other]
    report.findings += compare_class_folders(class_folders)
    report.findings += _compare_splits(report.splits)
    report.findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return report


def _attempt(
    findings: list[Finding],
    kind: str,
    check: Callable[..., _T],
    *args: object,
) -> _T | None:
    """Run a check; an error of it is a finding."""
    try:
        return check(*args)
    except DatasetError as error:
        findings.append(Finding('error', kind, str(error)))
        return None


def _add(splits: dict[str, Summary], split: str, summary: Summary) -> None:
    """Add a data set to those of the split."""
    if split not in splits:
        splits[split] = summary
        return
    whole = splits[split]
    for name in ('images', 'used_images', 'empty_images', 'objects'):
        setattr(whole, name, getattr(whole, name) + getattr(summary, name))
    for name, count in summary.classes.items():
        whole.classes[name] = whole.classes.get(name, 0) + count
    whole.paths += summary.paths
    whole.image_sizes += summary.image_sizes
    whole.box_sizes += summary.box_sizes


def _has_last_class(summary: Summary) -> bool:
    """Whether the highest label is there: 0 is "ignore" where it may be."""
    return any([*summary.classes.values()][-1:])


def _compare_splits(splits: Mapping[str, Summary]) -> list[Finding]:
    """Find classes that differ, and images that are in two splits."""
    train = splits.get('train')
    findings: list[Finding] = []
    for split, summary in splits.items():
        absent = [n for n, count in summary.classes.items() if not count]
        if absent and summary.objects:
            findings.append(
                Finding(
                    'warning' if split == 'train' else 'info',
                    'class_without_objects',
                    f'the {split} split has no object of {listing(absent)}: '
                    + (
                        'nothing is learnt of it'
                        if split == 'train'
                        else 'its accuracy is not measured'
                    ),
                    count=len(absent),
                    split=split,
                )
            )
        if train is None or split == 'train':
            continue
        if (
            train.classes
            and summary.classes
            and list(train.classes) != list(summary.classes)
        ):
            findings.append(
                Finding(
                    'error',
                    'classes_differ',
                    f'the classes of the {split} data set '
                    f'({listing(summary.classes)}) are not those of the train '
                    f'data set ({listing(train.classes)}); give both the same '
                    'metainfo=dict(classes=...)',
                    split=split,
                )
            )
        shared = {os.path.realpath(p) for p in train.paths} & {
            os.path.realpath(p) for p in summary.paths
        }
        if shared:
            findings.append(
                Finding(
                    'warning',
                    'image_in_two_splits',
                    f'{len(shared)} images are in the train and in the '
                    f'{split} split, where the accuracy will look better than '
                    f'it is: {listing(sorted(shared))}',
                    count=len(shared),
                    split=split,
                )
            )
    return findings


class _Look:
    """A look at one data set of a config."""

    def __init__(
        self,
        cfg: Config,
        split: str,
        dataset: Mapping,
        paths: Mapping[str, str],
    ) -> None:
        self.cfg = cfg
        self.split = split
        self.dataset = dataset
        self.paths = paths
        self.findings: list[Finding] = []
        self.class_folders: dict[str, list[str]] = {}
        self.summary: Summary | None = None

    def _attempt(
        self, kind: str, check: Callable[..., _T], *args: object
    ) -> _T | None:
        return _attempt(self.findings, kind, check, *args)

    def look(self, most_images: int | None, most_maps: int | None) -> None:
        """Check the config first, then the files, then their content."""
        missing = {n: p for n, p in self.paths.items() if not Path(p).exists()}
        if missing:
            if not self._attempt('type', _downloads, self.dataset):
                self._note_missing(missing)
            return
        classes = self._attempt('classes', _classes, self.dataset)
        if classes:
            model = self.cfg.model
            self._attempt('num_classes', _check_num_classes, model, classes)
        folder = _image_folder(self.dataset, self.paths)
        if folder:
            self._look_at_class_folders(folder, classes)
        if 'ann_file' in self.paths and _is_coco(self.dataset):
            self._look_at_coco(classes, most_images)
        if any(f.severity == 'error' for f in self.findings):
            return
        self.summary = load(self.dataset)
        self.findings += self.summary.findings
        if any(f.severity == 'error' for f in self.summary.findings):
            return
        if folder:
            self.findings += find_unread_images(folder, self.summary.paths)
        self._look_at_use(classes)
        self._open_images(most_images)
        if self.summary.map_paths:
            self._open_maps(classes, most_maps)

    def _note_missing(self, missing: Mapping[str, str]) -> None:
        self.findings += [
            Finding(
                'error',
                'missing_path',
                f'{self.split}_dataloader: {name} {path} does not exist. '
                f'{_DOCS} says how to get COCO, ADE20K and ImageNet and where '
                'they go; the README section "Your own data set" says how to '
                'point a config elsewhere',
                path,
            )
            for name, path in missing.items()
        ]

    def _look_at_class_folders(
        self, path: str, classes: tuple[str, ...] | None
    ) -> None:
        """Check the folders by class against the classes of the config."""
        kind = 'class_folders'
        names = self._attempt(kind, read_class_folders, path, classes)
        if names is None:
            return
        self.class_folders[path] = names
        if classes is None:
            model = self.cfg.model
            self._attempt(kind, _check_num_classes, model, tuple(names))

    def _look_at_coco(
        self, classes: tuple[str, ...] | None, most_images: int | None
    ) -> None:
        """Check an annotation file against the classes of the config."""
        file = self.paths['ann_file']
        content = self._attempt('annotation_file', read_coco, file)
        if content is None:
            return
        strict = not _is_custom(self.dataset)
        args = (file, content, classes, strict)
        self._attempt('categories', _check_categories, *args)
        if self.split == 'train' and not content['annotations']:
            self.findings.append(
                Finding(
                    'error',
                    'no_annotations',
                    f'annotation file {file} has no annotations: there is '
                    'nothing to train on',
                    file,
                )
            )
        self._look_at_categories(content, classes or ())
        if strict:
            self._look_at_plain_coco(content, most_images)

    def _look_at_categories(
        self, content: dict, classes: Sequence[str]
    ) -> None:
        """Count the objects of categories that the config does not name."""
        unnamed = {
            as_id(category['id']): str(category['name'])
            for category in content['categories']
            if str(category['name']) not in classes
        }
        lost = sum(
            as_id(a.get('category_id')) in unnamed
            for a in content['annotations']
        )
        if unnamed and classes:
            self.findings.append(
                Finding(
                    'warning' if lost else 'info',
                    'unused_category',
                    f'{lost} objects of {self.paths["ann_file"]} are of '
                    'categories that the config does not name, and are not '
                    f'used: {listing(dict.fromkeys(unnamed.values()))}',
                    self.paths['ann_file'],
                    lost,
                )
            )

    def _look_at_plain_coco(
        self, content: dict, most_images: int | None
    ) -> None:
        """Check what mmdet's own data set does not make right."""
        file = self.paths['ann_file']
        # As large a file as COCO's is taken at its word as to sizes.
        large = most_images and len(content['images']) > most_images
        self._attempt('missing_field', _check_fields, file, content)
        folder = self.paths.get('data_prefix.img')
        sizes: dict | None = {} if large else None
        for finding in right_coco(content, file, folder, sizes).findings:
            if finding.kind in _WRONG_IN_MMDET:
                # This one costs accuracy, but teaches nothing wrong.
                repeated = finding.kind == 'annotation_twice'
                self.findings.append(
                    Finding(
                        'warning' if repeated else 'error',
                        finding.kind,
                        f'{finding.message}. CocoDataset does not make that '
                        f'right, but {_OURS} does; both need '
                        "'mmmamba.datasets.detection' in custom_imports",
                        file,
                        finding.count,
                    )
                )
            elif finding.severity != 'info':
                self.findings.append(finding)

    def _look_at_use(self, classes: tuple[str, ...] | None) -> None:
        """Say what of the data set is not used."""
        summary = self.summary
        assert summary is not None
        file = self.paths.get('ann_file', '')
        unused = summary.images - summary.used_images
        reason = 'indices of the data set names the others'
        if self.dataset.get('indices') is None:
            reason = (
                'filter_cfg leaves out images without objects '
                '(filter_empty_gt) or smaller than min_size'
            )
        if not summary.used_images:
            self.findings.append(
                Finding(
                    'error',
                    'nothing_left',
                    f'of the {summary.images} images of {file} none is left '
                    'to use. Look at filter_cfg of the data set',
                    file,
                )
            )
        elif unused:
            self.findings.append(
                Finding(
                    'warning',
                    'image_filtered',
                    f'{unused} of the {summary.images} images of {file} are '
                    f'not used: {reason}',
                    file,
                    unused,
                )
            )
        elif summary.empty_images:
            self.findings.append(
                Finding(
                    'info',
                    'image_without_objects',
                    f'{summary.empty_images} of the {summary.images} images '
                    f'of {file} have no objects; they serve as background. '
                    'filter_cfg=dict(filter_empty_gt=True) leaves them out',
                    file,
                    summary.empty_images,
                )
            )
        is_boxes = _is_coco(self.dataset)
        if is_boxes and self.split == 'train' and not summary.objects:
            self.findings.append(
                Finding(
                    'error',
                    'nothing_left',
                    f'{file} has no object of the classes '
                    f'{listing(classes or ())} that can be used',
                    file,
                )
            )
        steps = [s for s in self.dataset.get('pipeline') or () if 'type' in s]
        needs_masks = any(step.get('with_mask') for step in steps)
        if needs_masks and summary.objects and not summary.with_masks:
            self.findings.append(
                Finding(
                    'error',
                    'no_masks',
                    f'the config learns masks, and no object of {file} has a '
                    'polygon. Annotate polygons, or use a config of a '
                    'detector without masks, for example RetinaNet',
                    file,
                )
            )
        reduces = summary.reduce_zero_label
        given = {step.get('reduce_zero_label') for step in steps}
        if not given <= {None, reduces}:
            self.findings.append(
                Finding(
                    'error',
                    'zero_label',
                    f'reduce_zero_label is {reduces} in the {self.split} data '
                    f'set and {not reduces} in its pipeline, which would fail '
                    'at the first image: set it in the data set alone',
                    file,
                )
            )
        heads = dict(_num_classes(self.cfg.model, 'model')).values()
        number = len(classes) if classes else max(heads, default=0)
        beyond = sorted(n for n in summary.labels if not 0 <= n < number)
        if beyond and number:
            self.findings.append(
                Finding(
                    'error',
                    'label_beyond_classes',
                    f'{file} has the labels {listing(beyond)}; those of the '
                    f'{number} classes are 0 to {number - 1}. Correct the '
                    'labels, or the classes and num_classes',
                    file,
                    len(beyond),
                )
            )

    def _open_images(self, most: int | None) -> None:
        """Decode the images, and compare their sizes with the label maps'."""
        assert self.summary is not None
        memory = Path(self.cfg.get('work_dir') or '.', 'decoded_images.json')
        paths = _sample(self.summary.paths, most)
        remember = memory if self.cfg.get('work_dir') else None
        sizes = decode_all(paths, remember)
        broken = [f'{p} ({s})' for p, s in sizes.items() if isinstance(s, str)]
        if broken:
            self.findings.append(
                Finding(
                    'error',
                    'broken_image',
                    f'{len(broken)} images cannot be read: {listing(broken)}. '
                    'Replace them, or take them out of the data set',
                    count=len(broken),
                )
            )
        dark = [
            p for p, s in sizes.items() if not isinstance(s, str) and s.dark
        ]
        if dark:
            self.findings.append(
                Finding(
                    'warning',
                    'dark_image',
                    f'{len(dark)} images of 16 bits use less than a quarter '
                    'of their range, as those of 12-bit cameras do, and are '
                    f'loaded almost black: {listing(dark)}. Scale them to '
                    '65535, or save them with 8 bits',
                    count=len(dark),
                )
            )
        if not self.summary.image_sizes:
            self.summary.image_sizes = [
                (s.width, s.height)
                for s in sizes.values()
                if not isinstance(s, str)
            ]

        known = dict(zip(self.summary.paths, self.summary.image_sizes))
        if len(self.summary.image_sizes) != len(self.summary.paths):
            known = {
                p: (s.width, s.height)
                for p, s in sizes.items()
                if not isinstance(s, str)
            }
        self._look_at_strips(known)

        maps = dict(zip(self.summary.paths, self.summary.map_paths))
        other = []
        for path, size in sizes.items():
            labels = read_size(maps[path]) if path in maps else None
            if isinstance(size, str) or not isinstance(labels, ImageSize):
                continue
            shown = (size.width, size.height)
            loaded = size.stored if path in self.summary.turned else shown
            if labels.stored != loaded:
                other.append(
                    f'{maps[path]} is {labels.width}x{labels.height}, its '
                    f'image {loaded[0]}x{loaded[1]}'
                )
        if other:
            self.findings.append(
                Finding(
                    'error',
                    'map_size',
                    f'{len(other)} label maps are of another size than their '
                    f'image: {listing(other)}. Export them at the size of '
                    "the image; type='CustomSegDataset' serves photos that "
                    'EXIF turns',
                    count=len(other),
                )
            )

    def _look_at_strips(self, sizes: Mapping[str, tuple[int, int]]) -> None:
        """Find the images of which resizing would leave no pixel."""
        scales = list(_scales(self.dataset.get('pipeline') or ()))
        strips = [
            f'{path} is {size[0]}x{size[1]}'
            for path, size in sizes.items()
            if any(min(rescale_size(size, scale)) < 1 for scale in scales)
        ]
        if strips:
            self.findings.append(
                Finding(
                    'error',
                    'strip',
                    f'{len(strips)} images are too long for their height or '
                    f'width: resized as the config does, nothing is left of '
                    f'it: {listing(strips)}. Cut them into pieces, or take '
                    'them out of the data set',
                    count=len(strips),
                )
            )

    def _open_maps(
        self, classes: tuple[str, ...] | None, most: int | None
    ) -> None:
        assert self.summary is not None
        counts = count_labels(_sample(self.summary.map_paths, most))
        if classes is None:
            return
        findings, self.summary.classes = check_labels(
            counts,
            classes,
            self.summary.reduce_zero_label,
            self.paths.get('data_prefix.seg_map_path')
            or self.paths.get('data_root', ''),
            self.summary.label_map,
        )
        self.summary.objects = sum(self.summary.classes.values())
        # Of other splits a class may be missing.
        self.findings += [
            f
            for f in findings
            if f.kind != 'reduce_zero_label' or self.split == 'train'
        ]


def _sample(paths: Sequence[str], most: int | None) -> Sequence[str]:
    """Take at most so many, from all over the list."""
    if most is None or len(paths) <= most:
        return paths
    return [paths[i * len(paths) // most] for i in range(most)]


def _scales(pipeline: Sequence[Mapping]) -> Iterator[tuple[int, ...]]:
    """The sizes, or the least of them, into which images are fitted."""
    for step in pipeline:
        if not step.get('keep_ratio'):
            continue
        least = min(step.get('ratio_range') or (1,))
        given = step.get('scales') or step.get('scale')
        if not isinstance(given, (list, tuple)):
            continue  # a factor, say
        several = given if isinstance(given[0], (list, tuple)) else [given]
        for scale in several:
            yield tuple(int(side * least) for side in scale)


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
        raise DatasetError(
            f'unknown data set type {kind!r}: custom_imports of a config '
            'replaces what it inherits; list there what defines the type, '
            "and 'mmmamba', 'mmmamba.datasets.detection' or "
            "'mmmamba.datasets.segmentation' for those of mmmamba"
        )
    return dataset_class


def _downloads(dataset: Mapping) -> bool:
    """Whether what is missing comes by itself, as CIFAR does."""
    parameters = signature(_dataset_class(dataset)).parameters
    return 'download' in parameters and dataset.get('download', True)


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
    if dataset.get('with_label') is False:  # a flat folder, to predict on
        return None
    if 'data_root' in paths and dataset.get('split'):  # ImageNet's
        return os.path.join(paths['data_root'], dataset['split'])
    return next(iter(paths.values()))


def _check_num_classes(model: Mapping, classes: tuple[str, ...]) -> None:
    for where, number in _num_classes(model, 'model'):
        if number != len(classes):
            raise DatasetError(
                f'{where}.num_classes is {number}, but the data set has '
                f'{len(classes)} classes ({listing(classes)}). Set '
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


def evaluators_of(cfg: Config, split: str) -> Sequence[Mapping]:
    """List the evaluators of a split, which may be one or none.

    Args:
        cfg (Config): The config.
        split (str): ``'val'`` or ``'test'``.

    Returns:
        Sequence[Mapping]: Their configs.
    """
    evaluators = cfg.get(f'{split}_evaluator') or []
    return [evaluators] if isinstance(evaluators, Mapping) else evaluators


def _check_topk(cfg: Config, split: str) -> None:
    """There is no top-5 accuracy of three classes."""
    number = (cfg.model.get('head') or {}).get('num_classes')
    for evaluator in evaluators_of(cfg, split):
        if evaluator.get('type') != 'Accuracy':
            continue
        topk = evaluator.get('topk', 1)
        most = max(topk) if isinstance(topk, Sequence) else topk
        if number and most > number:
            raise DatasetError(
                f'{split}_evaluator.topk is {topk}, but there are only '
                f'{number} classes: set {split}_evaluator.topk=1'
            )


def _check_evaluator(cfg: Config, split: str) -> None:
    """An evaluator that reads other files than its loader scores nonsense."""
    files = {
        os.path.realpath(path['ann_file'])
        for path in map(
            _local_paths, leaves(cfg[f'{split}_dataloader'].dataset)
        )
        if 'ann_file' in path
    }
    for evaluator in evaluators_of(cfg, split):
        ann_file = evaluator.get('ann_file')
        if not ann_file or not files:
            continue
        if os.path.realpath(ann_file) not in files:
            raise DatasetError(
                f'{split}_evaluator.ann_file is {ann_file}, but '
                f'{split}_dataloader reads {listing(sorted(files))}; set '
                'both to the same file'
            )
        if len(files) > 1:
            raise DatasetError(
                f'{split}_evaluator.ann_file is {ann_file}, but '
                f'{split}_dataloader reads {listing(sorted(files))}, and what '
                'is found in the others would count as wrong: merge the '
                'files, or test one at a time'
            )


def _check_categories(
    file: str,
    content: dict,
    classes: tuple[str, ...] | None,
    strict: bool,
) -> None:
    """Compare the categories of a COCO-format file with the config.

    mmdet's own data set, for which ``strict`` stands, numbers labels in the
    order of the file.
    """
    if classes is None:
        return
    names = [str(category['name']) for category in content['categories']]
    names = list(dict.fromkeys(names))
    unknown = [n for n in names if n not in classes]
    absent = [c for c in classes if c not in names]
    if strict and absent or len(absent) == len(classes):
        raise DatasetError(
            f'the categories of {file} are not the classes of the config:'
            + (f' {listing(unknown)} are in the file only;' if unknown else '')
            + (f' {listing(absent)} are in the config only;' if absent else '')
            + f' set metainfo=dict(classes={tuple(names)}) in the data '
            'set, and num_classes in the model'
        )
    common = [n for n in names if n in classes]
    if strict and common != list(classes):
        raise DatasetError(
            f'{file} lists its categories in another order than the '
            'config; mmdet numbers them as the file does, so names would '
            f'be mixed up. Set metainfo=dict(classes={tuple(common)}), or '
            f'{_OURS}, which goes by name'
        )


def _check_fields(file: str, content: dict) -> None:
    """Check what mmdet's training and evaluation need of an annotation."""
    for annotation in content['annotations']:
        for name in ('area', 'iscrowd'):
            if name not in annotation:
                raise DatasetError(
                    f'annotation {annotation.get("id")} of {file} has no '
                    f'{name}. {_OURS} fills it in'
                )


def _is_custom(dataset: Mapping) -> bool:
    """Whether it is our data set, which makes right what can be."""
    ancestors = {c.__name__ for c in _dataset_class(dataset).__mro__}
    return 'CustomCocoDataset' in ancestors
