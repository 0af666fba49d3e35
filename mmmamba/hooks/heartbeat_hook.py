"""A machine that is lost ends the training of the others."""

import os
import threading
from datetime import timedelta
from typing import Any

from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.distributed import TCPStore

#: What a process says last: it needs to be heard of no more.
DONE = 'done'


def on_several_machines(world_size: int) -> bool:
    """Tell whether ``torchrun`` started this run on other machines, too.

    Args:
        world_size (int): Processes of the run.

    Returns:
        bool: False for other launchers, which do not say so.
    """
    return int(os.environ.get('LOCAL_WORLD_SIZE', world_size)) != world_size


def open_store(**options: Any) -> TCPStore:
    """Connect to the key-value store of a run by ``torchrun``.

    Args:
        **options: Of ``torch.distributed.TCPStore``.

    Returns:
        TCPStore: A client of it.
    """
    address, port = os.environ['MASTER_ADDR'], os.environ['MASTER_PORT']
    return TCPStore(address, int(port), is_master=False, **options)


@HOOKS.register_module()
class HeartbeatHook(Hook):
    """End a process when another machine of its run has fallen silent.

    A process that dies closes its connections, so that the others fail at
    once. A machine that loses power or its network closes nothing, and the
    others would wait for the time limit of their collectives: ten minutes
    with NCCL, thirty with gloo. So each process counts up a number in the
    run's key-value store, and looks at those of the others.

    It does something only where ``torchrun`` starts a run on several
    machines. ``train.py`` adds it as ``default_hooks.heartbeat``; with
    ``--cfg-options default_hooks.heartbeat.limit=300`` the machines have more
    time, and with ``default_hooks.heartbeat=None`` nobody watches.

    Args:
        limit (int): For how many seconds a process may be silent. A process
            is when it is stopped, when its machine is off or cannot be
            reached, or when one call in C holds Python's lock for as long.
            Default: 45.
        interval (int): Seconds from one sign of life to the next. Default: 5.

    Raises:
        ValueError: If ``limit`` is less than three intervals: one round in
            which nothing new is heard is nothing unusual.
    """

    def __init__(self, limit: int = 45, interval: int = 5) -> None:
        if limit < 3 * interval:
            raise ValueError(
                'default_hooks.heartbeat: limit must be three times interval '
                f'at least, and is {limit} with interval {interval}'
            )
        self.limit = limit
        self.interval = interval
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def before_train(self, runner: Runner) -> None:
        """Begin to count, and to watch the others.

        Args:
            runner (Runner): The runner of the training.
        """
        world_size = get_world_size()
        if not on_several_machines(world_size):
            return
        store = open_store(timeout=timedelta(seconds=self.limit))
        keys = [f'mmmamba/heartbeat/{rank}' for rank in range(world_size)]
        store.set(keys[get_rank()], '0')
        barrier()  # all are there, and have said so
        # What is known of each process; it is silent while this stays.
        self._heard = [b'0'] * world_size
        self._end.clear()
        # Two threads, since a store that is lost answers nothing.
        self._threads = [
            threading.Thread(
                target=self._beat, args=(store, keys), daemon=True
            ),
            threading.Thread(target=self._watch, args=(runner,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def after_train(self, runner: Runner) -> None:
        """Stop watching.

        Args:
            runner (Runner): The runner of the training.
        """
        self._end.set()
        for thread in self._threads:  # at Python's end they would abort it
            thread.join(self.limit)

    def _beat(self, store: TCPStore, keys: list[str]) -> None:
        """Count up the own number and fetch those of the others."""
        own = keys[get_rank()]
        count = 0
        while not self._end.wait(self.interval):
            count += 1
            store.set(own, str(count))
            self._heard = store.multi_get(keys)
        store.set(own, DONE)

    def _watch(self, runner: Runner) -> None:
        """End this process when another one is silent."""
        known, silent = self._heard, [0] * len(self._heard)
        while not self._end.wait(self.interval):
            heard = self._heard
            # In rounds, not in seconds, which pass while this is suspended.
            silent = [
                rounds + 1 if before == now != DONE.encode() else 0
                for rounds, before, now in zip(silent, known, heard)
            ]
            known = heard
            if max(silent) * self.interval >= self.limit:
                break
        else:
            return
        # Without the store, nothing new is known even of oneself. Half of the
        # time: in the last round with it, another may just have been late.
        if silent[get_rank()] > max(silent) / 2:
            who = f'the machine {os.environ["MASTER_ADDR"]}'
        else:
            lost = [rank for rank, n in enumerate(silent) if n == max(silent)]
            who = f'the process of rank {", ".join(map(str, lost))}'
        runner.logger.error(
            f'{who} has not been heard of for {self.limit} seconds. A '
            'training goes on from its last checkpoint with --resume'
        )
        os._exit(1)  # the main thread waits in a collective
