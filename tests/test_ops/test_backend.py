"""Tests of mmmamba/ops/backend.py, and of what setup.py does without means.

What happens at import is seen from outside, in a copy of the package that
holds its ops alone.
"""

import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from mmmamba.ops import (
    available_backends,
    backend,
    describe_backends,
    use_backend,
)

ROOT = Path(__file__).parents[2]
RUNNING = '.'.join(torch.__version__.split('.')[:2])


def copy_ops(folder: Path) -> Path:
    """Copy the Python files of the ops, and nothing compiled."""
    package = folder / 'mmmamba'
    (package / 'ops').mkdir(parents=True)
    (package / '__init__.py').touch()
    for file in (ROOT / 'mmmamba' / 'ops').glob('*.py'):
        shutil.copy(file, package / 'ops')
    return package


def library() -> Path | None:
    """The one that serves here, or would, were it asked for."""
    spec = importlib.util.find_spec('mmmamba._ext')
    return None if spec is None else Path(spec.origin)


# Imports the ops of each folder with each value of MMMAMBA_OP_BACKEND, all in
# one process, since the import of PyTorch is what takes time.
REPORT = """
    import importlib, json, os, sys, warnings
    import torch

    def attempt():
        from mmmamba.ops import describe_backends, selective_scan

        u = torch.ones(1, 2, 3, requires_grad=True)
        rows = torch.ones(1, 1, 1, 3)
        with torch.profiler.profile() as profile:
            y = selective_scan(u, u, -torch.ones(2, 1), rows, rows)
        events = {event.key for event in profile.key_averages()}
        used = 'cpp' if 'mmmamba::selective_scan' in events else 'torch'
        y.sum().backward()
        expected = 1 + torch.tensor(-1.).exp()
        assert abs(y[0, 0, 1] - expected) < 1e-6
        return used, describe_backends()['cpu']

    # An editable install would supply what a folder lacks.
    sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]
    reports = {}
    for folder in sys.argv[1:]:
        sys.path.insert(0, folder)
        for value in ('', 'torch', 'cpp', 'cuda', 'nonsense'):
            os.environ['MMMAMBA_OP_BACKEND'] = value
            for name in list(sys.modules):
                # What is compiled cannot be loaded twice.
                if name.startswith('mmmamba') and name != 'mmmamba._ext':
                    del sys.modules[name]
            importlib.invalidate_caches()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                try:
                    used, words = attempt()
                except (ImportError, RuntimeError, ValueError) as error:
                    used, words = type(error).__name__, str(error)
            said = [str(w.message) for w in caught]
            said = [text for text in said if 'mmmamba' in text]
            reports.setdefault(folder, {})[value] = used, words, said
        del sys.path[0]
    print(json.dumps(reports))
"""

BROKEN = {
    'empty': b'',
    'garbage': b'\x7fELF not a library',
    'of_this_version': f'mmmamba built for torch {RUNNING}'.encode() * 9,
}


def other_version(step: int) -> str:
    """A version that is written as long as the running one."""
    major, minor = RUNNING.split('.')
    return f'{major}.{int(minor) + step}'


@pytest.fixture(scope='module')
def reports(tmp_path_factory):
    """What ops say with each library, for each MMMAMBA_OP_BACKEND."""
    folder = tmp_path_factory.mktemp('packages')
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    copy_ops(folder / 'none')
    for name, content in BROKEN.items():
        (copy_ops(folder / name) / f'_ext{suffix}').write_bytes(content)
    if library() is not None:
        content = library().read_bytes()
        for name, step in (('older', -1), ('newer', 1)):
            patched = re.sub(
                rb'(mmmamba built for torch )\d+\.\d+',
                rb'\g<1>' + other_version(step).encode(),
                content,
            )
            assert len(patched) == len(content) and patched != content
            (copy_ops(folder / name) / f'_ext{suffix}').write_bytes(patched)
        # The last, because it stays loaded.
        (copy_ops(folder / 'whole') / f'_ext{suffix}').write_bytes(content)
    names = 'none', *BROKEN, 'older', 'newer', 'whole'
    folders = [str(folder / n) for n in names if (folder / n).exists()]
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(REPORT), *folders],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert result.returncode == 0, result.stderr[-1000:]
    found = json.loads(result.stdout.splitlines()[-1])
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
    assert 'forced by MMMAMBA_OP_BACKEND' in words
    for value in ('cpp', 'cuda'):
        error, message, _ = found[value]
        assert error == 'ImportError'
        assert f'MMMAMBA_OP_BACKEND={value} asks for' in message
        assert reason in message and 'pip install' in message


def test_not_built(reports):
    check_fallback(reports['none'], 'they are not built')


@pytest.mark.parametrize('step', [-1, 1])
def test_built_for_another_version(reports, step):
    """It is recognised without being loaded."""
    name = 'older' if step < 0 else 'newer'
    if name not in reports:
        pytest.skip('compiled ops: they are not built')
    reason = f'built for PyTorch {other_version(step)}, and this is PyTorch '
    check_fallback(reports[name], reason + RUNNING)


@pytest.mark.parametrize(
    'name, reason',
    [
        ('empty', 'is damaged'),
        ('garbage', 'is damaged'),
        ('of_this_version', 'they do not load ('),
    ],
)
def test_broken_library(reports, name, reason):
    check_fallback(reports[name], reason)


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
        assert words.endswith(', forced by MMMAMBA_OP_BACKEND')
    error, message, _ = found['cuda']
    if available_backends()['cuda'] or error == 'RuntimeError':
        assert 'MMMAMBA_OP_BACKEND=cuda runs on cuda, but the inputs' in (
            message
        )
    else:
        assert error == 'ImportError'
        assert 'are without them' in message and 'FORCE_CUDA=1' in message


def test_unknown_backend(reports):
    """It is an error with and without compiled ops."""
    for found in reports.values():
        error, message, _ = found['nonsense']
        assert error == 'ValueError'
        assert 'MMMAMBA_OP_BACKEND=nonsense' in message
        assert 'torch, cpp, cuda' in message


# ---------------------------------------------------------------------------
# Instruction sets
# ---------------------------------------------------------------------------

RESULTS = """
    import sys
    import torch
    from mmmamba.ops import bidirectional_scan, selective_scan
    from test_ops import test_bidirectional_scan as bidirectional
    from test_ops import test_selective_scan as general

    torch.set_num_threads(1)
    results = [torch.backends.cpu.get_cpu_capability()]
    for dtype in (torch.float32, torch.float64):
        for sizes in [(2, 2, 3, 2, 5), (1, 2, 17, 3, 300), (2, 1, 32, 1, 64)]:
            inputs = general.make_inputs(
                sizes, dtype, steps=(1e-3, 10), bias=True
            )
            inputs['delta_softplus'] = True
            results.append(
                general.with_gradients(selective_scan, inputs, dtype)
            )
        for sizes in [(2, 3, 2, 2, 5), (1, 17, 5, 3, 300), (2, 32, 4, 1, 64)]:
            inputs = bidirectional.make_inputs(sizes, dtype)
            results.append(
                general.with_gradients(bidirectional_scan, inputs, dtype)
            )
    torch.save(results, sys.argv[1])
"""


def results_of(capability: str, path: Path, package: Path) -> tuple:
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(RESULTS), path],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=path.parent,
        env={
            **os.environ,
            'PYTHONPATH': f'{package.parent}{os.pathsep}{ROOT / "tests"}',
            'OMP_NUM_THREADS': '1',
            'MMMAMBA_OP_BACKEND': 'cpp',
            'ATEN_CPU_CAPABILITY': capability,
        },
    )
    assert result.returncode == 0, result.stderr[-1000:]
    chosen, *results = torch.load(path)
    return chosen, results


@pytest.mark.usefixtures('compiled')
def test_instruction_sets_agree(tmp_path):
    """The portable kernel, and the ones this CPU has, in float32 and 64."""
    here = torch.backends.cpu.get_cpu_capability()
    sets = ['default']
    sets += ['avx2'] if here in ('AVX2', 'AVX512') else []
    sets += ['avx512'] if here == 'AVX512' else []
    package = copy_ops(tmp_path / 'packages')
    shutil.copy(library(), package)
    found = {name: results_of(name, tmp_path / name, package) for name in sets}
    chosen = [found[name][0].lower() for name in sets]
    assert chosen[1:] == sets[1:]
    assert not chosen[0].startswith('avx')

    from test_ops import test_bidirectional_scan as bidirectional
    from test_ops import test_selective_scan as general

    portable = found['default'][1]
    for name in sets[1:]:
        for one, other in zip(portable, found[name][1]):
            for key, tensor in one.items():
                error = (tensor - other[key]).abs().max()
                # Found: 1.4e-6, where one has multiply-add and one has not.
                bound = 3e-6 if tensor.dtype == torch.float32 else 1e-14
                assert error <= bound * tensor.abs().max(), (name, key)
    # Each of them against the definition: one of each op and dtype.
    for position, op, sizes in (
        (1, general, (1, 2, 17, 3, 300)),
        (4, bidirectional, (1, 17, 5, 3, 300)),
        (7, general, (1, 2, 17, 3, 300)),
        (10, bidirectional, (1, 17, 5, 3, 300)),
    ):
        dtype = torch.float32 if position < 6 else torch.float64
        if op is general:
            inputs = op.make_inputs(sizes, dtype, steps=(1e-3, 10), bias=True)
            inputs['delta_softplus'] = True
        else:
            inputs = op.make_inputs(sizes, dtype)
        expected = general.with_gradients(
            op.reference, general.doubled(inputs), dtype
        )
        bound = 1e-5 if dtype == torch.float32 else 1e-10
        for key, tensor in expected.items():
            error = (portable[position][key] - tensor).abs().max()
            assert error <= bound * tensor.abs().max(), key


# ---------------------------------------------------------------------------
# In this process
# ---------------------------------------------------------------------------


@pytest.mark.usefixtures('compiled')
def test_forced_backend_for_another_device():
    with use_backend('cpp'):
        assert backend.backend_for(torch.device('cpu')) == 'cpp'
        with pytest.raises(RuntimeError, match='=cpp runs on cpu.* on cuda:1'):
            backend.backend_for(torch.device('cuda', 1))
    with use_backend('torch'):
        assert backend.backend_for(torch.device('cuda')) == 'torch'
    with use_backend(None):
        assert backend.backend_for(torch.device('meta')) == 'torch'


def test_use_backend_ends_with_its_block():
    before = describe_backends()
    with pytest.raises(KeyError), use_backend('torch'):
        assert describe_backends()['cpu'].startswith('PyTorch, forced')
        assert not available_backends()['cpp-cpu']
        raise KeyError
    assert describe_backends() == before


def test_use_backend_refuses_what_there_is_not():
    before = describe_backends()
    unknown = '=gpu is unknown.* torch, cpp, cuda'
    with pytest.raises(ValueError, match=unknown), use_backend('gpu'):
        pass
    if 'cuda' not in backend._compiled:
        missing = 'asks for the (CUDA|compiled) ops'
        with pytest.raises(ImportError, match=missing), use_backend('cuda'):
            pass
    assert describe_backends() == before


@pytest.mark.usefixtures('compiled')
def test_description_of_a_backend_for_another_device():
    with use_backend('cpp'):
        words = backend.describe_backends()
    assert words['cuda'] == 'none: MMMAMBA_OP_BACKEND=cpp'
    assert not words['cpu'].startswith('none')


def test_available_backends():
    found = available_backends()
    assert found.keys() == {'cpp-cpu', 'cuda', 'pure-torch'}
    assert found['pure-torch'] is True
    assert not found['cuda'] or torch.cuda.is_available()


# ---------------------------------------------------------------------------
# The build
# ---------------------------------------------------------------------------


def build(folder: Path, **env) -> str:
    """Run setup.py on a copy of the sources; return what it says."""
    package = copy_ops(folder)
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / 'mmmamba' / 'version.py', package)
    shutil.copytree(ROOT / 'mmmamba' / 'ops' / 'csrc', package / 'ops/csrc')
    result = subprocess.run(
        [sys.executable, 'setup.py', 'build_ext', '--inplace'],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, 'FORCE_CUDA': '0', **env},
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-1000:]
    assert not list(folder.rglob('*.so'))
    return output


def test_build_without_ops(tmp_path):
    output = build(tmp_path, MMMAMBA_WITH_OPS='0')
    assert 'without its compiled ops' not in output


def test_build_without_compiler(tmp_path):
    """One plain warning, no traceback."""
    nothing = tmp_path / 'bin'
    nothing.mkdir()
    output = build(
        tmp_path,
        MMMAMBA_WITH_OPS='1',
        PATH=str(nothing),
        CC=str(nothing / 'cc'),
        CXX=str(nothing / 'c++'),
    )
    said = 'mmmamba is installed without its compiled ops: the build failed'
    assert output.count(said) == 1
    assert 'It works all the same' in output
    assert 'Traceback' not in output
