"""tools/dev/build_mmcv.py, with a build that compiles nothing."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SETUP = """
import sys
from pathlib import Path
seen = Path('seen')
if not seen.exists():
    seen.touch()
    print('[1/2] c++ a.cpp', flush=True)
    sys.exit('no space left')
print('[2/2] c++ b.cpp')
folder = Path(sys.argv[sys.argv.index('--dist-dir') + 1])
folder.mkdir()
(folder / 'onedl_mmcv-2.3.6-cp311-cp311-linux_x86_64.whl').touch()
"""


@pytest.fixture
def tool(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location(
        'build_mmcv', ROOT / 'tools/dev/build_mmcv.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = ['build_mmcv.py', '--cache-dir', str(tmp_path), '--jobs', '1']
    monkeypatch.setattr(sys, 'argv', arguments)
    return module


def test_build_goes_on_where_it_failed(tool, tmp_path, capsys):
    sources = tmp_path / tool.key(tool.PACKAGE) / 'onedl_mmcv-2.3.6'
    sources.mkdir(parents=True)
    (sources / 'setup.py').write_text(SETUP)
    with pytest.raises(SystemExit, match='no space left') as stop:
        tool.main()
    assert 'build.log has it all' in str(stop.value)
    assert 'mmcv: 1 of 2 files' in capsys.readouterr().err
    for _ in range(2):  # built, and taken from the cache
        tool.main()
        output, words = capsys.readouterr()
        assert Path(output.strip()).is_file()
    assert not words


def test_wheels_of_two_torches_are_apart(tool, monkeypatch):
    monkeypatch.setattr(tool.torch, '__version__', '2.13.0+cpu')
    first = tool.key('mmcv==2.1.0')
    monkeypatch.setattr(tool.torch, '__version__', '2.14.1')
    assert first.startswith('mmcv-2.1.0-torch2.13.0-')
    assert tool.key('mmcv==2.1.0') != first


def test_wheels_of_two_gpus_are_apart(tool, monkeypatch):
    monkeypatch.setattr(tool, 'has_cuda', lambda: True)
    keys = []
    for listed in ('7.5', '8.0;9.0+PTX'):
        monkeypatch.setenv('TORCH_CUDA_ARCH_LIST', listed)
        keys.append(tool.key('mmcv==2.1.0'))
    assert '-7.5-' in keys[0]
    assert '-8.0_9.0+PTX-' in keys[1]


def test_a_gpu_without_nvcc_is_refused_first(tool, monkeypatch):
    monkeypatch.setattr(tool, 'has_cuda', lambda: True)
    monkeypatch.setattr('torch.utils.cpp_extension.CUDA_HOME', None)
    monkeypatch.setattr(tool.torch.version, 'cuda', '13.0')
    with pytest.raises(SystemExit, match=r'toolkit 13\.0'):
        tool.main()


def test_an_interrupted_wheel_is_not_taken(tool, tmp_path):
    folder = tmp_path / tool.key(tool.PACKAGE)
    (folder / 'new').mkdir(parents=True)
    (folder / 'new/part.whl').touch()
    sources = folder / 'onedl_mmcv-2.3.6'
    sources.mkdir()
    (sources / 'setup.py').write_text("raise SystemExit('not whole')")
    with pytest.raises(SystemExit, match='not whole'):
        tool.main()


def test_jobs_are_at_least_one_and_fit_the_memory(tool, monkeypatch):
    monkeypatch.setattr(tool.os, 'sysconf', lambda name: 1000)
    assert tool.default_jobs() == 1
