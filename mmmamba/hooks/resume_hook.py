"""What a resumed run takes from its checkpoint, and what from its config."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmamba.checkpoint import (
    CheckpointError,
    check_classes,
    unwrap_state_dict,
)

# Of a scheduler's state, what is not settings.
_STEPS = ('last_step', '_global_step')
_VALUES = ('base_values', '_last_value')
_ANEW = (
    'To start from its weights: without --resume, with --cfg-options '
    'load_from=CHECKPOINT'
)
# Settings that tell kinds of optimizers apart.
_OF_A_KIND = {'betas', 'momentum', 'alpha', 'lr_decay', 'rho', 'etas'}


@HOOKS.register_module()
class ResumeHook(Hook):
    """Resume what fits, in epochs of any length, and say what does not.

    Epochs have another number of iterations with another number of processes,
    another batch size or other images. mmengine resumes a schedule that was
    given in epochs and converted to iterations with those of the old epochs,
    so that it would end too early, or never: here it goes on at the same
    place. Steps that were given in iterations stay as they are.

    A schedule and a learning rate are those of the checkpoint, whatever the
    config says: if they differ, there is a warning.
    """

    # Before the other hooks take from the checkpoint.
    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the iterations of an epoch.

        Args:
            runner (Runner): The runner of the training.
            checkpoint (dict): The checkpoint.
        """
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            length = len(runner.train_dataloader)
            checkpoint['meta']['epoch_length'] = length

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check and convert a checkpoint, before it is resumed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.

        Raises:
            CheckpointError: If it is of another model or optimizer, or of
                the same classes in another order.
        """
        if not runner._resume:
            return
        _check_weights(runner, checkpoint)
        _check_optimizer(runner, checkpoint)
        dataset = runner.train_dataloader.dataset
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes:
            name = 'the checkpoint to resume from'
            check_classes(checkpoint, name, list(classes))
        ratio = _ratio_of_epochs(runner, checkpoint)
        saved = _each(checkpoint.get('param_schedulers'))
        pairs = list(zip(_each(runner.param_schedulers), saved))
        if ratio != 1:
            checkpoint['meta']['iter'] = round(
                checkpoint['meta']['iter'] * ratio
            )
            for scheduler, state in pairs:
                _convert(scheduler, state, ratio)
        differs = _first_difference(pairs) or _other_rate(runner, checkpoint)
        if differs:
            runner.logger.warning(
                f'{differs}. A resumed run goes on with what the checkpoint '
                'has. To train its weights as the config says, start without '
                '--resume, with --cfg-options load_from=CHECKPOINT'
            )


def _check_weights(runner: Runner, checkpoint: dict) -> None:
    """Refuse a checkpoint whose tensors have other shapes."""
    model: Any = runner.model
    model = getattr(model, 'module', model)
    weights = model.state_dict()
    for name, tensor in unwrap_state_dict(checkpoint).items():
        own = weights.get(name)
        if own is not None and own.shape != tensor.shape:
            raise CheckpointError(
                f'the checkpoint to resume from is of another model: its '
                f'{name} has shape {tuple(tensor.shape)}, and that of the '
                f'config {tuple(own.shape)}. {_ANEW}'
            )


def _param_groups(
    runner: Runner, checkpoint: dict
) -> Iterator[tuple[dict, dict]]:
    """The settings of the optimizer, by the config and in the checkpoint."""
    groups = getattr(runner.optim_wrapper, 'param_groups', [])
    saved = checkpoint.get('optimizer', {}).get('param_groups', [])
    return zip(groups, saved)


def _check_optimizer(runner: Runner, checkpoint: dict) -> None:
    """Refuse the state of an optimizer of another kind."""
    for group, old in _param_groups(runner, checkpoint):
        if _OF_A_KIND & set(group) != _OF_A_KIND & set(old):
            raise CheckpointError(
                'the checkpoint to resume from has the state of another '
                f'optimizer than the config. {_ANEW}'
            )


def _ratio_of_epochs(runner: Runner, checkpoint: dict) -> float:
    """How many times as long an epoch is as it was."""
    before = checkpoint.get('meta', {}).get('epoch_length')
    if not before or not isinstance(runner.train_loop, EpochBasedTrainLoop):
        return 1
    now = len(runner.train_dataloader)
    if now != before:
        runner.logger.warning(
            f'An epoch had {before} iterations and has {now} now. Schedules '
            'in epochs go on at the same place; learning rates and what is '
            'given in iterations stay as they are.'
        )
    return now / before


def _each(schedulers) -> list:
    """Those of all optimizers, in order."""
    if isinstance(schedulers, dict):  # by optimizer
        return [s for group in schedulers.values() for s in group]
    return schedulers or []


def _settings(scheduler: _ParamScheduler) -> dict:
    """What a scheduler was made with, in its own units."""
    return {
        name: value
        for name, value in scheduler.state_dict().items()
        if name not in (*_STEPS, *_VALUES)
    }


def _convert(scheduler: _ParamScheduler, saved: dict, ratio: float) -> None:
    """Take the settings of a scheduler that was made for the new epochs."""
    settings = _settings(scheduler)
    in_iterations = all(saved.get(k) == value for k, value in settings.items())
    if in_iterations or scheduler.by_epoch:
        return
    saved.update(settings)
    for name in _STEPS:
        saved[name] = round(saved[name] * ratio)


def _first_difference(pairs: list[tuple[_ParamScheduler, dict]]) -> str:
    """What the config's schedules and the checkpoint's do not agree on."""
    for i, (scheduler, saved) in enumerate(pairs):
        for name, value in _settings(scheduler).items():
            if saved.get(name) != value:
                return (
                    f'param_scheduler.{i}.{name} is {value} by the config '
                    f'and {saved.get(name)} in the checkpoint'
                )
    return ''


def _other_rate(runner: Runner, checkpoint: dict) -> str:
    """What the config's learning rate and the checkpoint's differ by."""
    for group, old in _param_groups(runner, checkpoint):
        rate, before = (g.get('initial_lr', g.get('lr')) for g in (group, old))
        if rate != before:
            return (
                f'The learning rate is {rate:g} by the config and '
                f'{before:g} in the checkpoint'
            )
    return ''
