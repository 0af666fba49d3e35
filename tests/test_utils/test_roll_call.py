"""When nobody is waited for; two machines: test_tools/test_train_test."""

import pytest

from mmmamba.utils.roll_call import roll_call


@pytest.mark.parametrize(
    'environment',
    [
        {},
        dict(WORLD_SIZE='2', LOCAL_WORLD_SIZE='2', RANK='0'),
        # Of a launcher without a store, where the first process opens one.
        dict(WORLD_SIZE='2', LOCAL_WORLD_SIZE='1', RANK='0'),
        dict(WORLD_SIZE='2', RANK='0'),
    ],
    ids=['alone', 'one machine', 'no store', 'another launcher'],
)
def test_nobody_is_waited_for(monkeypatch, environment):
    for name in ('WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'RANK'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv('TORCHELASTIC_USE_AGENT_STORE', raising=False)
    monkeypatch.delenv('MASTER_ADDR', raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with roll_call():
        passed = True
    assert passed
    with pytest.raises(ValueError, match='lacking'), roll_call():
        raise ValueError('lacking')
