"""Pictures: what is drawn lies where the objects are."""

import warnings

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from mmengine.visualization import Visualizer

from mmmamba import openmmlab
from mmmamba.openmmlab import visualizer as change

HEIGHT, WIDTH = 90, 120
CENTRE = slice(35, 55)


@pytest.fixture
def photo():
    return np.random.RandomState(0).randint(
        0, 256, (HEIGHT, WIDTH, 3), np.uint8
    )


@pytest.mark.parametrize('past', [0, 0.1, 5])
def test_photo_stays_in_place(photo, past):
    visualizer = Visualizer()
    visualizer.set_image(photo)
    # Up to a pixel from the photo before matplotlib 3.11, as it rounds.
    before = visualizer.get_image()
    box = torch.tensor([[2, 2, WIDTH + past, HEIGHT + past]])
    visualizer.draw_bboxes(box, edge_colors='r')
    drawn = visualizer.get_image()
    assert drawn.shape == photo.shape
    assert (drawn[CENTRE, CENTRE] == before[CENTRE, CENTRE]).all()
    assert (drawn != before).any()


@pytest.mark.parametrize('texts', ['\u24b6', ['cell', 'cell \u24b6']])
def test_letters_of_another_font(photo, monkeypatch, texts):
    """STIX, which matplotlib brings, stands for a Chinese font."""
    change._font.cache_clear()
    monkeypatch.setattr(change, '_FONTS', ('No Such Font', 'STIXGeneral'))
    monkeypatch.setattr(change, '_FIRST_LETTER', '\u24b6')
    visualizer = Visualizer()
    visualizer.set_image(photo)
    positions = torch.tensor([[10, 40], [10, 60]])[: len(texts)]
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # 'Glyph 9398 missing from font(s)'
        visualizer.draw_texts(texts, positions)
        visualizer.get_image()
    change._font.cache_clear()


@pytest.mark.slow
def test_each_object_appears_once(photo):
    """mmdet draws masks over a copy of what is drawn already."""
    from mmdet.structures import DetDataSample
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dict(classes=('a',), palette=[(255, 0, 0)])
    mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 70:, 80:] = True
    sample = DetDataSample(
        pred_instances=InstanceData(
            bboxes=torch.tensor([[80, 70, WIDTH + 4.0, HEIGHT + 3.0]]),
            labels=torch.tensor([0]),
            scores=torch.tensor([0.9]),
            masks=mask,
        )
    )
    visualizer.add_datasample('a', photo, sample, draw_gt=False)
    drawn = visualizer.get_image()
    # Nothing left of and above the mask, its box and the text changes.
    assert (drawn[:60, :70] == photo[:60, :70]).all()


def test_foreign_set_image_is_left_alone(monkeypatch):
    openmmlab.uninstall()
    assert Visualizer.set_image is change._mmengine_set_image
    assert Visualizer.draw_texts is change._mmengine_draw_texts

    def foreign(self, image):
        pass

    with monkeypatch.context() as patch:
        patch.setattr(Visualizer, 'set_image', foreign)
        openmmlab.install()
        assert Visualizer.set_image is foreign
        openmmlab.uninstall()
    openmmlab.install()
    assert Visualizer.set_image is change.set_image
