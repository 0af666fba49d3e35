"""Classifiers and batches for the tests of mmmamba/classifiers."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from mmpretrain.structures import DataSample

from mmmamba.classifiers import MobileMambaClsHead  # noqa: F401

MINI = dict(channels=(16, 24, 32), depths=(1, 1, 1))


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


@pytest.fixture
def build():
    """Build a mini classifier of three classes; settings may be added."""

    def build(head=(), **settings):
        config = dict(
            type='ImageClassifier',
            backbone=dict(type='MobileMamba', arch=MINI, out_indices=(2,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(
                type='MobileMambaClsHead',
                num_classes=3,
                loss=dict(type='CrossEntropyLoss', use_soft=True),
                **dict(head),
            ),
            data_preprocessor=dict(
                mean=[120.0, 110.0, 100.0],
                std=[60.0, 50.0, 40.0],
                to_rgb=True,
                to_onehot=True,
                num_classes=3,
            ),
        )
        torch.manual_seed(0)
        return MODELS.build(config | settings)

    return build


@pytest.fixture
def batch():
    """What a data loader gives: four BGR images of 64 px, with labels."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4, 3, 64, 64), generator=rng)
    return dict(
        inputs=list(images.to(torch.uint8)),
        data_samples=[DataSample().set_gt_label(i % 3) for i in range(4)],
    )
