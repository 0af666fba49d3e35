"""mmmamba as it is installed: outside of its repository."""

import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_ops.support import library

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    """An archive of the sources, and a wheel that was made of it."""
    folder = tmp_path_factory.mktemp('dist')
    # A copy of what is tracked: a build writes beside the sources.
    files = subprocess.run(
        ['git', 'archive', 'HEAD'], cwd=ROOT, capture_output=True, check=True
    ).stdout
    sources = folder / 'sources'
    sources.mkdir()
    subprocess.run(['tar', 'x'], cwd=sources, input=files, check=True)
    program = (
        'from setuptools.build_meta import build_sdist; '
        f'print(build_sdist({str(folder)!r}))'
    )
    run(['-c', program], sources)
    (sdist,) = folder.glob('*.tar.gz')
    shutil.unpack_archive(sdist, folder)
    unpacked = sdist.with_name(sdist.name.removesuffix('.tar.gz'))
    program = (
        'from setuptools.build_meta import build_wheel; '
        f'print(build_wheel({str(folder)!r}))'
    )
    run(['-c', program], unpacked)
    (wheel,) = folder.glob('*.whl')
    return sdist, wheel


def run(arguments, folder, **environment):
    environment = {**os.environ, 'MMMAMBA_WITH_OPS': '0', **environment}
    environment.setdefault('PYTHONPATH', '')
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )


@pytest.fixture(scope='module')
def installed(built, tmp_path_factory):
    """Where the wheel is unpacked."""
    folder = tmp_path_factory.mktemp('site-packages')
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(folder)
    return folder


def test_archive_of_the_sources(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'LICENSE', 'README.md', 'CHANGELOG.md', 'setup.py'} <= names
    assert 'mmmamba/ops/csrc/common/cpu/scan.hpp' in names
    assert 'mmmamba/.mim/configs/det/retinanet_mobilemamba_b1.py' in names


def test_wheel(installed):
    package = installed / 'mmmamba'
    for name in (
        '.mim/model-index.yml',
        '.mim/configs/_base_/mmmamba.py',
        '.mim/tools/train.py',
        '.mim/tools/dist_train.sh',
        'export/web/index.html',
        'py.typed',
    ):
        assert (package / name).is_file(), name
    (info,) = installed.glob('*.dist-info')
    commands = (info / 'entry_points.txt').read_text()
    for tool in ('train', 'test', 'export', 'predict', 'env'):
        assert f'mmmamba-{tool} = mmmamba.entry_points:{tool}' in commands


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('train', '--auto-scale-lr'),
        ('export', '--custom-op'),
        ('predict', '--score-thr'),
        ('prepare', '--method'),
    ],
)
def test_commands_run_anywhere(command, words, installed, tmp_path):
    program = (
        'import sys; '
        f'sys.argv = ["mmmamba-{command}", "--help"]; '
        f'from mmmamba.entry_points import {command}; {command}()'
    )
    result = run(['-c', program], tmp_path, PYTHONPATH=str(installed))
    assert words in result.stdout


def test_ops_run_without_compiler(installed, tmp_path):
    """With the libraries beside the package, as build_wheel.py puts them."""
    if library() is None:
        pytest.skip('compiled ops: they are not built')
    shutil.copytree(installed, tmp_path / 'site')
    for path in library().parent.glob('_*_ops.so'):
        shutil.copy(path, tmp_path / 'site/mmmamba')
    check = runpy.run_path(str(ROOT / 'tools/dev/build_wheel.py'))['CHECK']
    environment = {'PYTHONPATH': f'{tmp_path}/site', 'PATH': '/nowhere'}
    result = run(['-c', check], tmp_path, **environment)
    assert 'compiled' in result.stdout
    program = 'import mmmamba; print(mmmamba.__file__)'
    result = run(['-c', program], tmp_path, **environment)
    assert result.stdout.startswith(f'{tmp_path}/site/')


def test_wheel_is_for_every_python(built, tmp_path):
    """Of a platform, where ops are to be built, though none can be here."""
    nothing = str(tmp_path / 'c++')
    program = (
        'from setuptools.build_meta import build_wheel; '
        f'print(build_wheel({str(tmp_path)!r}))'
    )
    environment = {'CC': nothing, 'CXX': nothing, 'PATH': '/nowhere'}
    sources = built[0].with_name(built[0].name.removesuffix('.tar.gz'))
    run(['-c', program], sources, MMMAMBA_WITH_OPS='', **environment)
    (wheel,) = tmp_path.glob('*.whl')
    python, abi, platform = wheel.stem.split('-')[2:]
    assert (python, abi) == ('py3', 'none') and platform != 'any'


def test_configs_are_found_anywhere(installed, tmp_path):
    program = (
        'from mmmamba.utils.cli import find_config; '
        'from mmengine.config import Config; '
        'name = find_config("det/retinanet_mobilemamba_b1.py"); '
        'cfg = Config.fromfile(name); '
        'print(cfg.filename, cfg.model.type)'
    )
    result = run(['-c', program], tmp_path, PYTHONPATH=str(installed))
    assert f'{installed}/mmmamba/.mim/configs' in result.stdout
    assert 'RetinaNet' in result.stdout
