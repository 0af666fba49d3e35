"""The processes of a run on several machines begin together, or not at all."""

import contextlib
import os
from collections.abc import Iterator

from mmmamba.hooks.heartbeat_hook import on_several_machines, open_store

from .cli import UsageError


@contextlib.contextmanager
def roll_call() -> Iterator[None]:
    """Run checks in each process, and go on if they pass in all of them.

    A machine that lacks the data set or the checkpoint ends before it joins
    the others, which would wait for it for half an hour.

    It does something only where ``torchrun`` starts a run on several
    machines and keeps their key-value store, as ``dist_train.sh`` has it do:
    else there is none before the processes join. One machine alone notices
    by itself.

    Yields:
        None: For the checks.

    Raises:
        UsageError: If the checks of another process have failed.
    """
    world_size = int(os.environ.get('WORLD_SIZE', 1))
    has_store = os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True'
    if not (on_several_machines(world_size) and has_store):
        yield
        return
    store = open_store()
    keys = [f'mmmamba/roll_call/{rank}' for rank in range(world_size)]
    own = keys[int(os.environ['RANK'])]
    try:
        yield
    except Exception as error:
        store.set(own, f'{error}' or type(error).__name__)
        raise
    store.set(own, '')
    for rank, key in enumerate(keys):
        failure = store.get(key).decode()  # waits for it
        if failure:
            raise UsageError(f'rank {rank} has ended: {failure}')
