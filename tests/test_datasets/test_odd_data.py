"""Data as people have it: it works, or the error says what is wrong."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from pycocotools import mask as rle

from mmmamba.datasets import DatasetError, check_datasets
from mmmamba.datasets.coco import _uncompress, right_coco

CONFIGS = Path(__file__).parents[2] / 'configs/demo'


def encode(mask: np.ndarray) -> dict:
    encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {**encoded, 'counts': encoded['counts'].decode()}


@pytest.fixture
def coco(tmp_path):
    """One image each: polygon, RLE, crowd, a tiny box, nothing."""
    (tmp_path / 'train').mkdir()
    (tmp_path / 'annotations').mkdir()
    pixels = np.random.RandomState(0).randint(255, size=(80, 100, 4))
    pixels = pixels.astype(np.uint8)
    files = {
        'polygon.jpg': Image.fromarray(pixels[..., 0]),  # grayscale
        'rle.png': Image.fromarray(pixels),  # RGBA
        'crowd.png': Image.fromarray(pixels[..., :3]),
        'tiny.png': Image.fromarray(pixels[..., 0].astype(np.uint16) * 256),
        'nothing.png': Image.fromarray(pixels[..., :3]).quantize(8),  # palette
    }
    for name, image in files.items():
        image.save(tmp_path / 'train' / name)
    mask = np.zeros((80, 100))
    mask[20:60, 30:70] = 1
    square = [[30, 20, 70, 20, 70, 60, 30, 60]]
    whole = dict(bbox=[30, 20, 40, 40], area=1600, iscrowd=0)
    tiny = dict(bbox=[5, 5, 0.5, 0.5], area=0.25, iscrowd=0)
    given = [
        dict(whole, image_id=0, segmentation=square),
        dict(whole, image_id=1, segmentation=encode(mask)),
        dict(whole, image_id=2, segmentation=square),
        dict(whole, image_id=2, segmentation=encode(mask), iscrowd=1),
        dict(whole, image_id=3, segmentation=square),
        dict(tiny, image_id=3, segmentation=[[5, 5, 5.5, 5, 5.5, 5.5]]),
    ]
    content = dict(
        images=[
            dict(id=i, file_name=name, width=100, height=80)
            for i, name in enumerate(files)
        ],
        categories=[dict(id=7, name='thing'), dict(id=90, name='other')],
        annotations=[
            dict(a, id=i, category_id=(7, 90)[i % 2])
            for i, a in enumerate(given)
        ],
    )
    path = tmp_path / 'annotations/instances_train.json'
    path.write_text(json.dumps(content))
    return tmp_path


def detection_dataset(root: Path, test_mode: bool = False):
    cfg = Config.fromfile(CONFIGS / 'mask_rcnn_mobilemamba_mini_shapes.py')
    init_default_scope('mmdet')
    loader = deepcopy(cfg.train_dataloader.dataset)
    loader.update(
        data_root=f'{root}/',
        metainfo=dict(classes=('thing', 'other')),
        test_mode=test_mode,
    )
    for head in ('bbox_head', 'mask_head'):
        cfg.model.roi_head[head].num_classes = 2
    cfg.train_dataloader.dataset = loader
    check_datasets(cfg, ('train',))
    return DATASETS.build(loader)


@pytest.mark.slow
def test_masks_crowds_and_tiny_boxes(coco):
    dataset = detection_dataset(coco)
    names = [Path(s['data_samples'].img_path).name for s in dataset]
    # An image without objects serves as background.
    objects = ['polygon.jpg', 'rle.png', 'crowd.png', 'tiny.png']
    assert names == [*objects, 'nothing.png']
    assert len(dataset[4]['data_samples'].gt_instances) == 0
    for name, sample in zip(objects, dataset):
        assert sample['inputs'].shape[0] == 3, name
        truth = sample['data_samples'].gt_instances
        assert len(truth) == 1, name  # neither crowd nor tiny
        masks = truth.masks.to_ndarray()
        share = masks.sum() / masks[0].size
        assert share == pytest.approx(1600 / 8000, abs=0.01), name
    assert len(dataset[2]['data_samples'].ignored_instances) == 1


def test_compressed_runs_are_read_as_pycocotools_does():
    rng = np.random.default_rng(0)
    for share in (0, 0.001, 0.3, 0.999, 1):
        mask = rng.random((80, 1000)) < share
        runs = _uncompress(encode(mask)['counts'])
        assert sum(runs) == mask.size
        again = rle.frPyObjects(dict(counts=runs, size=[80, 1000]), 80, 1000)
        assert (rle.decode(again) == mask).all()


@pytest.mark.parametrize(
    'counts', ['', 'oooooooo0', '\ud800', 'P', '/0', 'x0']
)
def test_damaged_runs(counts):
    assert min(_uncompress(counts)) < 0


@pytest.mark.parametrize(
    ('segmentation', 'kind'),
    [
        (dict(size=[80, 100], counts='04'), 'segmentation'),
        (dict(size=[80, 100], counts='\ud800'), 'segmentation'),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], 'far_point'),
    ],
)
def test_masks_that_would_crash(coco, segmentation, kind):
    file = coco / 'annotations/instances_train.json'
    content = json.loads(file.read_text())
    content['annotations'][0]['segmentation'] = segmentation
    found = right_coco(content, str(file), str(coco / 'train'))
    kinds = {finding.kind for finding in found.findings}
    assert kind in kinds


@pytest.fixture
def labels(tmp_path):
    """A function that writes one image and its label map."""

    def write(label_map: Image.Image | None, **dataset):
        for folder in ('images', 'annotations'):
            for split in ('training', 'validation'):
                (tmp_path / folder / split).mkdir(parents=True)
        image = Image.fromarray(np.full((40, 50), 9, np.uint8))  # grayscale
        image.save(tmp_path / 'images/training/a.jpg')
        if label_map is not None:
            label_map.save(tmp_path / 'annotations/training/a.png')
        cfg = Config.fromfile(CONFIGS / 'fpn_mobilemamba_t2_camvid.py')
        init_default_scope('mmseg')
        cfg.train_dataloader.dataset.update(
            data_root=str(tmp_path), pipeline=cfg.test_pipeline, **dataset
        )
        check_datasets(cfg, ('train',))
        return DATASETS.build(cfg.train_dataloader.dataset)[0]

    return write


def numbers(dtype=np.uint8) -> np.ndarray:
    """Labels 0 (ignore) to 11 in columns."""
    return np.tile((np.arange(50) % 12).astype(dtype), (40, 1))


def palette() -> Image.Image:
    image = Image.fromarray(numbers())
    image.putpalette(list(range(255, -1, -1)) * 3)
    return image


@pytest.mark.parametrize(
    'label_map',
    [
        Image.fromarray(numbers()),
        Image.fromarray(numbers(np.uint16)),
        palette(),
    ],
    ids=['8 bit', '16 bit', 'palette'],
)
@pytest.mark.slow
def test_label_maps(labels, label_map):
    sample = labels(label_map)
    assert sample['inputs'].shape[0] == 3
    read = sample['data_samples'].gt_sem_seg.data[0].numpy()
    expected = numbers().astype(int) - 1
    expected[expected < 0] = 255
    assert np.array_equal(read, expected)


@pytest.mark.parametrize(
    'label_map, message',
    [
        (None, '1 of the 1 images .* have no label map in .*: a.jpg'),
        (
            Image.fromarray(numbers()).convert('RGB'),
            'a.png is RGB, a picture of 3 channels',
        ),
        (
            Image.fromarray(numbers(np.uint16) + 300),
            'labels 300, 301, 302 and 9 more; the 11 classes .* are 1 to 11',
        ),
        (Image.fromarray(numbers() + 1), 'has the labels 12; the 11 classes'),
    ],
    ids=['missing', 'colours', '16 bit too high', 'too high'],
)
@pytest.mark.slow
def test_label_maps_that_cannot_serve(labels, label_map, message):
    with pytest.raises(DatasetError, match=message):
        labels(label_map)
