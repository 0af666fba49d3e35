"""mmmamba as it is installed: outside of its repository."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

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
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter='data')
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
