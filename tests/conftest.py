"""Shared fixtures."""

import functools
import gc
import importlib.util
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

# OpenMP's threads wait for each other in a busy loop, which takes seconds for
# a small tensor where another process has the second core. PyTorch's import
# reads this.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
# Tensors are tiny here: threads cost time, minutes of it on a busy machine. So
# the tools that tests start have one, too.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import mmengine.config.utils
import mmengine.runner.runner
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.utils.dl_utils import collect_env

from mmmamba.ops import available_backends, describe_backends, use_backend

torch.set_num_threads(1)

# For each base file such as 'mmdet::_base_/...', mmengine reads the package's
# hundred metafiles: half of the time that it takes to read a config.
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)
# Each runner asks the compilers for their versions.
mmengine.runner.runner.collect_env = functools.cache(collect_env)

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / 'tools'


def pytest_collection_modifyitems(config, items):
    """Files that take long come first, or one worker ends much later."""
    if not hasattr(config, 'workerinput'):  # no pytest-xdist
        return
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(
        key=lambda item: (
            item.path not in slow,
            item.path.parent.name != 'test_tools',
        )
    )


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def compiled():
    """Skip a test of the compiled ops where they are not built."""
    if not available_backends()['cpp']:
        pytest.skip(f'compiled ops: {describe_backends()["cpu"]}')


@pytest.fixture(params=['torch', 'cpp'])
def op_backend(request):
    """Run a test with each implementation of the ops."""
    if request.param == 'cpp':
        request.getfixturevalue('compiled')
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def threads(request):
    """Run a test with so many threads (parametrize it with indirect=True)."""
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.fixture(scope='module', autouse=True)
def _freeze():
    """Leave what is imported by now to itself.

    Each data set of mmengine collects garbage when it is built: a fifth of a
    second with all of the toolboxes loaded.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session')
def run_python():
    """Run Python where mmmamba is that of this tree; returns its result."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]

    def run(*command) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(str, command)],
            env=dict(
                os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths))
            ),
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture
def run_tool(monkeypatch):
    """Run a tool in this process; returns its exit code."""

    def run(name: str, *args) -> int:
        spec = importlib.util.spec_from_file_location('tool', TOOLS / name)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        arguments = [str(TOOLS / name), *map(str, args)]
        monkeypatch.setattr(sys, 'argv', arguments)
        # A logger of the tool writes to the output of this test alone.
        monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())
        try:
            tool.run_tool(tool.main)
        except SystemExit as stop:
            return stop.code or 0
        return 0

    return run
