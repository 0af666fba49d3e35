"""What a toolbox really uses of a data set, found by loading it."""

import logging
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS

from .findings import DatasetError, Finding


@dataclass
class Summary:
    """A data set as loaded.

    Attributes:
        images (int): Images that are listed.
        used_images (int): Images that training or testing will see.
        empty_images (int): Images without objects among those listed.
        objects (int): Objects that are used.
        classes (dict[str, int]): Objects, images or pixels of each class.
        image_sizes (list[tuple[int, int]]): Width and height.
        box_sizes (list[tuple[float, float]]): Width and height, in pixels of
            the images.
        paths (list[str]): The image files that are used.
        map_paths (list[str]): Their label maps.
        labels (set[int]): The labels of whole images.
        reduce_zero_label (bool): Whether label 0 of the maps is "ignore".
        label_map (dict[int, int], optional): What their labels become, where
            the classes are a part of the data set's own.
        turned (set[str]): Images that are loaded without EXIF's turn.
        with_masks (int): Objects with a mask.
        findings (list[Finding]): What loading found.
    """

    images: int = 0
    used_images: int = 0
    empty_images: int = 0
    objects: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    image_sizes: list[tuple[int, int]] = field(default_factory=list)
    box_sizes: list[tuple[float, float]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    map_paths: list[str] = field(default_factory=list)
    labels: set[int] = field(default_factory=set)
    reduce_zero_label: bool = False
    label_map: dict[int, int] | None = None
    turned: set[str] = field(default_factory=set)
    with_masks: int = 0
    findings: list[Finding] = field(default_factory=list)


def load(dataset: Mapping) -> Summary:
    """Build a data set without its pipeline and look at all of its entries.

    Args:
        dataset (Mapping): Its config; the default scope resolves its type.

    Returns:
        Summary: What is in it; with an error, and nothing else, if it cannot
        be loaded.
    """
    config = dict(dataset, pipeline=[], lazy_init=False)
    try:
        with _quiet():
            built = DATASETS.build(config)
    except DatasetError as error:
        found = getattr(error, 'findings', None)
        return Summary(
            findings=found or [Finding('error', 'dataset', str(error))]
        )
    # A toolbox's data set raises whatever its parser stumbles upon.
    except Exception as error:  # noqa: BLE001
        return Summary(
            findings=[
                Finding(
                    'error',
                    'not_loadable',
                    f'{config["type"]} cannot load '
                    f'{config.get("ann_file") or config.get("data_prefix")}: '
                    f'{type(error).__name__}: {error}',
                )
            ]
        )
    summary = Summary(findings=list(getattr(built, 'findings', ())))
    _count(built, summary)
    return summary


@contextmanager
def _quiet():
    """Keep the log free of what the report says anyway."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _count(built: BaseDataset, summary: Summary) -> None:
    names = list(built.metainfo.get('classes') or ())
    counts: Counter[int] = Counter()
    for index in range(len(built)):
        info = built.get_data_info(index)
        path = info.get('img_path')
        if path:
            summary.paths.append(path)
        if info.get('turned'):
            summary.turned.add(path)
        if info.get('seg_map_path'):
            summary.map_paths.append(info['seg_map_path'])
        if 'width' in info:
            summary.image_sizes.append((info['width'], info['height']))
        labels = info.get('gt_label')
        labels = labels if isinstance(labels, list) else [labels]
        labels = [label for label in labels if isinstance(label, int)]
        summary.labels.update(labels)
        counts.update(labels)
        for instance in info.get('instances', ()):
            if instance.get('ignore_flag'):
                continue
            counts[instance['bbox_label']] += 1
            left, top, right, bottom = instance['bbox']
            summary.box_sizes.append((right - left, bottom - top))
            summary.with_masks += 'mask' in instance
    summary.reduce_zero_label = getattr(built, 'reduce_zero_label', False)
    summary.label_map = getattr(built, 'label_map', None)
    summary.used_images = len(built)
    summary.images = getattr(built, 'listed_images', len(built))
    summary.empty_images = getattr(built, 'empty_images', 0)
    summary.objects = sum(counts.values())
    summary.classes = {name: counts[i] for i, name in enumerate(names)}
