"""Tests of mmmamba/datasets/detection.py: what training and metric use."""

import copy
import json
import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS, METRICS, DefaultScope
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

pytest.importorskip('mmdet')
pytest.importorskip('mmmamba.datasets.detection')
from mmdet.structures import DetDataSample  # noqa: E402

from mmmamba.datasets import DatasetError  # noqa: E402
from mmmamba.datasets.images import Folder, decode  # noqa: E402

pytestmark = pytest.mark.slow
CLASSES = ('cat', 'dog', 'bird')
BOXES = ([4, 6, 20, 10], [30.5, 10, 12, 25.5], [1, 1, 50, 30])


@pytest.fixture(autouse=True)
def mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def coco_file(names=CLASSES, ids=(1, 2, 3)) -> dict:
    """Four images with an object of each class."""
    id_of = dict(zip(names, ids))
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=60, height=40)
            for i in range(4)
        ],
        categories=[dict(id=i, name=n) for n, i in id_of.items()],
        annotations=[
            dict(
                id=3 * image + n + 1,
                image_id=image,
                category_id=id_of[name],
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=0,
            )
            for image in range(4)
            for n, (name, box) in enumerate(zip(CLASSES, BOXES))
        ],
    )


class Data:
    """A data set on disk, and the metric against it."""

    def __init__(self, root: Path, content: dict, **options) -> None:
        (root / 'images').mkdir()
        for i in range(4):
            image = Image.fromarray(np.full((40, 60, 3), 50 * i, np.uint8))
            image.save(root / f'images/{i}.png')
        self.file = root / 'val.json'
        self.file.write_text(json.dumps(content))
        self.config = dict(
            type='CustomCocoDataset',
            ann_file=str(self.file),
            data_prefix=dict(img=f'{root}/images/'),
            metainfo=dict(classes=CLASSES),
            pipeline=[],
            **options,
        )

    def build(self) -> BaseDataset:
        return DATASETS.build(self.config)

    def ap_of_perfect_model(self, **options) -> dict[str, float]:
        """AP of predictions that are the boxes of :data:`BOXES`."""
        dataset = self.build()
        config = dict(type='CustomCocoMetric', ann_file=str(self.file))
        metric = METRICS.build(config | options)
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            left, top, width, height = torch.tensor(BOXES).unbind(1)
            sample = DetDataSample(
                metainfo=dict(img_id=info['img_id'], ori_shape=(40, 60)),
                pred_instances=InstanceData(
                    bboxes=torch.stack(
                        (left, top, left + width, top + height), 1
                    ),
                    scores=torch.ones(3),
                    labels=torch.arange(3),
                ),
            )
            metric.process({}, [sample.to_dict()])
        return metric.evaluate(len(dataset))


ORDERS = [
    coco_file(),
    coco_file(names=('bird', 'cat', 'dog')),
    coco_file(ids=(3, 1, 2)),
    coco_file(names=('dog', 'bird', 'cat'), ids=(40, 0, 7)),
]


@pytest.mark.parametrize('content', ORDERS)
def test_labels_follow_names(tmp_path, content):
    data = Data(tmp_path, content)
    for index in range(4):
        instances = data.build().get_data_info(index)['instances']
        labels = {tuple(i['bbox'][:2]): i['bbox_label'] for i in instances}
        assert labels == {tuple(b[:2]): n for n, b in enumerate(BOXES)}
    assert data.ap_of_perfect_model()['coco/bbox_mAP'] == 1.0


def test_a_perfect_model_scores_1_with_ids_from_0(tmp_path):
    """pycocotools takes the object of id 0 for missed."""
    content = coco_file()
    for n, annotation in enumerate(content['annotations']):
        annotation['id'] = n
    plain = COCO()
    plain.dataset = copy.deepcopy(content)
    plain.createIndex()
    predictions = [
        dict(
            score=1.0,
            **{k: a[k] for k in ('image_id', 'category_id', 'bbox')},
        )
        for a in content['annotations']
    ]
    evaluation = COCOeval(plain, plain.loadRes(predictions), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] < 1.0
    data = Data(tmp_path, content)
    assert data.ap_of_perfect_model()['coco/bbox_mAP'] == 1.0


def ignore_one(content):
    content['annotations'][0]['ignore'] = 1


def outside(content):
    content['annotations'].append(
        dict(content['annotations'][0], id=99, bbox=[90, 1, 10, 10])
    )


def size_zero(content):
    for image in content['images']:
        image['width'] = image['height'] = 0


def size_too_small(content):
    for image in content['images']:
        image['width'] = image['height'] = 3


def every_object_twice(content):
    for number, annotation in enumerate(list(content['annotations']), 100):
        content['annotations'].append(dict(annotation, id=number))


def no_iscrowd_no_area(content):
    for annotation in content['annotations']:
        del annotation['iscrowd'], annotation['area']


def a_class_less(content):
    content['categories'] = content['categories'][1:]
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] != 1
    ]


def spelt_twice(content):
    """Image 0 once more by another name, which has one of its objects."""
    again = dict(content['images'][0], id=9, file_name='images/0.PNG')
    content['images'].insert(1, again)
    content['annotations'][0]['image_id'] = 9


def spelt_twice_with_ids_of_text(content):
    spelt_twice(content)
    for image in content['images']:
        image['id'] = f'image {image["id"]}'
    for annotation in content['annotations']:
        annotation['image_id'] = f'image {annotation["image_id"]}'


@pytest.mark.parametrize(
    'change',
    [
        spelt_twice,
        spelt_twice_with_ids_of_text,
        ignore_one,
        outside,
        size_zero,
        size_too_small,
        every_object_twice,
        no_iscrowd_no_area,
    ],
)
def test_a_perfect_model_scores_1(tmp_path, change):
    content = coco_file()
    change(content)
    data = Data(tmp_path, content)
    assert data.ap_of_perfect_model()['coco/bbox_mAP'] == 1.0


@pytest.mark.parametrize('format_only', [False, True])
@pytest.mark.parametrize('kind', [int, 'no {}'.format])
def test_predictions_are_written_with_the_ids_of_the_file(
    tmp_path, kind, format_only
):
    content = coco_file(names=('dog', 'bird', 'cat'), ids=(90, 5, 7))
    for entry in (*content['images'], *content['categories']):
        entry['id'] = kind(entry['id'])
    for annotation in content['annotations']:
        for name in ('image_id', 'category_id'):
            annotation[name] = kind(annotation[name])
    found = Data(tmp_path, content).ap_of_perfect_model(
        format_only=format_only, outfile_prefix=f'{tmp_path}/found'
    )
    assert format_only or found['coco/bbox_mAP'] == 1.0
    written = json.loads((tmp_path / 'found.bbox.json').read_text())
    names = ('image_id', 'category_id', 'bbox')
    assert [[p[n] for n in names] for p in written] == [
        [a[n] for n in names] for a in content['annotations']
    ]


def test_a_class_that_the_file_lacks_shifts_no_label(tmp_path):
    content = coco_file()
    a_class_less(content)
    data = Data(tmp_path, content)
    labels = [i['bbox_label'] for i in data.build()[0]['instances']]
    assert labels == [1, 2]
    assert data.ap_of_perfect_model()['coco/bbox_mAP'] == 1.0


def test_a_subset_of_the_categories(tmp_path):
    data = Data(tmp_path, coco_file())
    data.config['metainfo'] = dict(classes=('bird', 'cat'))
    instances = data.build()[0]['instances']
    assert [i['bbox_label'] for i in instances] == [1, 0]


@pytest.mark.parametrize('filter_empty_gt, used', [(False, 4), (True, 3)])
def test_images_without_objects(tmp_path, filter_empty_gt, used):
    content = coco_file()
    content['annotations'] = content['annotations'][3:]
    data = Data(
        *(tmp_path, content),
        filter_cfg=dict(filter_empty_gt=filter_empty_gt, min_size=1),
    )
    dataset = data.build()
    assert len(dataset) == used
    assert (dataset.listed_images, dataset.empty_images) == (4, 1)


@pytest.mark.parametrize('content', ORDERS)
def test_each_class_has_its_own_precision(tmp_path, content):
    """Whatever the order and ids of the file, and what it lacks."""
    data = Data(tmp_path, content)
    data.config['metainfo'] = dict(classes=('bird', 'unknown', 'cat', 'dog'))
    dataset = data.build()
    metric = METRICS.build(
        dict(type='CustomCocoMetric', ann_file=str(data.file), classwise=True)
    )
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        left, top, width, height = BOXES[CLASSES.index('dog')]
        sample = DetDataSample(
            metainfo=dict(img_id=info['img_id'], ori_shape=(40, 60)),
            pred_instances=InstanceData(
                bboxes=torch.tensor([[left, top, left + width, top + height]]),
                scores=torch.ones(1),
                labels=torch.tensor([3]),
            ),
        )
        metric.process({}, [sample.to_dict()])
    found = metric.evaluate(len(dataset))
    assert found['coco/dog_precision'] == 1.0
    assert found['coco/cat_precision'] == found['coco/bird_precision'] == 0
    assert np.isnan(found['coco/unknown_precision'])


def test_errors_are_raised_in_mmdets_own_tools_too(tmp_path):
    content = coco_file()
    content['annotations'][0]['bbox'] = [20, 20, -10, -10]
    with pytest.raises(DatasetError, match='negative width or height'):
        Data(tmp_path, content).build()


@pytest.mark.parametrize('orientation', [6, 8])
def test_pixels_are_loaded_as_annotated(tmp_path, orientation):
    """A photo that EXIF turns, annotated on its stored pixels."""
    data = Data(tmp_path, coco_file())
    pixels = np.random.RandomState(0).randint(255, size=(40, 60, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(tmp_path / 'images/0.png', exif=exif)
    data.config['pipeline'] = [dict(type='LoadImageFromFile')]
    dataset = data.build()
    loaded = dataset[0]
    # As mmdet's PipelineSwitchHook does it.
    dataset.pipeline = Compose(data.config['pipeline'])
    np.testing.assert_array_equal(dataset[0]['img'], loaded['img'])
    assert loaded['img_shape'] == loaded['ori_shape'] == (40, 60)
    assert np.array_equal(loaded['img'][..., ::-1], pixels)


@pytest.mark.parametrize('kind', ['png', 'tiff', 'webp'])
def test_the_size_is_that_of_the_loaded_pixels(tmp_path, kind):
    """OpenCV turns all of them but WebP."""
    file = tmp_path / f'a.{kind}'
    image = Image.new('RGB', (60, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(file, exif=exif)
    data = np.fromfile(file, np.uint8)
    size = decode(file)
    for shape, flag in (
        ((size.height, size.width), cv2.IMREAD_COLOR),
        (size.stored[::-1], cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION),
    ):
        assert cv2.imdecode(data, flag).shape[:2] == shape


def test_a_damaged_png_is_found(tmp_path):
    file = tmp_path / 'a.png'
    pixels = np.random.RandomState(0).randint(255, size=(40, 60, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    assert 'not an image that can be read' in decode(file)


@pytest.mark.parametrize(
    'kind', ['float32 TIFF', 'int32 TIFF', 'PNG without its end']
)
def test_what_opencv_cannot_decode_is_found(tmp_path, kind):
    """Pillow can, but training would stumble over it."""
    file = tmp_path / f'a.{"png" if "PNG" in kind else "tif"}'
    pixels = np.random.RandomState(0).randint(255, size=(40, 60))
    dtype = dict(f=np.float32, i=np.int32, P=np.uint8)[kind[0]]
    Image.fromarray(pixels.astype(dtype)).save(file)
    if kind[0] == 'P':
        file.write_bytes(file.read_bytes()[:-12])
    data = np.fromfile(file, np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR) is None
    assert 'that OpenCV cannot decode' in decode(file)


@pytest.mark.parametrize('kind', ['png', 'tiff'])
@pytest.mark.parametrize('shape', [(40, 60), (40, 60, 3)])
@pytest.mark.parametrize(
    'top, dtype, dark',
    [
        (4095, np.uint16, True),
        (65535, np.uint16, False),
        (0, np.uint16, True),
        (15, np.uint8, False),
    ],
)
def test_16_bits_that_hold_fewer_are_found(
    tmp_path, kind, shape, top, dtype, dark
):
    """OpenCV loads 4095 of 65535 as 15 of 255."""
    file = tmp_path / f'a.{kind}'
    pixels = np.zeros(shape, dtype)
    pixels[3, 5] = top
    assert cv2.imwrite(str(file), pixels)
    assert decode(file).dark == dark
    assert (cv2.imread(str(file)).max() < 64) == (top < 16384)


def test_a_name_that_is_not_utf8(tmp_path):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b'/caf\xe9.jpg'))
    Image.new('RGB', (60, 40)).save(file)
    assert decode(file) == 'its name is not UTF-8; rename it'


def test_names_that_differ_in_case(tmp_path):
    for name in ('aB.jpg', 'ab.jpg'):
        (tmp_path / name).write_bytes(b'')
    folder = Folder(tmp_path)
    for name in ('aB.jpg', 'ab.jpg'):
        assert folder.find(f'images/{name}') == name
    assert folder.find('AB.jpg') is None


def test_names_in_other_spellings(tmp_path):
    """macOS writes the dots of umlauts apart."""
    name = unicodedata.normalize('NFD', 'Bär 1.JPG')
    (tmp_path / name).write_bytes(b'')
    folder = Folder(tmp_path)
    for other in ('Bär 1.JPG', 'bär 1.jpg', 'x/B%C3%A4r%201.jpg'):
        assert folder.find(other) == name


def test_names_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/a.jpg').write_bytes(b'')
    for folder in (Folder(''), Folder(tmp_path / 'x')):
        for name in ('x/a.jpg', f'{tmp_path}/x/a.jpg'):
            found = os.path.join(folder.path, folder.find(name))
            assert os.path.samefile(found, 'x/a.jpg')


def test_linked_folders_are_walked_once(tmp_path):
    (tmp_path / 'a.jpg').write_bytes(b'')
    (tmp_path / 'loop').symlink_to('.')
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/b.jpg').write_bytes(b'')
    (tmp_path / 'y').symlink_to('x')
    folder = Folder(tmp_path)
    assert folder.names == ['a.jpg', 'x/b.jpg']
    assert folder.find('loop/a.jpg') == 'a.jpg'
    assert folder.find('y/b.jpg') == 'y/b.jpg'
