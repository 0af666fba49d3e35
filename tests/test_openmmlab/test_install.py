"""The one door for what changes other packages: openmmlab.install()."""

import logging

import pytest
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, Registry, build_model_from_cfg
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmmamba import openmmlab
from mmmamba.checkpoint.files import HAS_SAFE_GLOBALS
from mmmamba.openmmlab import checkpoint_loader, registries

needs_safe_globals = pytest.mark.skipif(
    not HAS_SAFE_GLOBALS, reason='needs torch >= 2.6'
)


@pytest.fixture(autouse=True)
def _install_again():
    yield
    openmmlab.uninstall()
    openmmlab.install()


@pytest.fixture
def log():
    """Collect what is logged, of every level, by mmmamba and mmengine."""
    records = []

    class Handler(logging.Handler):
        def emit(self, record):
            records.append((record.levelno, record.getMessage()))

    handler = Handler(logging.DEBUG)
    ours = logging.getLogger('mmmamba')
    ours.setLevel(logging.DEBUG)
    loggers = ours, MMLogger.get_current_instance()
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)
    ours.setLevel(logging.NOTSET)


def state():
    """What install() changes."""
    return (
        [r.build_func for r in (MODELS, *MODELS.children.values())],
        dict(CheckpointLoader._schemes),
        dict(MODULE2PACKAGE),
    )


def local_loader():
    return CheckpointLoader._schemes['']


def test_undone_and_made_again(log):
    import mmdet.registry

    installed = state()
    assert MODULE2PACKAGE['mmseg'] == 'mmseg'
    assert mmdet.registry.MODELS.build_func is registries.build_model
    openmmlab.uninstall()
    assert MODULE2PACKAGE['mmseg'] == 'mmsegmentation'
    assert MODELS.build_func is build_model_from_cfg
    assert mmdet.registry.MODELS.build_func is build_model_from_cfg
    assert local_loader() is mmengine_checkpoint.load_from_local
    openmmlab.uninstall()
    assert not log
    openmmlab.install()
    assert state() == installed


@needs_safe_globals
def test_log_says_what_changed(log):
    openmmlab.uninstall()
    openmmlab.install()
    assert {level for level, _ in log} == {logging.DEBUG}
    messages = ' '.join(message for _, message in log)
    for part in (
        'mmseg',
        'checkpoint_loader.load_from_disk',
        'registries.build_model builds the models of scope mmengine',
    ):
        assert part in messages


@pytest.mark.slow
def test_documented_way_shows_what_changed(run_python):
    lines = [
        line.partition('>>> ')[2]
        for line in openmmlab.install.__doc__.splitlines()
        if '>>> ' in line
    ]
    plain, documented = (
        run_python('-c', '\n'.join([*way, 'import mmmamba']))
        for way in ([], lines)
    )
    assert plain.returncode == documented.returncode == 0
    assert not plain.stderr
    assert 'DEBUG:mmmamba:mmseg:: configs are looked for' in documented.stderr


def test_twice_changes_nothing_more(log):
    before = state()
    openmmlab.install()
    assert state() == before
    assert not log


def test_later_registry_inherits():
    later = Registry('model', parent=MODELS, scope='later')
    try:
        assert later.build_func is registries.build_model
        openmmlab.uninstall()
        assert later.build_func is build_model_from_cfg
    finally:
        del MODELS.children['later']


def own(*args, **kwargs):
    """Stand for what another package has put in place."""


@pytest.mark.parametrize('with_mmengine_at_first', [True, False])
def test_other_build_function_stays(monkeypatch, log, with_mmengine_at_first):
    if with_mmengine_at_first:
        openmmlab.uninstall()
    monkeypatch.setattr(MODELS, 'build_func', own)
    log.clear()
    openmmlab.install()
    assert MODELS.build_func is own
    warnings = [text for level, text in log if level == logging.WARNING]
    assert len(warnings) == 1
    for part in (f'{__name__}.own', 'scope mmengine', 'follow_backbone'):
        assert part in warnings[0]
    openmmlab.uninstall()
    assert MODELS.build_func is own


@needs_safe_globals
def test_other_checkpoint_loader_stays(log):
    CheckpointLoader.register_scheme('', own, force=True)
    try:
        openmmlab.install()
        assert local_loader() is own
        ((level, message),) = log
        assert level == logging.WARNING
        for part in (f'{__name__}.own', 'run code', 'register_scheme'):
            assert part in message
        openmmlab.uninstall()
        assert local_loader() is own
    finally:
        CheckpointLoader.register_scheme(
            '', mmengine_checkpoint.load_from_local, force=True
        )


@needs_safe_globals
def test_remedy_of_the_loader_works(log):
    CheckpointLoader.register_scheme('', own, force=True)
    openmmlab.install()
    assert 'mmmamba.openmmlab.checkpoint_loader.load_from_disk' in log[0][1]
    CheckpointLoader.register_scheme(
        prefixes='', force=True, loader=checkpoint_loader.load_from_disk
    )
    log.clear()
    openmmlab.install()
    assert not log


def test_other_place_of_mmseg_stays(monkeypatch, log):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'my-mmseg')
    openmmlab.install()
    ((level, message),) = log
    assert level == logging.WARNING
    assert "'my-mmseg'" in message and "MODULE2PACKAGE['mmseg']" in message
    openmmlab.uninstall()
    assert MODULE2PACKAGE['mmseg'] == 'my-mmseg'
