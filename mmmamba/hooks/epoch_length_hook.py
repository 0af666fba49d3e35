"""A resumed run follows its schedules though its epochs have other lengths."""

from collections.abc import Iterator

from mmengine.hooks import Hook
from mmengine.optim import _ParamScheduler
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

# Of a scheduler's state, what is not settings.
_STEPS = ('last_step', '_global_step')
_VALUES = ('base_values', '_last_value')


@HOOKS.register_module()
class EpochLengthHook(Hook):
    """Go on at the same place of the schedules in longer or shorter epochs.

    Epochs have another number of iterations with another number of processes,
    another batch size or other images. mmengine resumes a schedule that was
    given in epochs and converted to iterations with those of the old epochs,
    so that it would end too early, or never. Steps that were given in
    iterations stay as they are, and so does the learning rate.
    """

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
        """Convert what counts iterations, before it is resumed.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.
        """
        meta = checkpoint.get('meta', {})
        before = meta.get('epoch_length')
        if not (runner._resume and before):
            return
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        now = len(runner.train_dataloader)
        if now == before:
            return
        runner.logger.warning(
            f'An epoch had {before} iterations and has {now} now. Schedules '
            'in epochs go on at the same place; learning rates and what is '
            'given in iterations stay as they are.'
        )
        meta['iter'] = round(meta['iter'] * now / before)
        pairs = zip(
            _each(runner.param_schedulers),
            _each(checkpoint.get('param_schedulers')),
        )
        for scheduler, saved in pairs:
            _convert(scheduler, saved, now / before)


def _each(schedulers) -> Iterator:
    """Those of all optimizers, in order."""
    if isinstance(schedulers, dict):  # by optimizer
        schedulers = [s for group in schedulers.values() for s in group]
    return iter(schedulers or [])


def _convert(scheduler: _ParamScheduler, saved: dict, ratio: float) -> None:
    """Take the settings of a scheduler that was made for the new epochs."""
    if scheduler.by_epoch:
        return
    settings = {
        name: value
        for name, value in scheduler.state_dict().items()
        if name not in (*_STEPS, *_VALUES)
    }
    if all(saved.get(name) == value for name, value in settings.items()):
        return  # given in iterations
    saved.update(settings)
    for name in _STEPS:
        saved[name] = round(saved[name] * ratio)
