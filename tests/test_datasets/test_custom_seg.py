"""Tests of mmmamba/datasets/segmentation.py and of the labels' check."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

pytest.importorskip('mmseg')
pytest.importorskip('mmmamba.datasets.segmentation')

from mmmamba.datasets import DatasetError, inspect_datasets  # noqa: E402

pytestmark = pytest.mark.slow
CLASSES = ('ground', 'crop', 'weed')


@pytest.fixture(autouse=True)
def mmseg_scope():
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield


@pytest.fixture
def root(tmp_path):
    """Twelve images with label maps of the three classes."""
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
    for i in range(12):
        pixels = np.full((40, 60, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{i:02}.jpg')
        write_map(tmp_path, i, (0, 1, 2))
    return tmp_path


def write_map(root: Path, i: int, labels: tuple[int, ...]) -> None:
    columns = np.resize(np.array(labels, np.uint8), 60)
    Image.fromarray(np.tile(columns, (40, 1))).save(root / f'maps/{i:02}.png')


def config(root: Path, **options) -> dict:
    return dict(
        type='CustomSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
        **options,
    )


def names(dataset) -> list[tuple[str, str]]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [
        (Path(d['img_path']).name, Path(d['seg_map_path']).name) for d in infos
    ]


def found(root: Path, **options) -> dict[str, str]:
    """The severity of each kind of finding, and its message."""
    model = dict(decode_head=dict(num_classes=3))
    loader = dict(dataset=config(root, **options))
    cfg = Config(dict(model=model, train_dataloader=loader))
    report = inspect_datasets(cfg, ('train',))
    return {f'{f.severity} {f.kind}': f.message for f in report.findings}


def test_good_data(root):
    assert not found(root)
    dataset = DATASETS.build(config(root))
    assert names(dataset) == [
        (f'{i:02}.jpg', f'{i:02}.png') for i in range(12)
    ]


def test_mixed_suffixes(root):
    images = root / 'images'
    for i, suffix in enumerate(('.JPG', '.png', '.PNG', '.jpeg', '.tif')):
        image = Image.open(images / f'{i:02}.jpg')
        (images / f'{i:02}.jpg').unlink()
        image.save(images / f'{i:02}{suffix}')
    (images / 'notes.txt').write_text('not an image')
    assert len(DATASETS.build(config(root))) == 12
    assert not found(root)


@pytest.mark.parametrize(
    'text',
    [
        '03\n01\n',
        'images/03\n01.JPG',
        '03\r\n01\r\n\r\n',
        '\ufeff03.jpg\nimages\\01.jpg',
    ],
)
def test_split_lists(root, text):
    (root / 'train.txt').write_bytes(text.encode())
    dataset = DATASETS.build(config(root, ann_file='train.txt'))
    assert names(dataset) == [('03.jpg', '03.png'), ('01.jpg', '01.png')]


def test_a_split_list_of_missing_images(root):
    (root / 'train.txt').write_text('03\nother\n')
    with pytest.raises(DatasetError, match='1 of the 2 images .*: other'):
        DATASETS.build(config(root, ann_file='train.txt'))


def test_a_split_list_of_two_images_that_are_one_file(root):
    (root / 'train.txt').write_text('x/03.jpg\ny/03.jpg\n')
    with pytest.raises(DatasetError, match='lists x/03.jpg and y/03.jpg'):
        DATASETS.build(config(root, ann_file='train.txt'))


@pytest.mark.parametrize('with_list', [False, True])
def test_every_label_map_is_read(root, with_list):
    write_map(root, 11, (0, 1, 7))
    options = {}
    if with_list:
        lines = [f'{i:02}' for i in range(12)]
        (root / 'train.txt').write_text('\n'.join(lines))
        options = dict(ann_file='train.txt')
    message = found(root, **options)['error label_too_high']
    assert '11.png has the labels 7; the 3 classes' in message


@pytest.mark.parametrize('labels', [(0, 255), (255, 0, 0)])
def test_masks_of_0_and_255(root, labels):
    for i in range(12):
        write_map(root, i, labels)
    assert 'Write 1 instead of 255' in found(root)['error mask_0_255']


def test_palettes_that_differ(root):
    """A color is another label in each file, as optimizers write them."""
    for i, order in enumerate(([0, 1, 2], [1, 0, 2])):
        file = root / f'maps/{i:02}.png'
        with Image.open(file) as image:
            labels = np.asarray(image)
        colors = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], np.uint8)
        image = Image.fromarray(labels)
        image.putpalette(colors[order].ravel().tolist())
        image.save(file)
    message = found(root)['warning palettes']
    assert '0 is (0, 0, 0) in' in message
    assert 'prepare.py reads that' in message


def test_masks_of_grey_levels(root):
    for i in range(12):
        write_map(root, i, (0, 127, 254))
    assert 'prepare.py numbers them' in found(root)['error label_too_high']


def test_zero_that_is_a_class(root):
    """``reduce_zero_label`` would make the first class "ignore"."""
    kinds = found(root, reduce_zero_label=True)
    assert 'reduce_zero_label=False' in kinds['error reduce_zero_label']
    for i in range(12):
        write_map(root, i, (0, 1, 2, 3))
    assert not found(root, reduce_zero_label=True)


def test_maps_of_ignore_alone(root):
    for i in range(12):
        write_map(root, i, (255,))
    assert list(found(root)) == ['error nothing_left']


def test_a_map_of_another_size(root):
    Image.new('L', (30, 20)).save(root / 'maps/07.png')
    message = '07.png is 30x20, its image 60x40'
    assert message in found(root)['error map_size']
    with pytest.raises(DatasetError, match=message):
        DATASETS.build(config(root))


def test_a_missing_map(root):
    (root / 'maps/05.png').unlink()
    assert '05.jpg' in found(root)['error missing_map']


def test_images_that_share_a_map(root):
    shutil.copy(root / 'images/05.jpg', root / 'images/05.jpeg')
    assert '1 images' in found(root)['error shared_map']


def test_a_truncated_image(root):
    path = root / 'images/03.jpg'
    noise = np.random.RandomState(0).randint(255, size=(40, 60, 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    assert '03.jpg (truncated' in found(root)['error broken_image']


@pytest.mark.parametrize('orientation', [6, 8])
def test_photos_that_exif_turns(root, orientation):
    pixels = np.random.RandomState(0).randint(255, size=(40, 60, 3))
    image = Image.fromarray(pixels.astype(np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(root / 'images/00.jpg', exif=exif, quality=95)
    options = config(root)
    options['pipeline'] = [dict(type='LoadImageFromFile')]
    assert DATASETS.build(options)[0]['img'].shape == (40, 60, 3)
    assert list(found(root)) == ['info exif']
