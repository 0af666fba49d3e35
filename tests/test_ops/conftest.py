"""What the tests of the ops compile."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from test_ops.support import find_compiler


@pytest.fixture(scope='session')
def compile_library(tmp_path_factory):
    """Compile and load a shared library, once for all of pytest's workers."""
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent

    def compile_library(source: Path, *flags, name: str) -> ctypes.CDLL:
        path = folder / f'{name}.so'
        with FileLock(f'{path}.lock'):
            if not path.exists():
                command = [*find_compiler(), '-std=c++17', '-w', *flags]
                command += ['-shared', '-fPIC', source, '-o']
                unfinished = path.with_suffix('.unfinished')
                subprocess.run([*command, unfinished], check=True)
                unfinished.rename(path)
        return ctypes.CDLL(str(path))

    return compile_library
