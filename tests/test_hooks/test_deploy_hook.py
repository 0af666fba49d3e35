"""Tests of mmmamba/hooks/deploy_hook.py."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.hooks import SwitchToDeployHook

TINY = dict(base='t2', channels=(16, 24, 32), depths=(1, 1, 1))


def make_runner(train_loop, *hooks) -> SimpleNamespace:
    """What the hook needs of a runner; ``train_loop`` as mmengine has it."""
    model = nn.Sequential(
        MobileMamba(TINY), nn.Conv2d(32, 4, 1), nn.BatchNorm2d(4)
    )
    return SimpleNamespace(model=model, _train_loop=train_loop, hooks=hooks)


@pytest.mark.parametrize('stage', ['before_val', 'before_test'])
@pytest.mark.parametrize('train_loop', [None, dict(max_epochs=1)])
def test_deploys_what_is_not_trained(stage, train_loop):
    """A config that could train has its loop as a dict."""
    runner = make_runner(train_loop)
    for _ in range(2):  # a test after a validation
        getattr(SwitchToDeployHook(), stage)(runner)
        assert runner.model[0].deploy
        assert isinstance(runner.model[2], nn.Identity)


def test_fewer_bits():
    runner = make_runner(None)
    SwitchToDeployHook(dtype='int8').before_test(runner)
    dtypes = {p.dtype for p in runner.model[0].parameters()}
    assert torch.int8 in dtypes


@pytest.mark.parametrize('stage', ['before_val', 'before_test'])
def test_leaves_training_alone(stage):
    runner = make_runner(object.__new__(EpochBasedTrainLoop))
    getattr(SwitchToDeployHook(), stage)(runner)
    assert not runner.model[0].deploy
    assert isinstance(runner.model[2], nn.BatchNorm2d)
    assert runner.model.train()[0](torch.rand(2, 3, 128, 96))[2].requires_grad


def test_averaged_weights_are_refused():
    runner = make_runner(None, EMAHook())
    with pytest.raises(RuntimeError, match='Test without EMAHook'):
        SwitchToDeployHook().before_test(runner)
    assert not runner.model[0].deploy
