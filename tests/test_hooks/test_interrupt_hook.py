"""Tests of mmmamba/hooks/interrupt_hook.py; a whole run is in test_tools."""

import os
import signal
import threading
from types import SimpleNamespace

import pytest
from mmengine.runner import IterBasedTrainLoop

from mmmamba.hooks import InterruptHook


@pytest.fixture
def runner():
    loop = object.__new__(IterBasedTrainLoop)
    return SimpleNamespace(train_loop=loop, iter=4)


@pytest.fixture
def hook():
    hook = InterruptHook()
    yield hook
    hook._restore()


def test_waits_for_the_iteration_and_gives_the_signals_back(runner, hook):
    before = signal.getsignal(signal.SIGINT)
    hook.before_train(runner)
    hook.after_train_iter(runner)  # nothing has happened
    os.kill(os.getpid(), signal.SIGINT)  # raises nothing yet
    assert hook._received
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread(runner, hook):
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=hook.before_train, args=(runner,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert hook._previous == {}


def test_a_worker_leaves_the_signal_to_its_parent(runner, hook):
    hook.before_train(runner)
    hook._pid += 1
    os.kill(os.getpid(), signal.SIGINT)
    assert not hook._received
