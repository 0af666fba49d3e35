"""Photos of any format are read, and drawn at a modest size."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData
from mmengine.visualization import Visualizer
from PIL import Image, features

from mmmamba.utils.pictures import (
    PictureError,
    _middle_of_longest_row,
    draw_fast,
    fit,
    read_image,
)


def photo(height, width):
    rng = np.random.RandomState(0)
    return rng.randint(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('a.jpg', 'JPEG'),
        ('a.jfif', 'JPEG'),
        ('no_suffix', 'PNG'),
        ('wrong.txt', 'BMP'),
        ('a.gif', 'GIF'),
        ('a.ico', 'ICO'),  # of Pillow alone
        pytest.param(
            *('a.jp2', 'JPEG2000'),
            marks=pytest.mark.skipif(
                not features.check('jpg_2000'), reason='Pillow has no JPEG2000'
            ),
        ),
        pytest.param(
            *('a.avif', 'AVIF'),
            marks=pytest.mark.skipif(
                not features.check('avif'), reason='Pillow has no AVIF'
            ),
        ),
    ],
)
def test_formats(name, kind, tmp_path):
    image = Image.new('RGB', (32, 16), (255, 0, 0))
    image.save(tmp_path / name, kind)
    found = read_image(tmp_path / name)
    assert found.dtype == np.uint8
    assert found.shape[2] == 3
    b, g, r = found.mean((0, 1))
    assert r > 200
    assert max(b, g) < 60


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'TIFF', 'WEBP'])
def test_photo_is_turned_as_it_says(kind, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new('RGB', (32, 16)).save(tmp_path / 'a', kind, exif=exif)
    assert read_image(tmp_path / 'a').shape == (32, 16, 3)


@pytest.mark.parametrize(
    ('data', 'reason'),
    [
        (b'', 'the file is empty'),
        (b'some text', 'no format that OpenCV or Pillow knows'),
        (b'\x89PNG\r\n\x1a\n' + b'\0' * 40, 'no format|damaged'),
        (None, 'No such file'),
    ],
    ids=['empty', 'text', 'damaged', 'missing'],
)
def test_reason_is_given(data, reason, tmp_path):
    if data is not None:
        (tmp_path / 'a').write_bytes(data)
    with pytest.raises(PictureError, match=reason):
        read_image(tmp_path / 'a')


@pytest.mark.parametrize(
    ('size', 'max_size', 'expected'),
    [
        ((4000, 3000), 1600, (1600, 1200)),
        ((300, 4800), 1600, (100, 1600)),
        ((1600, 1200), 1600, (1600, 1200)),
        ((4000, 3000), 0, (4000, 3000)),
        ((9000, 1), 10, (10, 1)),
    ],
)
def test_size(size, max_size, expected):
    assert fit(*size, max_size) == expected


def detection(bboxes, masks):
    from mmdet.structures import DetDataSample

    return DetDataSample(
        pred_instances=InstanceData(
            bboxes=bboxes,
            labels=torch.tensor([0, 0]),
            scores=torch.tensor([0.9, 0.1]),
            masks=masks,
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize('own_class', [False, True])
def test_objects_shrink_with_the_photo(own_class, monkeypatch):
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmdet.visualization import DetLocalVisualizer

    shown = []
    monkeypatch.setattr(
        DetLocalVisualizer,
        'add_datasample',
        lambda self, name, image, sample, **_: shown.append((image, sample)),
    )
    visualizer = DetLocalVisualizer()
    draw_fast(visualizer, 50)
    bboxes = torch.tensor([[10.0, 20, 60, 40], [0, 0, 5, 5]])
    masks = torch.zeros(2, 60, 100, dtype=torch.bool)
    masks[0, 20:40, 10:60] = True
    if own_class:
        bboxes = HorizontalBoxes(bboxes)
        masks = BitmapMasks(masks.numpy().astype(np.uint8), 60, 100)
    sample = detection(bboxes, masks)
    visualizer.add_datasample('a', photo(60, 100), sample, pred_score_thr=0.3)

    ((image, small),) = shown
    assert image.shape == (30, 50, 3)
    found = small.pred_instances
    assert len(found) == 1  # the other is not drawn
    boxes = found.bboxes.tensor if own_class else found.bboxes
    assert boxes.tolist() == [[5, 10, 30, 20]]
    mask = found.masks
    if own_class:
        mask = mask.to_tensor(torch.bool, 'cpu')
    expected = torch.zeros(1, 30, 50, dtype=torch.bool)
    expected[0, 10:20, 5:30] = True
    assert torch.equal(mask, expected)
    # What the evaluator sees stays as it is.
    assert sample.pred_instances.bboxes is bboxes
    assert sample.pred_instances.masks is masks


@pytest.mark.slow
@pytest.mark.parametrize(('max_size', 'expected'), [(50, 50), (0, 100)])
def test_label_maps_shrink_with_the_photo(max_size, expected):
    from mmseg.structures import SegDataSample
    from mmseg.visualization import SegLocalVisualizer

    visualizer = SegLocalVisualizer(alpha=1.0)
    visualizer.dataset_meta = dict(
        classes=('a', 'b'), palette=[[0, 0, 0], [9, 99, 199]]
    )
    draw_fast(visualizer, max_size)
    labels = torch.zeros(1, 60, 100, dtype=torch.int64)
    labels[..., 50:] = 1
    sample = SegDataSample()
    sample.pred_sem_seg = PixelData(data=labels)
    sample.seg_logits = PixelData(data=torch.zeros(2, 60, 100))
    visualizer.add_datasample('a', photo(60, 100), sample, draw_gt=False)
    drawn = visualizer.get_image()
    assert drawn.shape[1] == expected
    assert drawn[-1, -1].tolist() == [9, 99, 199]
    assert drawn[-1, expected // 2 - 1].tolist() == [0, 0, 0]


def test_masks_look_as_those_of_mmengine():
    image = photo(40, 60)
    masks = np.zeros((2, 40, 60), bool)
    masks[0, :20, :30] = masks[1, 10:, 20:] = True
    colors = [(255, 0, 0), (0, 90, 200)]
    drawn = []
    for fast in (False, True):
        visualizer = Visualizer()
        if fast:
            draw_fast(visualizer, 0)
        visualizer.set_image(image)
        visualizer.draw_binary_masks(masks, colors=colors, alphas=0.8)
        drawn.append(visualizer.get_image().astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 2
    assert np.abs(drawn[0] - image).max() > 50


@pytest.mark.slow
def test_names_stand_where_mmseg_writes_them():
    from mmseg.visualization import SegLocalVisualizer

    rng = np.random.RandomState(0)
    for _ in range(5):
        mask = (rng.rand(20, 30) < 0.3).astype(np.uint8)
        expected = SegLocalVisualizer()._get_center_loc(mask)
        assert _middle_of_longest_row(mask).tolist() == expected.tolist()
