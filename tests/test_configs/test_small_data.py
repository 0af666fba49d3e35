"""The recipes for small data sets, on images of any shape and number."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, PARAM_SCHEDULERS, init_default_scope

CONFIGS = Path(__file__).parents[2] / 'configs/demo'
DETECTORS = [
    p.name for d in ('bccd', 'shapes') for p in CONFIGS.glob(f'*_{d}.py')
]
SEGMENTORS = [p.name for p in CONFIGS.glob('*_camvid.py')]
SHAPES = [(480, 640), (640, 480), (90, 300), (70, 66)]  # height, width


def with_files(dataset: Config) -> Config:
    """The data set itself, less a RepeatDataset around it."""
    return with_files(dataset.dataset) if 'dataset' in dataset else dataset


@pytest.fixture
def loader(tmp_path):
    """A function: a config's data set of a split, with images of SHAPES.

    The first of them may be without objects.
    """

    def write_detection(dataset, folder, empty):
        folder.mkdir()
        names = dataset.metainfo.classes
        content = dict(images=[], annotations=[], categories=[])
        for i, name in enumerate(names):
            content['categories'].append(dict(id=i + 1, name=name))
        for i, (height, width) in enumerate(SHAPES):
            image = np.full((height, width, 3), 255, np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), image)
            image = dict(
                id=i, file_name=f'{i}.png', height=height, width=width
            )
            content['images'].append(image)
            if i < empty:
                continue
            box = [0, 0, width, height]
            corners = [0, 0, width, 0, width, height, 0, height]
            content['annotations'].append(
                dict(
                    id=i + 1,
                    image_id=i,
                    category_id=1,
                    bbox=box,
                    area=width * height,
                    segmentation=[corners],
                    iscrowd=0,
                )
            )
        (folder / 'boxes.json').write_text(json.dumps(content))
        dataset.update(
            data_root=f'{folder}/',
            ann_file='boxes.json',
            data_prefix=dict(img=''),
        )

    def write_segmentation(dataset, folder):
        for name in ('images', 'labels'):
            (folder / name).mkdir(parents=True)
        for i, shape in enumerate(SHAPES):
            image = np.full((*shape, 3), 255, np.uint8)
            cv2.imwrite(str(folder / f'images/{i}.jpg'), image)
            # Columns of two classes, for no crop may show one alone.
            labels = np.tile(np.arange(shape[1]) % 2 + 1, (shape[0], 1))
            cv2.imwrite(str(folder / f'labels/{i}.png'), labels)
        prefix = dict(img_path='images', seg_map_path='labels')
        dataset.update(data_root=str(folder), data_prefix=prefix)

    def build(cfg, split, empty=0):
        init_default_scope(cfg.default_scope)
        dataset = cfg[f'{split}_dataloader'].dataset
        if cfg.default_scope == 'mmdet':
            write_detection(with_files(dataset), tmp_path / split, empty)
        else:
            write_segmentation(dataset, tmp_path / split)
        return DATASETS.build(dataset)

    return build


@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.slow
def test_no_batch_of_a_detector_is_padded(name, loader):
    """Neither to the largest image of a batch nor to the size divisor."""
    cfg = Config.fromfile(CONFIGS / name)
    for split in ('train', 'val'):
        dataset = loader(cfg, split)
        shapes = {dataset[i]['inputs'].shape[1:] for i in range(len(SHAPES))}
        assert len(shapes) == 1, split
        divisor = cfg.model.data_preprocessor.pad_size_divisor
        assert [side % divisor for side in shapes.pop()] == [0, 0]


@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.slow
def test_images_without_objects_serve_as_background(name, loader):
    """No step draws another image in their place."""
    dataset = loader(Config.fromfile(CONFIGS / name), 'train', empty=1)
    found = {len(dataset[0]['data_samples'].gt_instances) for _ in range(9)}
    assert 0 in found


@pytest.mark.parametrize('name', SEGMENTORS)
@pytest.mark.slow
def test_no_crop_of_a_segmentor_is_padded(name, loader):
    """Whatever size is drawn by lot; CI would not draw the smallest."""
    cfg = Config.fromfile(CONFIGS / name)
    resize = cfg.train_dataloader.dataset.pipeline[2]
    resize.ratio_range = (min(resize.ratio_range),) * 2
    dataset = loader(cfg, 'train')
    for i in range(len(SHAPES)):
        inputs = dataset[i]['inputs']
        assert inputs.shape[1:] == cfg.model.data_preprocessor.size


@pytest.mark.parametrize('epochs', [16, None])
@pytest.mark.parametrize(
    ('name', 'epoch_length'),
    [(name, 125 if 'shapes' in name else 26) for name in DETECTORS]
    + [(name, 1) for name in DETECTORS if 'bccd' in name],
)
@pytest.mark.slow
def test_the_schedule_fits_into_any_training(name, epoch_length, epochs):
    """A batch an epoch is enough: most of the learning rate, then none."""
    cfg = Config.fromfile(CONFIGS / name)
    if epochs is None or 'ssdlite' in name:  # which halves max_epochs itself
        epochs = cfg.train_cfg.max_epochs
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        scheduler.setdefault('end', epochs)  # as the runner does
        arguments = dict(optimizer=optimizer, epoch_length=epoch_length)
        schedulers.append(
            PARAM_SCHEDULERS.build(scheduler, default_args=arguments)
        )
    rates = []
    for _ in range(epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    peak = max(rates)
    assert peak > 0.7
    assert rates.index(peak) <= len(rates) / 3
    assert rates[-1] < 0.1
