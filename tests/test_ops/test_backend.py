"""Tests of mmmamba/ops/backend.py, and of what setup.py does without means.

What happens at import is seen from outside, in a copy of the package that
holds its ops alone.
"""

import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
import torch
from test_ops.support import (
    ROOT,
    copy_ops,
    find_compiler,
    library,
    library_name,
    run_program,
)

from mmmamba.ops import (
    available_backends,
    backend,
    describe_backends,
    use_backend,
)

RUNNING = '.'.join(torch.__version__.split('.')[:2])
# Every message names both, as either may have asked.
CHOSEN_BY = 'MMMAMBA_OP_BACKEND or use_backend'
FOR_CPU = "'cpp' .*use_backend.* runs on cpu.* on cuda:1; .*'torch'"

BROKEN = {'empty': b'', 'garbage': b'\x7fELF not a library'}
OTHERS = ('1.13', '9.0')


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    """What ops say with each library, for each MMMAMBA_OP_BACKEND."""
    folder = tmp_path_factory.mktemp('packages')
    name = library_name(torch.__version__)
    copy_ops(folder / 'none')
    for kind, content in BROKEN.items():
        (copy_ops(folder / kind) / name).write_bytes(content)
    others = copy_ops(folder / 'others')
    for version in OTHERS:
        (others / library_name(version)).write_bytes(b'never loaded')
    if library() is not None:
        # The last, because it stays loaded; the right one of two.
        package = copy_ops(folder / 'whole')
        shutil.copy(library(), package)
        (package / library_name(OTHERS[0])).write_bytes(b'never loaded')
    names = 'none', *BROKEN, 'others', 'whole'
    folders = [str(folder / n) for n in names if (folder / n).exists()]
    output = run_program('report_backends', *folders)
    found = json.loads(output.splitlines()[-1])
    return {Path(folder).name: value for folder, value in found.items()}


def check_fallback(found: dict, reason: str) -> None:
    """PyTorch's ops serve, and it is said why."""
    used, words, said = found['']
    assert used == 'torch'
    assert reason in words
    (warning,) = said
    assert reason in warning
    assert 'pip install' in warning and 'MMMAMBA_OP_BACKEND=torch' in warning
    used, words, said = found['torch']
    assert used == 'torch' and not said
    assert f'forced by {CHOSEN_BY}' in words
    for value in ('cpp', 'cuda'):
        error, message, _ = found[value]
        assert error == 'ImportError'
        assert f"'{value}' ({CHOSEN_BY}) asks for" in message
        assert reason in message and 'pip install' in message


@pytest.mark.slow
def test_not_built(reports):
    check_fallback(reports['none'], 'they are not built')


@pytest.mark.slow
def test_built_for_other_versions(reports):
    reason = f'built for PyTorch 1.13, 9.0, and this is PyTorch {RUNNING}'
    check_fallback(reports['others'], reason)


@pytest.mark.parametrize('name', BROKEN)
@pytest.mark.slow
def test_broken_library(reports, name):
    check_fallback(reports[name], 'they do not load (')


@pytest.mark.slow
def test_built(reports):
    if 'whole' not in reports:
        pytest.skip('compiled ops: they are not built')
    found = reports['whole']
    used, words, said = found['']
    assert used == 'cpp' and not said
    assert words.startswith('compiled, ')
    for value in ('torch', 'cpp'):
        used, words, said = found[value]
        assert used == value and not said
        assert words.startswith('compiled' if value == 'cpp' else 'PyTorch')
        assert words.endswith(f', forced by {CHOSEN_BY}')
    error, message, _ = found['cuda']
    if available_backends()['cuda'] or error == 'RuntimeError':
        assert f"'cuda' ({CHOSEN_BY}) runs on cuda, but the inputs" in message
    else:
        assert error == 'ImportError'
        assert 'are without them' in message and 'FORCE_CUDA=1' in message


@pytest.mark.slow
def test_unknown_backend(reports):
    """It is an error with and without compiled ops."""
    for found in reports.values():
        error, message, _ = found['nonsense']
        assert error == 'ValueError'
        assert f"'nonsense' ({CHOSEN_BY}) is unknown" in message
        assert 'torch, cpp, cuda' in message


# ---------------------------------------------------------------------------
# In this process
# ---------------------------------------------------------------------------


@pytest.mark.usefixtures('compiled')
def test_forced_backend_for_another_device():
    with use_backend('cpp'):
        assert backend.backend_for(torch.device('cpu')) == 'cpp'
        with pytest.raises(RuntimeError, match=FOR_CPU):
            backend.backend_for(torch.device('cuda', 1))
    with use_backend('torch'):
        assert backend.backend_for(torch.device('cuda')) == 'torch'
    with use_backend(None):
        assert backend.backend_for(torch.device('meta')) == 'torch'


def test_use_backend_ends_with_its_statement():
    before = describe_backends()
    with pytest.raises(KeyError), use_backend('torch'):
        assert describe_backends()['cpu'].startswith('PyTorch, forced')
        assert not available_backends()['cpp']
        raise KeyError
    assert describe_backends() == before


def test_use_backend_refuses_what_there_is_not():
    before = describe_backends()
    unknown = "'gpu' .*use_backend.* is unknown.* torch, cpp, cuda"
    with pytest.raises(ValueError, match=unknown), use_backend('gpu'):
        pass
    with use_backend(None):
        compiled_for_cuda = describe_backends()['cuda'] == 'compiled'
    if not compiled_for_cuda:
        missing = "'cuda' .*use_backend.* asks for the (CUDA|compiled) ops"
        with pytest.raises(ImportError, match=missing), use_backend('cuda'):
            pass
    assert describe_backends() == before


@pytest.mark.usefixtures('compiled')
def test_description_of_a_backend_for_another_device():
    with use_backend('cpp'):
        words = describe_backends()
    assert words['cuda'] == f"none: 'cpp' is forced by {CHOSEN_BY}"
    assert not words['cpu'].startswith('none')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_what_serves_on_a_gpu(monkeypatch, dtype):
    """Ops with a CUDA kernel, unless autocast is to choose the dtype."""
    x = torch.zeros(2, 3, 3, 16, dtype=dtype)
    monkeypatch.setattr(backend, 'backend_for', lambda device: 'cuda')
    assert backend.inference_op_serves(x, kernels=(x,), cuda=True)
    assert not backend.inference_op_serves(x, kernels=(x,))
    assert not backend.inference_op_serves(x.double(), cuda=True)
    weight = torch.zeros(16, requires_grad=True)
    assert not backend.inference_op_serves(x, weight, cuda=True)
    monkeypatch.setattr(torch, 'is_autocast_enabled', lambda: True)
    assert not backend.inference_op_serves(x, cuda=True)


def test_available_backends():
    found = available_backends()
    assert found.keys() == {'cpp', 'cuda', 'torch'}
    for name, available in found.items():
        if available:
            with use_backend(name):
                assert available_backends()[name]
    assert found['torch'] is True
    assert not found['cuda'] or torch.cuda.is_available()


# ---------------------------------------------------------------------------
# The build
# ---------------------------------------------------------------------------


def build(folder: Path, **env) -> subprocess.CompletedProcess:
    """Run setup.py on a copy of the sources."""
    shutil.copytree(
        ROOT / 'mmmamba' / 'ops',
        folder / 'mmmamba' / 'ops',
        ignore=shutil.ignore_patterns('__pycache__', '*.so'),
    )
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / 'mmmamba' / 'version.py', folder / 'mmmamba')
    return subprocess.run(
        [sys.executable, 'setup.py', 'build_ext', '--inplace'],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, 'FORCE_CUDA': '0', **env},
    )


def libraries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob('*.so'))


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True)
    path.write_text(f'#!/bin/sh\n{text}\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def quick_compiler(tmp_path) -> dict[str, str]:
    """The compiler, which makes empty files of sources."""
    compiler = script(
        tmp_path / 'bin/g++',
        'for word; do [ "$last" = -o ] && exec touch "$word"; last=$word; '
        f'done; exec {" ".join(find_compiler())} "$@"',
    )
    return {'CC': compiler, 'CXX': compiler}


@pytest.fixture
def no_compiler(tmp_path) -> dict[str, str]:
    nothing = tmp_path / 'bin'
    nothing.mkdir()
    return {
        'PATH': str(nothing),
        'CC': str(nothing / 'cc'),
        'CXX': str(nothing / 'c++'),
    }


@pytest.mark.slow
def test_build_without_ops(tmp_path):
    result = build(tmp_path, MMMAMBA_WITH_OPS='0')
    assert result.returncode == 0, result.stdout
    assert 'without its compiled ops' not in result.stdout
    assert not libraries(tmp_path)


def test_a_folder_named_openvino(tmp_path, monkeypatch):
    """It is no package to build against."""
    (tmp_path / 'openvino').mkdir()
    monkeypatch.setenv('MMMAMBA_WITH_OPS', '0')
    monkeypatch.setattr(setuptools, 'setup', lambda: None)
    openvino_ops = runpy.run_path(ROOT / 'setup.py')['openvino_ops']
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    monkeypatch.delitem(sys.modules, 'openvino', raising=False)
    assert openvino_ops() == []


@pytest.mark.compiler
@pytest.mark.slow
def test_build_without_compiler(tmp_path, no_compiler):
    """One plain warning, no traceback."""
    result = build(tmp_path, MMMAMBA_WITH_OPS='', **no_compiler)
    output = result.stdout
    assert result.returncode == 0, output
    said = 'mmmamba is installed without its compiled ops: the build failed'
    assert output.count(said) == 1
    assert 'It works all the same' in output
    assert 'Traceback' not in output
    assert not libraries(tmp_path)


@pytest.mark.compiler
@pytest.mark.slow
def test_build_that_must_not_fail(tmp_path, no_compiler):
    result = build(tmp_path, MMMAMBA_WITH_OPS='1', **no_compiler)
    assert result.returncode != 0
    said = (
        'mmmamba cannot be installed with its compiled ops: the build failed'
    )
    assert said in result.stdout
    assert 'Traceback' not in result.stdout


@pytest.mark.compiler
@pytest.mark.slow
def test_objects_are_of_a_platform(tmp_path, quick_compiler):
    """A folder that two machines share has objects for each."""
    build(tmp_path, _PYTHON_HOST_PLATFORM='linux-other', **quick_compiler)
    objects = [str(path) for path in tmp_path.glob('build/**/kernels_*.o')]
    assert objects and all('linux-other' in path for path in objects)


@pytest.mark.compiler
@pytest.mark.slow
@pytest.mark.parametrize('must', [False, True])
def test_build_with_another_nvcc(must, tmp_path, quick_compiler):
    """The CPU's ops are built all the same, unless CUDA's have to be."""
    if torch.version.cuda is None:
        pytest.skip('PyTorch without CUDA')
    script(tmp_path / 'cuda/bin/nvcc', 'echo release 9.0, V9.0.0')
    result = build(
        tmp_path,
        MMMAMBA_WITH_OPS='1' if must else '',
        FORCE_CUDA='1',
        CUDA_HOME=str(tmp_path / 'cuda'),
        **quick_compiler,
    )
    output = result.stdout
    words = 'cannot be installed with' if must else 'is installed without'
    assert f'mmmamba {words} its CUDA ops: their build failed' in output
    assert (result.returncode != 0) == must, output
    major, minor = torch.__version__.split('.')[:2]
    built = f'_torch{major}_{minor}_ops.so' in libraries(tmp_path)
    assert built != must
