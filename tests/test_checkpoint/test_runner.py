"""A runner's own checkpoint is read safely, and resumes."""

import logging

import numpy as np
import pytest
import torch
from checkpoints import assert_holds, needs_safe_globals
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OneCycleLR
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

from mmmamba.checkpoint import load_from_local


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode):
        """Return a loss."""
        return dict(loss=self.linear(torch.stack(inputs)).square().mean())


class RecordNumPy(Hook):
    """Leave in the message hub what evaluators and hooks leave there."""

    VALUES = dict(
        best=np.float64(0.25),
        rank=np.float32(0.5),
        count=np.int64(7),
        found=np.bool_(True),
        curve=np.linspace(0, 1, 5),
        counts=np.arange(4, dtype=np.uint8),
    )

    def after_train_iter(self, runner, *args, **kwargs):
        for name, value in self.VALUES.items():
            runner.message_hub.update_info(name, value)


@pytest.fixture
def make_runner(tmp_path):
    """Build small runners; forget the global instances they leave."""
    managers = (DefaultScope, MessageHub, MMLogger, Visualizer)
    saved = [manager._instance_dict.copy() for manager in managers]

    def make_runner(max_iters, resume):
        return Runner(
            ToyModel(),
            str(tmp_path),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=[dict(inputs=torch.ones(2))] * 4,
                sampler=dict(type='InfiniteSampler', seed=0),
            ),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1)
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=4),
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', by_epoch=False),
            ),
            custom_hooks=[RecordNumPy(), dict(type='EMAHook')],
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}_{max_iters}',
            log_level='ERROR',
            resume=resume,
        )

    yield make_runner
    for manager, instances in zip(managers, saved):
        for name, instance in manager._instance_dict.items():
            if name in instances:
                continue  # of another test, which may still be written to
            for handler in getattr(instance, 'handlers', []):
                if isinstance(handler, logging.FileHandler):
                    handler.close()
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


@needs_safe_globals
def test_runner_checkpoint_loads_and_resumes(make_runner, tmp_path):
    runner = make_runner(max_iters=2, resume=False)
    runner.train()
    path = tmp_path / 'iter_2.pth'

    checkpoint = load_from_local(path)
    # The EMA hook saves its average as the state dict, and the weights
    # proper, which the run goes on with, apart.
    weights = checkpoint['ema_state_dict']
    assert weights.pop('steps') == 2
    assert_holds(
        runner.model,
        {n.removeprefix('module.'): t for n, t in weights.items()},
    )
    assert checkpoint['state_dict'].keys() == runner.model.state_dict().keys()
    assert checkpoint['optimizer']['state'][0]['step'] == 2
    hub = checkpoint['message_hub']
    loss = hub['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    for ours, theirs in zip(
        loss.data, runner.message_hub.get_scalar('train/loss').data
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert loss.statistics('mean') == loss.mean()
    for name, value in RecordNumPy.VALUES.items():
        np.testing.assert_array_equal(hub['runtime_info'][name], value)
        assert type(hub['runtime_info'][name]) is type(value)

    resumed = make_runner(max_iters=3, resume=True)
    resumed.train()
    assert resumed.iter == 3
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 3


@needs_safe_globals
def test_one_cycle_schedule_can_be_resumed(save):
    """Its state names a method, unlike that of mmengine's other ones."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1, 0.9)
    schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10)
    state = schedule.state_dict()
    path = save(dict(param_schedulers=[state]))
    assert load_from_local(path)['param_schedulers'] == [state]
