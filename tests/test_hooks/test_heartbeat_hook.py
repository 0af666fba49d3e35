"""Who is lost, and who is not; real processes: test_tools/test_train_test."""

import logging
from types import SimpleNamespace

import pytest

from mmmamba.hooks import HeartbeatHook


class ProcessEnded(BaseException):
    """In place of the end of this process."""


@pytest.fixture
def watch(monkeypatch, caplog):
    """Be rank 0, which hears something each round and then the end."""

    def end_process(code: int) -> None:
        raise ProcessEnded(code)

    monkeypatch.setattr('os._exit', end_process)
    monkeypatch.setenv('MASTER_ADDR', 'first')
    runner = SimpleNamespace(logger=logging.getLogger('heartbeat'))

    def watch(*rounds: list[bytes]) -> str:
        hook = HeartbeatHook(limit=30, interval=10)  # three rounds
        coming = iter(rounds)
        hook._heard = next(coming)

        def wait(seconds: float) -> bool:
            heard = next(coming, None)
            hook._heard = heard or hook._heard
            return heard is None

        hook._end = SimpleNamespace(wait=wait)
        try:
            hook._watch(runner)
        except ProcessEnded as end:
            assert end.args == (1,)
        return caplog.text

    return watch


def test_one_silent_round_is_nothing_unusual():
    with pytest.raises(ValueError, match='limit must be three times interval'):
        HeartbeatHook(limit=45, interval=20)


def test_nobody_is_lost(watch):
    """Rank 1 is heard of each third round, and rank 2 has done its work."""
    own = [[b'%d' % i, b'%d' % (i // 3), b'done'] for i in range(20)]
    assert watch(*own) == ''


def test_a_process_is_lost(watch):
    said = watch(*([b'%d' % i, b'%d' % i, b'7'] for i in range(4)))
    assert 'the process of rank 2 has not been heard of for 30 s' in said


def test_the_store_is_lost(watch):
    """Nothing new is known of anyone."""
    said = watch(*([b'1', b'2', b'3'] for _ in range(4)))
    assert 'the machine first has not been heard of for 30 s' in said


def test_the_store_is_lost_while_another_is_late(watch):
    """Rank 1 had one round less than this process, which is rank 0."""
    late = [[b'0', b'5', b'5'], [b'1', b'5', b'6']]
    said = watch(*late, *([b'1', b'5', b'6'] for _ in range(3)))
    assert 'the machine first has not been heard of for 30 s' in said


def test_one_machine_needs_no_heartbeat(monkeypatch):
    hook = HeartbeatHook()
    hook.before_train(runner=None)  # one process
    monkeypatch.setattr(
        'mmmamba.hooks.heartbeat_hook.get_world_size', lambda: 2
    )
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    hook.before_train(runner=None)  # two on one machine
    assert hook._threads == []
