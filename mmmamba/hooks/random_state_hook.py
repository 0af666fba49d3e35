"""A resumed run draws the random numbers the interrupted one would have."""

import os
import random

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS, HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Save and resume the random number generators, epoch by epoch.

    mmengine resumes the seed only, so that a resumed run repeats the random
    numbers of its first epochs, and samples in another order where the config
    sets no seed. With this hook, and data loaders that use
    :func:`seed_worker` or no workers, training two epochs and resuming for
    two more gives the weights of training four. Validation leaves the
    generators as they were.
    """

    # Before CheckpointHook.
    priority = 'LOW'

    def __init__(self) -> None:
        self._states: list[dict] | None = None
        self._loaded: list[dict] | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keep the states until training starts.

        Args:
            runner (Runner): The runner.
            checkpoint (dict): The checkpoint.
        """
        self._loaded = checkpoint.get('random_states')

    def before_train(self, runner: Runner) -> None:
        """Restore what was saved, after all else has been set up.

        Args:
            runner (Runner): The runner of the training.
        """
        if not (runner._resume and self._loaded):
            return
        # Built before the seed of the interrupted run was known.
        sampler = runner.train_dataloader.sampler
        if hasattr(sampler, 'seed'):
            sampler.seed = runner.seed
        if len(self._loaded) == get_world_size():
            set_random_state(self._loaded[get_rank()])
        else:
            runner.logger.warning(
                f'The random states of {len(self._loaded)} processes cannot '
                f'be resumed in {get_world_size()}; they start anew'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Forget the states of the last epoch's end.

        Args:
            runner (Runner): The runner of the training.
        """
        self._states = None

    def after_train_epoch(self, runner: Runner) -> None:
        """Collect the states of all processes.

        Args:
            runner (Runner): The runner of the training.
        """
        self._states = all_gather_object(random_state())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states to a checkpoint of an epoch's end.

        Args:
            runner (Runner): The runner of the training.
            checkpoint (dict): The checkpoint.
        """
        if self._states is not None:
            checkpoint['random_states'] = self._states

    def before_val_epoch(self, runner: Runner) -> None:
        """Keep the state over a validation.

        Args:
            runner (Runner): The runner.
        """
        self._before_val = random_state()

    def after_val_epoch(self, runner: Runner, metrics=None) -> None:
        """Restore the state from before the validation.

        Args:
            runner (Runner): The runner.
            metrics: Not used.
        """
        set_random_state(self._before_val)


def random_state() -> dict:
    """Return the states of this process's generators.

    Returns:
        dict: Those of ``python``, ``numpy``, ``torch`` and, with a GPU, of
        ``cuda``.
    """
    state = dict(
        python=random.getstate(),
        numpy=np.random.get_state(),
        torch=torch.get_rng_state(),
    )
    if torch.cuda.is_available():
        state['cuda'] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Restore what :func:`random_state` returned.

    Args:
        state (dict): The states.
    """
    version, numbers, gauss = state['python']
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(state['numpy'])
    # A checkpoint may have been loaded onto a GPU, tensors and all.
    torch.set_rng_state(state['torch'].cpu())
    if 'cuda' in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state['cuda'].cpu())


@FUNCTIONS.register_module()
def seed_worker(worker_id: int) -> None:
    """Seed a data loader's worker differently in each epoch and process.

    For ``worker_init_fn=dict(type='seed_worker')`` of a data loader without
    ``persistent_workers``. mmengine's default gives a worker the same seed in
    each epoch, and so each image the same few augmentations. PyTorch draws
    the base of its seeds from the main process's generator, which
    :class:`RandomStateHook` resumes.

    Args:
        worker_id (int): Not used; PyTorch's seed contains it.
    """
    rank = int(os.environ.get('RANK', 0))
    seed = (torch.initial_seed() + 1_000_003 * rank) % 2**32
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
