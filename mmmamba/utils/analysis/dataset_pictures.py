"""Pictures of a data set as a network sees it after loading."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import matplotlib

matplotlib.use('Agg')  # pictures are files here, never windows

import numpy as np
from matplotlib import pyplot as plt
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, VISUALIZERS

from mmmamba.datasets.loaded import Summary

_COLUMNS = 4


def draw_samples(
    cfg: Config, dataset: Mapping, file: str | Path, number: int = 12
) -> None:
    """Draw a contact sheet: samples after the pipeline, with their truth.

    Args:
        cfg (Config): The config, for its visualizer.
        dataset (Mapping): Config of the data set.
        file (str | Path): The picture to write.
        number (int): Samples, from all over the data set. Defaults to 12.
    """
    built = DATASETS.build(dict(dataset))
    visualizer = VISUALIZERS.build(
        dict(cfg.visualizer, vis_backends=None, name=f'sheet {file}')
    )
    visualizer.dataset_meta = built.metainfo
    number = min(number, len(built))
    steps = [step['type'] for step in dataset['pipeline']]
    # When testing, the toolboxes load the truth at the size of the file.
    loading = steps.index('LoadAnnotations')
    unscaled = any('Resize' in step for step in steps[:loading])
    drawn = [
        _draw(built, i * len(built) // number, visualizer, unscaled)
        for i in range(number)
    ]
    rows = -(-number // _COLUMNS)
    figure, axes = plt.subplots(
        *(rows, _COLUMNS),
        figsize=(4 * _COLUMNS, 4 * rows),
        squeeze=False,
        layout='constrained',
    )
    for axis in axes.flat:
        axis.axis('off')
    for axis, (name, image) in zip(axes.flat, drawn):
        axis.imshow(image)
        axis.set_title(f'{name}, {image.shape[1]}x{image.shape[0]}', size=9)
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _draw(
    built: BaseDataset, index: int, visualizer, truth_is_unscaled: bool
) -> tuple[str, np.ndarray]:
    """One sample with its truth, and the name of its image."""
    sample = built[index]
    image = sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1]
    truth = sample['data_samples']
    if truth_is_unscaled:
        image = cv2.resize(np.ascontiguousarray(image), truth.ori_shape[::-1])
    objects = truth.get('gt_instances')
    if objects is not None:
        # The visualizer takes tensors and arrays; pipelines make others.
        objects.bboxes = getattr(objects.bboxes, 'tensor', objects.bboxes)
        if 'masks' in objects:
            objects.masks = objects.masks.to_ndarray().astype(bool)
    visualizer.add_datasample(
        *('sample', np.ascontiguousarray(image, np.uint8), truth),
        draw_pred=False,
        show=False,
    )
    return Path(truth.img_path).name, visualizer.get_image()


def draw_histograms(
    summaries: Mapping[str, Summary], file: str | Path
) -> None:
    """Draw how often each class is, and how large images and objects are.

    Args:
        summaries (Mapping[str, Summary]): By split.
        file (str | Path): The picture to write.
    """
    figure, axes = plt.subplots(1, 3, figsize=(16, 5), layout='constrained')
    names = list(next(iter(summaries.values())).classes)
    width = 0.8 / len(summaries)
    for n, (split, summary) in enumerate(summaries.items()):
        counts = [summary.classes.get(name, 0) for name in names]
        places = np.arange(len(names)) + n * width
        axes[0].bar(places, counts, width, label=split)
        _histogram(axes[1], summary.image_sizes, split)
        _histogram(axes[2], summary.box_sizes, split)
    axes[0].set_xticks(range(len(names)), names, rotation=90)
    axes[0].set_title('classes')
    axes[0].legend()
    for axis, title in zip(axes[1:], ('images', 'objects')):
        axis.set_title(f'{title}: square root of the area, pixels')
    figure.savefig(file, dpi=100)
    plt.close(figure)


def _histogram(
    axis: plt.Axes, sizes: Sequence[tuple[float, float]], label: str
) -> None:
    if sizes:
        sides = np.sqrt(np.prod(np.asarray(sizes, np.float64), axis=1))
        axis.hist(sides, bins=30, alpha=0.6, label=label)
        axis.legend()
