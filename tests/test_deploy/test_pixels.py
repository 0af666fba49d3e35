"""From a photo to the input of a model, and back, without a model."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmmamba.deploy import pixels
from mmmamba.export.facts import Facts, image_shape, resizing, resizing_to


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
    ],
    ids=['edge', 'squashed', 'squashed and cropped'],
)
@pytest.mark.parametrize('open_size', [False, True])
def test_classifiers_see_what_the_pipeline_gives(steps, open_size):
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
    known = facts(
        task='classification',
        shape=None if open_size else list(image_shape(cfg)),
        resize=resizing(cfg),
    )
    if open_size and 'crop' not in known.resize:
        pytest.skip('the size is then that of the image')
    found, _ = pixels.prepare(image, known)
    np.testing.assert_array_equal(found.transpose(1, 2, 0), results['img'])


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
