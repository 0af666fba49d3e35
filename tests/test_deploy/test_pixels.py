"""From a photo to the input of a model, and back, without a model."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmmamba.deploy import pixels
from mmmamba.export.facts import (
    Facts,
    image_shape,
    resizing,
    resizing_to,
    unprepared,
)


def facts(**known):
    return SimpleNamespace(**vars(Facts(**known)))


def config(scope, *steps):
    pipeline = [dict(type='LoadImageFromFile'), *steps]
    return Config(
        dict(
            default_scope=scope,
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )


EDGE = dict(type='ResizeEdge', scale=96, edge='short')
CROP = dict(type='CenterCrop', crop_size=80)


@pytest.mark.parametrize(
    'steps',
    [
        [EDGE, CROP],
        [dict(type='Resize', scale=(96, 64))],
        [dict(type='Resize', scale=(128, 110)), CROP],
        [dict(EDGE, edge='long'), CROP],
        [dict(EDGE, edge='width')],
        [dict(EDGE, edge='height', interpolation='lanczos'), CROP],
        [dict(type='Resize', scale=(64, 96), keep_ratio=True)],
        [EDGE, dict(type='CenterCrop', crop_size=(80, 60))],
        [
            dict(EDGE, scale=60),
            dict(
                type='CenterCrop',
                crop_size=80,
                auto_pad=True,
                pad_cfg=dict(type='Pad', pad_val=dict(img=114)),
            ),
        ],
        [
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='Pad', size=(96, 96), pad_val=dict(img=(1, 2, 3))),
        ],
    ],
    ids=lambda steps: '-'.join(
        str(step.get('edge', step['type'])) for step in steps
    ),
)
@pytest.mark.parametrize('task', ['classification', 'features'])
@pytest.mark.parametrize('open_size', [False, True])
def test_classifiers_see_what_the_pipeline_gives(steps, open_size, task):
    mmpretrain = pytest.importorskip('mmpretrain')
    mmpretrain.utils.register_all_modules()
    from mmpretrain.registry import TRANSFORMS

    image = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (120, 170, 3), np.uint8),
        (9, 9),
        0,
    )
    cfg = config('mmpretrain', *steps)
    results = dict(img=image, img_shape=image.shape[:2])
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    if open_size and steps[-1]['type'] == 'Pad':
        return  # the size of the file is that of the padded image
    known = facts(
        task=task,
        shape=None if open_size else list(results['img'].shape[:2]),
        resize=resizing(cfg),
    )
    if 'crop' in known.resize:
        assert list(image_shape(cfg)) == known.resize['crop']
    found, _ = pixels.prepare(image, known)
    wanted = np.zeros_like(found.transpose(1, 2, 0))
    height, width = results['img'].shape[:2]
    wanted[:height, :width] = results['img']
    np.testing.assert_array_equal(found.transpose(1, 2, 0), wanted)


def test_pipeline_of_joined_data_sets():
    cfg = config('mmdet', dict(type='Resize', scale=(64, 32)))
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dataset, dataset]
    )
    assert resizing(cfg)['keep_ratio'] is False


def test_area_without_opencv(monkeypatch):
    """Pillow has another name for it."""
    monkeypatch.setattr(pixels, 'cv2', None)
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3) * 4
    found = pixels.resize(image, 2, 2, 'area')
    expected = image.reshape(2, 2, 2, 2, 3).mean((1, 3))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ('scope', 'step', 'named'),
    [
        ('mmdet', dict(type='Normalize', mean=[0] * 3, std=[1] * 3), True),
        ('mmdet', dict(type='mmdet.CenterCrop', crop_size=64), True),
        ('mmpretrain', dict(type='Resize', scale_factor=0.5), True),
        ('mmpretrain', CROP, False),
        ('mmseg', dict(type='ResizeToMultiple', size_divisor=32), True),
        ('mmseg', dict(type='RandomFlip', prob=0.0), False),
        ('mmseg', dict(type='RandomFlip', prob=0.5), True),
        ('mmseg', dict(type='LoadAnnotations'), False),
        ('mmseg', dict(type='PackSegInputs'), False),
        (
            'mmdet',
            dict(type='LoadImageFromFile', color_type='grayscale'),
            True,
        ),
    ],
    ids=str,
)
def test_steps_that_are_not_done_to_a_photo(scope, step, named):
    resize = dict(type='Resize', scale=(64, 64))
    kind = step['type'].split('.')[-1]
    assert unprepared(config(scope, resize, step)) == [kind] * named


def test_resizing_after_the_crop_is_not_done():
    steps = CROP, dict(type='Resize', scale=64)
    assert unprepared(config('mmpretrain', *steps)) == ['Resize']


def test_another_size_has_the_same_share_of_the_image():
    how = resizing_to(resizing(config('mmpretrain', EDGE, CROP)), (40, 40))
    assert (how['edge'], how['crop']) == (48, [40, 40])
    squash = dict(type='Resize', scale=96)
    how = resizing_to(resizing(config('mmpretrain', squash)), (40, 48))
    assert how['scale'] == [40, 48]


@pytest.mark.parametrize(
    ('scope', 'shape'), [('mmseg', (360, 480)), ('mmdet', (360, 2048))]
)
def test_segmentors_get_the_proportions_of_a_photo(scope, shape):
    step = dict(type='Resize', scale=(2048, 360), keep_ratio=True)
    assert image_shape(config(scope, step)) == shape


@pytest.mark.parametrize(
    ('how', 'value'),
    [
        ({}, [0, 0, 0]),
        (dict(pad_val=114), [114] * 3),
        (dict(pad_val=dict(img=114)), [114] * 3),
        (dict(pad_val=dict(img=(1, 2, 3))), [1, 2, 3]),
    ],
)
def test_padding_is_that_of_mmcv(how, value):
    step = dict(type='Pad', size=(64, 64), **how)
    assert resizing(config('mmdet', step))['pad_value'] == value


@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize(
    'steps',
    [
        [
            dict(type='Resize', scale=(96, 72), keep_ratio=True),
            dict(type='Pad', size=(128, 128), pad_val=dict(img=114)),
        ],
        [
            dict(type='Resize', scale=(120, 90), keep_ratio=True),
            dict(type='Pad', size=(120, 96)),
        ],
        [
            dict(type='Resize', scale=(100, 90), keep_ratio=False),
            dict(type='Pad', size_divisor=32, pad_val=dict(img=114)),
        ],
        [
            dict(
                type='Resize',
                scale=(96, 96),
                keep_ratio=True,
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='Pad', size=(96, 96)),
        ],
    ],
    ids=['larger', 'wider', 'divisor', 'pillow'],
)
def test_detectors_see_what_the_pipeline_gives(steps, turned):
    mmdet = pytest.importorskip('mmdet')
    mmdet.utils.register_all_modules()
    from mmdet.registry import TRANSFORMS

    shape = (170, 120, 3) if turned else (120, 170, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    results = dict(img=image, img_shape=image.shape[:2])
    cfg = config('mmdet', *steps)
    for step in steps:
        results = TRANSFORMS.build(step)(results)
    if results['img'].shape[:2] != image_shape(cfg):
        assert turned  # a file has one shape, and a photo is fitted into it
        return
    known = facts(
        task='detection', shape=list(image_shape(cfg)), resize=resizing(cfg)
    )
    found, size = pixels.prepare(image, known)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), results['img'])
    scale = np.array(size) / image.shape[:2]
    np.testing.assert_allclose(scale[::-1], results['scale_factor'])


def test_a_strip_keeps_a_pixel():
    known = facts(task='detection', shape=[32, 64])
    found, size = pixels.prepare(np.zeros((3, 3000, 3), np.uint8), known)
    assert found.shape == (3, 32, 64)
    assert size == (1, 64)


def test_objects_end_where_the_photo_does():
    """It fills the upper half; one box crosses its border, one is below."""
    outputs = dict(
        boxes=np.array(
            [[4, 4, 8, 8], [4, 20, 12, 50], [4, 40, 12, 60]], np.float32
        ),
        scores=np.array([0.9, 0.8, 0.7]),
        labels=np.array([0, 1, 0]),
        masks=np.ones((3, 4, 4), np.float32),
    )
    outputs['masks'][:, 2:] = 0  # the lower half of a box
    found = pixels.objects(outputs, (64, 128), (32, 64), facts())
    assert found['boxes'].tolist() == [[8, 8, 16, 16], [8, 40, 24, 64]]
    assert found['labels'].tolist() == [0, 1]
    assert found['masks'].shape == (2, 64, 128)
    # The mask fills the whole box, of rows 40 to 100.
    assert found['masks'][1][42:63, 10:22].all()


def test_logits_are_resized_corners_on_corners():
    """Where the head does so."""
    logits = np.random.default_rng(0).normal(size=(5, 7, 9)).astype('f4')
    for shape in ((20, 31), (3, 2), (7, 9), (1, 1)):
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(logits)[None],
            shape,
            mode='bilinear',
            align_corners=True,
        )[0].argmax(0)
        known = facts(align_corners=True)
        found = pixels.label_map(dict(logits=logits), shape, (7, 9), known)
        np.testing.assert_array_equal(found['label_map'], wanted)


def test_logits_of_one_class_and_of_many():
    logits = np.array([[[-2.0, -0.5]]], np.float32)  # sigmoid 0.12, 0.38
    for threshold, expected in ((0.3, [[0, 1]]), (0.5, [[0, 0]])):
        known = facts(threshold=threshold)
        found = pixels.label_map(dict(logits=logits), (1, 2), (1, 2), known)
        assert found['label_map'].tolist() == expected
    logits = np.zeros((300, 1, 2), np.float32)
    logits[299] = 1
    found = pixels.label_map(dict(logits=logits), (1, 2), (1, 2), facts())
    assert found['label_map'].tolist() == [[299, 299]]


def test_many_logits_are_resized():
    """OpenCV takes 512 channels."""
    logits = np.random.default_rng(0).normal(size=(1025, 5, 7)).astype('f4')
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], (20, 31), mode='bilinear'
    )[0].argmax(0)
    found = pixels.label_map(dict(logits=logits), (20, 31), (5, 7), facts())
    np.testing.assert_array_equal(found['label_map'], wanted)
