"""The image size of a classification config, in one place."""

import math
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict

from mmmamba.datasets.config import leaves, type_name


def set_image_size(
    cfg: Config, size: int | None = None, crop_ratio: float | None = None
) -> None:
    """Train and test a classifier at another resolution.

    Images to train on are cropped to ``size``; those to test on are resized
    to a shorter side of ``size / crop_ratio``, rounded down as timm does,
    and cropped to ``size``.

    Args:
        cfg (Config): A classification config; changed in place.
        size (int, optional): Side in pixels. Defaults to None, the config's.
        crop_ratio (float, optional): Share of the shorter side that is
            tested on, within (0, 1]. Defaults to None, 0.875 with a new size.

    Raises:
        ValueError: If a value is out of its range or the config has no such
            transforms.
    """
    if size is not None and size < 64:
        raise ValueError(f'an image size of {size} px is less than 64')
    if crop_ratio is not None and not 0 < crop_ratio <= 1:
        raise ValueError(f'a crop ratio of {crop_ratio} is not within (0, 1]')
    changed = False
    datasets = [
        dataset
        for split in ('train', 'val', 'test')
        for dataset in leaves(
            (cfg.get(f'{split}_dataloader') or {}).get('dataset', {})
        )
    ]
    for dataset in datasets:
        steps = dict(_steps(dataset))
        if size is not None and 'RandomResizedCrop' in steps:
            steps['RandomResizedCrop'].scale = size
            changed = True
        if {'ResizeEdge', 'CenterCrop'} <= set(steps):
            side = size or steps['CenterCrop'].crop_size
            steps['CenterCrop'].crop_size = side
            steps['ResizeEdge'].scale = math.floor(
                side / (crop_ratio or 0.875)
            )
            changed = True
    if not changed:
        raise ValueError(
            'the pipelines of the config have no RandomResizedCrop, and no '
            'ResizeEdge with CenterCrop, whose size could be set; image size '
            'and crop ratio are options of classification configs'
        )


def _steps(dataset: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """The transforms of a data set, by the name of their type."""
    for step in dataset.get('pipeline', []):
        yield type_name(step), step
