"""An interrupted run keeps what it has learnt."""

import os
import signal
import sys
import threading
from pathlib import Path

import torch
from mmengine.dist import (
    all_reduce,
    barrier,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner


@HOOKS.register_module()
class InterruptHook(Hook):
    """Save a checkpoint when a run counted in iterations is interrupted.

    Between its checkpoints, thousands of iterations apart, such a run would
    lose hours. On Ctrl-C or SIGTERM it finishes the iteration, saves, and
    stops; a second Ctrl-C stops it at once. ``--resume`` then goes on from
    that iteration. ``torchrun`` gives its processes 30 seconds for it, or as
    many as ``TORCH_ELASTIC_SHUTDOWN_TIMEOUT`` says. A run counted in epochs
    can only be resumed from the end of one, so it stops at once and keeps the
    checkpoints it has.
    """

    # After everything else of the iteration, CheckpointHook included.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Take over the signals.

        Args:
            runner (Runner): The runner of the training.
        """
        self._received = False
        self._previous = {}
        self._pid = os.getpid()
        in_main_thread = threading.current_thread() is threading.main_thread()
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        if by_iter and in_main_thread:  # no other may handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        """Save and stop if there was a signal.

        Args:
            runner (Runner): The runner of the training.
            *args: Not used.
            **kwargs: Not used.

        Raises:
            KeyboardInterrupt: If there was a signal.
        """
        if not self._all_received(runner):
            return
        name = f'iter_{runner.iter + 1}.pth'  # counted up after the hooks
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
        if is_main_process():
            path = Path(runner.work_dir, name)
            # Where --resume looks, as CheckpointHook leaves it.
            path.with_name('last_checkpoint').write_text(str(path))
            runner.logger.info(f'Interrupted: saved {path}')
        # A launcher that sees a process end kills the one that still saves.
        barrier()
        self._restore()
        raise KeyboardInterrupt

    def after_train(self, runner: Runner) -> None:
        """Give the signals back.

        Args:
            runner (Runner): The runner of the training.
        """
        self._restore()

    def _all_received(self, runner: Runner) -> bool:
        """Whether any process got a signal, the same answer in all."""
        if get_world_size() == 1:
            return self._received
        # Any of them may get it first, or alone.
        received = torch.tensor(int(self._received))
        all_reduce(received, 'max')
        return bool(received)

    def _receive(self, number: int, frame) -> None:
        if os.getpid() != self._pid:
            return  # a data loader's worker, which its parent stops
        # torchrun sends SIGTERM after Ctrl-C, so only Ctrl-C is counted.
        if self._received and number == signal.SIGINT:
            self._restore()
            raise KeyboardInterrupt
        self._received = True
        message = 'Interrupted: saving a checkpoint after this iteration'
        if get_world_size() == 1:  # torchrun does not pass on a second one
            message += '; press Ctrl-C again to stop at once, without it'
        print(message, file=sys.stderr)

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
