"""Runs that meet NaN, and runs that are resumed, on a small model."""

import copy
import os
import random
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODEL_WRAPPERS, MODELS
from mmengine.runner import Runner
from torch import nn

from mmmamba.checkpoint import CheckpointError
from mmmamba.hooks import ChannelsLastHook, NonFiniteError

pytestmark = pytest.mark.slow


@DATASETS.register_module()
class _Numbers(BaseDataset):
    """Sixteen random vectors, with noise drawn when they are read."""

    def load_data_list(self) -> list[dict]:
        rng = np.random.default_rng(0)
        return [
            dict(x=rng.normal(size=6).astype(np.float32)) for _ in range(16)
        ]

    def prepare_data(self, index: int) -> dict:
        x = self.get_data_info(index)['x']
        noise = np.random.normal(size=6) + random.random()
        return dict(x=torch.from_numpy(x + noise.astype(np.float32)))


@MODELS.register_module()
class _Net(BaseModel):
    """Batch norm, dropout and a linear layer; spoilt on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.linear = nn.Linear(6, 1)
        self.spoil = {}  # step: how
        self.step = 0

    def forward(self, x, mode='tensor'):
        if mode == 'predict':
            return list(x)
        how = self.spoil.get(self.step)
        self.step += 1
        if how == 'input':
            x = x * torch.nan
        out = self.linear(nn.functional.dropout(self.norm(x), 0.2))
        if how == 'gradient':
            out.register_hook(lambda grad: grad * torch.inf)
        loss = (out**2).mean()
        if how == 'loss':  # NaN without a non-finite gradient
            loss = loss + torch.nan
        return dict(loss=loss)


def make_runner(work_dir, hook, epochs=1, workers=0, **settings) -> Runner:
    loader = dict(
        batch_size=4,
        num_workers=workers,
        dataset=dict(type='_Numbers'),
        sampler=dict(type='DefaultSampler', shuffle=True),
        worker_init_fn=dict(type='seed_worker'),
        collate_fn=dict(type='default_collate'),
    )
    hooks = [dict(type='EMAHook', update_buffers=True, momentum=0.1)]
    config = dict(
        model=dict(type='_Net'),
        work_dir=str(work_dir),
        train_dataloader=copy.deepcopy(loader),
        val_dataloader=loader,
        val_evaluator=dict(type='Evaluator', metrics=[]),
        val_cfg=dict(),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=8)],
        custom_hooks=[*hooks, hook],
        # Not by `random`, which runs seed: one name is one message hub.
        experiment_name=uuid.uuid4().hex,
        default_scope='mmengine',
        log_level='WARNING',
    )
    return Runner(**(config | settings))


def weights(runner: Runner) -> dict:
    return {n: t.clone() for n, t in runner.model.state_dict().items()}


@pytest.fixture
def skipping(tmp_path, caplog):
    """Make a runner that skips non-finite steps; 4 iterations an epoch."""
    number = iter(range(10))

    def skipping(most=20, **settings):
        torch.manual_seed(0)
        return make_runner(
            tmp_path / f'run{next(number)}',
            dict(type='SkipNonFiniteHook', max_in_a_row=most),
            randomness=dict(seed=0),
            **settings,
        )

    return skipping


@pytest.mark.parametrize('how', ['loss', 'gradient', 'input'])
def test_a_spoilt_step_is_as_if_it_had_not_been(skipping, how):
    """Weights, statistics, optimizer and moving average of one step less."""
    spoilt = skipping(train_cfg=dict(by_epoch=False, max_iters=3))
    spoilt.model.spoil = {1: how}
    spoilt.train()
    assert spoilt.message_hub.get_info('skipped_steps') == 1
    for name, tensor in weights(spoilt).items():
        assert tensor.isfinite().all(), name
    states = spoilt.optim_wrapper.state_dict()['state'].values()
    assert {int(s['step']) for s in states} == {2}
    assert spoilt.model.norm.num_batches_tracked == 2
    average = spoilt._hooks
    average = next(h for h in average if type(h).__name__ == 'EMAHook')
    for name, tensor in average.ema_model.state_dict().items():
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize('how', ['loss', 'gradient', 'input'])
def test_under_amp(skipping, monkeypatch, how):
    """The gradient scaler skips by itself; its state is resumed."""
    module = 'mmengine.optim.optimizer.amp_optimizer_wrapper.'
    monkeypatch.setattr(module + 'is_cuda_available', lambda: True)
    scaler = partial(torch.amp.GradScaler, 'cpu')
    monkeypatch.setattr(module + 'GradScaler', scaler)
    optimizer = dict(
        type='AmpOptimWrapper',
        dtype='bfloat16',
        optimizer=dict(type='AdamW', lr=0.1),
        clip_grad=dict(max_norm=5.0),
    )
    runner = skipping(optim_wrapper=optimizer)
    runner.model.spoil = {1: how}
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 1
    assert runner.model.norm.num_batches_tracked == 3
    assert all(t.isfinite().all() for t in weights(runner).values())
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2**15
    resumed = skipping(
        optim_wrapper=optimizer,
        load_from=f'{runner.work_dir}/epoch_1.pth',
        resume=True,
        train_cfg=dict(by_epoch=True, max_epochs=2),
    )
    resumed.train()
    assert resumed.message_hub.get_info('skipped_steps') == 1
    assert resumed.optim_wrapper.loss_scaler.get_scale() == 2**15


def test_the_weights_stay_where_they_were(skipping):
    runner = skipping(train_cfg=dict(by_epoch=False, max_iters=2))
    runner.model.spoil = {0: 'gradient', 1: 'loss'}
    before = weights(runner)
    runner.train()
    for name, tensor in weights(runner).items():
        assert torch.equal(tensor, before[name]), name


def test_nothing_changes_without_non_finite_values(skipping, tmp_path):
    runner = skipping()
    runner.train()
    plain = skipping(custom_hooks=[])
    plain.train()
    for name, tensor in weights(plain).items():
        assert torch.equal(tensor, weights(runner)[name]), name
    assert runner.message_hub.get_info('skipped_steps') is None


def test_it_gives_up(skipping):
    runner = skipping(3, train_cfg=dict(by_epoch=False, max_iters=9))
    # Two, then one that is good, then three in a row.
    runner.model.spoil = dict.fromkeys([0, 1, 3, 4, 5, 6], 'gradient')
    with pytest.raises(NonFiniteError, match='3 steps in a row.*iteration 6'):
        runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 5


def test_accumulated_gradients_are_skipped_together(skipping):
    optimizer = dict(
        optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=2
    )
    runner = skipping(
        train_cfg=dict(by_epoch=False, max_iters=4), optim_wrapper=optimizer
    )
    runner.model.spoil = {0: 'gradient'}
    runner.train()
    assert runner.message_hub.get_info('skipped_steps') == 1
    assert runner.model.norm.num_batches_tracked == 2
    assert all(t.isfinite().all() for t in weights(runner).values())


def test_the_hook_says_what_it_skips(skipping, tmp_path):
    runner = skipping(train_cfg=dict(by_epoch=False, max_iters=3))
    runner.model.spoil = {1: 'loss'}
    runner.train()
    log = next((tmp_path / 'run0').glob('*/*.log')).read_text()
    assert 'Iteration 2: non-finite loss (nan), step skipped (1 in' in log


def test_channels_last(tmp_path):
    """The same weights but for rounding; the average is in it too."""
    ends = []
    for hooks in ([], [dict(type='ChannelsLastHook')]):
        torch.manual_seed(0)
        runner = make_runner(
            tmp_path / f'run{len(hooks)}',
            dict(type='RandomStateHook'),
            randomness=dict(seed=0),
        )
        for hook in hooks:
            runner.register_hook(hook)
        runner.model.add_module('conv', nn.Conv2d(3, 4, 3))
        runner.train()
        ends.append(runner)
    plain, converted = (r.model for r in ends)
    layout = dict(memory_format=torch.channels_last)
    assert not plain.conv.weight.is_contiguous(**layout)
    assert converted.conv.weight.is_contiguous(**layout)
    average = next(h for h in ends[1].hooks if type(h).__name__ == 'EMAHook')
    assert average.ema_model.module.conv.weight.is_contiguous(**layout)
    for name, tensor in weights(ends[0]).items():
        assert torch.allclose(tensor, weights(ends[1])[name]), name


def test_channels_last_in_two_processes():
    """DDP would scramble gradients if weights were turned after it."""
    program = Path(__file__).parents[1] / 'programs/data_parallel.py'
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node=2']
    result = subprocess.run(
        [sys.executable, *launch, '--standalone', program],
        capture_output=True,
        text=True,
        env=dict(os.environ, CUDA_VISIBLE_DEVICES=''),
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1e-5


def test_channels_last_leaves_a_wrapped_model_alone():
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    MODEL_WRAPPERS.register_module(module=Wrapper, force=True)
    model = Wrapper(nn.Conv2d(3, 4, 3))
    ChannelsLastHook().before_run(SimpleNamespace(model=model))
    assert model.module.weight.is_contiguous()
    assert not model.module.weight.is_contiguous(
        memory_format=torch.channels_last
    )


@pytest.mark.parametrize('spoilt', [0, 1, 2])
def test_the_average_of_accumulated_steps_stays_finite(skipping, spoilt):
    """The hook of the average runs between two steps, too."""
    optimizer = dict(
        optimizer=dict(type='AdamW', lr=0.1), accumulative_counts=2
    )
    runner = skipping(
        train_cfg=dict(by_epoch=False, max_iters=4), optim_wrapper=optimizer
    )
    runner.model.spoil = {spoilt: 'input'}
    runner.train()
    average = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    for state in (average.ema_model, runner.model):
        assert all(
            t.isfinite().all()
            for t in state.state_dict().values()
            if t.is_floating_point()
        )


def test_max_in_a_row_must_be_positive(skipping):
    with pytest.raises(ValueError, match='max_in_a_row=0'):
        skipping(0)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('seed', [None, 3])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, workers, seed):
    """Order, augmentation, dropout, average; validation in between."""
    hook = dict(type='RandomStateHook')
    settings = dict(workers=workers, randomness=dict(seed=seed))
    whole = make_runner(tmp_path / 'run', hook, 4, **settings)
    whole.train()
    checkpoint = str(tmp_path / 'run/epoch_2.pth')
    resumed = make_runner(
        tmp_path / 'again',
        hook,
        4,
        load_from=checkpoint,
        resume=True,
        **settings,
    )
    resumed.train()
    ends = [
        torch.load(tmp_path / f'{name}/epoch_4.pth', weights_only=False)
        for name in ('run', 'again')
    ]
    for part in ('state_dict', 'ema_state_dict'):
        for name, tensor in ends[0][part].items():
            assert torch.equal(tensor, ends[1][part][name]), name
    rates = [end['optimizer']['param_groups'][0]['lr'] for end in ends]
    assert rates[0] == rates[1]


def test_another_number_of_processes(tmp_path):
    """The states are left, with a warning."""
    hook = dict(type='RandomStateHook')
    make_runner(tmp_path / 'run', hook, 1).train()
    file = tmp_path / 'run/epoch_1.pth'
    checkpoint = torch.load(file, weights_only=False)
    checkpoint['random_states'] *= 2
    torch.save(checkpoint, file)
    resumed = make_runner(
        tmp_path / 'again', hook, 2, load_from=str(file), resume=True
    )
    resumed.train()
    log = next((tmp_path / 'again').glob('*/*.log')).read_text()
    assert 'states of 2 processes cannot be resumed in 1' in log


def rates_by_epoch(work_dir) -> dict[str, float]:
    """The learning rate at the end of each epoch."""
    return {
        file.stem: torch.load(file, weights_only=False)['optimizer'][
            'param_groups'
        ][0]['lr']
        for file in Path(work_dir).glob('epoch_*.pth')
    }


IN_EPOCHS = dict(by_epoch=True, convert_to_iter_based=True)
SCHEDULES = dict(
    cosine=[dict(type='CosineAnnealingLR', T_max=4, end=4, **IN_EPOCHS)],
    # The warm-up is over after two iterations, however long an epoch is.
    warm_up_and_steps=[
        dict(type='LinearLR', start_factor=0.1, end=2, by_epoch=False),
        dict(type='MultiStepLR', milestones=[1, 3], **IN_EPOCHS),
    ],
    later=[dict(type='CosineAnnealingLR', T_max=3, begin=1, **IN_EPOCHS)],
    one_cycle=[
        dict(type='OneCycleLR', eta_max=0.1, total_steps=4, **IN_EPOCHS)
    ],
    by_epoch=[dict(type='MultiStepLR', milestones=[1, 3])],
)


@pytest.mark.parametrize('batches', [(4, 2), (2, 4), (4, 7)])
@pytest.mark.parametrize('schedule', SCHEDULES)
def test_epochs_of_another_length(tmp_path, schedule, batches):
    """Learning rates are those of a run with such epochs all along."""

    def run(name, batch, **settings):
        runner = make_runner(
            tmp_path / name,
            dict(type='ResumeHook'),
            4,
            param_scheduler=copy.deepcopy(SCHEDULES[schedule]),
            **settings,
        )
        runner._train_dataloader['batch_size'] = batch
        runner.train()
        return rates_by_epoch(tmp_path / name)

    before, now = batches
    run('before', before)
    whole = run('whole', now)
    resumed = run(
        *('resumed', now),
        load_from=str(tmp_path / 'before/epoch_2.pth'),
        resume=True,
    )
    assert resumed.keys() == {'epoch_3', 'epoch_4'}
    for epoch, rate in resumed.items():
        assert rate == pytest.approx(whole[epoch], rel=1e-6, abs=1e-12), epoch
    log = next((tmp_path / 'resumed').glob('*/*.log')).read_text()
    lengths = [-(-16 // batch) for batch in batches]
    said = 'An epoch had {} iterations and has {} now'.format(*lengths)
    assert said in log


@pytest.mark.parametrize(
    ('changed', 'said'),
    [
        ({}, None),
        (
            dict(train_cfg=dict(by_epoch=True, max_epochs=8)),
            'param_scheduler.0.end is 8 by the config and 4 in the checkpoint',
        ),
        (
            dict(optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01))),
            'learning rate is 0.01 by the config and 0.1 in the checkpoint',
        ),
        # Scaled to larger batches by --auto-scale-lr.
        (
            dict(auto_scale_lr=dict(enable=True, base_batch_size=2)),
            'learning rate is 0.2 by the config and 0.1 in the checkpoint',
        ),
    ],
)
def test_a_config_that_differs_from_the_checkpoint(tmp_path, changed, said):
    hook = dict(type='ResumeHook')
    make_runner(tmp_path / 'run', hook, 4).train()
    file = str(tmp_path / 'run/epoch_2.pth')
    settings = dict(load_from=file, resume=True) | changed
    make_runner(tmp_path / 'again', hook, 4, **settings).train()
    log = next((tmp_path / 'again').glob('*/*.log')).read_text()
    assert ('A resumed run goes on with' in log) == (said is not None)
    assert said is None or said in log


def test_a_checkpoint_of_another_model_is_not_resumed(tmp_path):
    hook = dict(type='ResumeHook')
    make_runner(tmp_path / 'run', hook).train()
    file = str(tmp_path / 'run/epoch_1.pth')
    settings = dict(load_from=file, resume=True)
    other = make_runner(tmp_path / 'again', hook, 2, **settings)
    other.model.linear = nn.Linear(6, 3)
    with pytest.raises(CheckpointError, match=r'linear.weight.*\(1, 6\)'):
        other.train()


def test_a_checkpoint_of_another_optimizer_is_not_resumed(tmp_path):
    hook = dict(type='ResumeHook')
    make_runner(tmp_path / 'run', hook).train()
    optimizer = dict(type='SGD', lr=0.1)
    with pytest.raises(CheckpointError, match='another optimizer'):
        make_runner(
            *(tmp_path / 'again', hook, 2),
            load_from=str(tmp_path / 'run/epoch_1.pth'),
            resume=True,
            optim_wrapper=dict(optimizer=optimizer),
        ).train()


def test_classes_in_another_order_are_not_resumed(tmp_path, monkeypatch):
    """The new checkpoints would give the labels other names."""
    hook = dict(type='ResumeHook')
    monkeypatch.setattr(_Numbers, 'METAINFO', dict(classes=('a', 'b')))
    make_runner(tmp_path / 'run', hook).train()
    settings = dict(load_from=str(tmp_path / 'run/epoch_1.pth'), resume=True)
    make_runner(tmp_path / 'again', hook, 2, **settings).train()
    monkeypatch.setattr(_Numbers, 'METAINFO', dict(classes=('b', 'a')))
    with pytest.raises(CheckpointError, match="'a' as label 0, which is 'b'"):
        make_runner(tmp_path / 'third', hook, 3, **settings).train()


def test_workers_draw_new_numbers_each_epoch(tmp_path):
    runner = make_runner(tmp_path, dict(type='RandomStateHook'), workers=2)
    loader = runner.build_dataloader(runner._train_dataloader, seed=0)
    loader.sampler.shuffle = False
    first, second = (
        torch.cat([data['x'] for data in loader]) for _ in range(2)
    )
    assert not torch.isclose(first, second).any()
