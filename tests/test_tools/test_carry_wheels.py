"""tools/dev/carry_wheels.py, with wheels that nobody downloads."""

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What each package needs.
NEEDS = {
    'net': ['torch>=2', 'helper<2', 'Tests; extra == "test"'],
    'helper': ['backport; python_version < "3.11"', 'net'],
    'torch': [],
    'backport': [],
}


@pytest.fixture
def carry(monkeypatch, tmp_path, capsys):
    """Run the tool; what it asked for, and what it printed."""
    spec = importlib.util.spec_from_file_location(
        'carry_wheels', ROOT / 'tools/dev/carry_wheels.py'
    )
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    asked = []

    def download(package: str, args) -> Path:
        asked.append(package)
        name = package.partition('<')[0]
        wheel = args.out / f'{name}-1-py3-none-any.whl'
        lines = [f'Requires-Dist: {need}' for need in NEEDS[name]]
        with zipfile.ZipFile(wheel, 'w') as archive:
            archive.writestr(
                f'{name}-1.dist-info/METADATA',
                '\n'.join(['Metadata-Version: 2.1', f'Name: {name}', *lines]),
            )
        return wheel

    def carry(*options):
        monkeypatch.setattr(tool, 'download', download)
        out = tmp_path / 'wheels'
        arguments = ['carry_wheels.py', *options, '--out', str(out)]
        monkeypatch.setattr(sys, 'argv', arguments)
        tool.main()
        return asked, capsys.readouterr().out

    return carry


def test_needs_are_gathered_once(carry):
    asked, output = carry('net', '--python', '3.12')
    assert asked == ['net', 'helper<2']
    assert '2 wheels' in output and '--no-index' in output


def test_needs_are_those_of_the_other_python(carry):
    assert carry('net', '--python', '3.10')[0][-1] == 'backport'


def test_what_is_left_out_can_be_named(carry):
    assert carry('net', 'torch', '--python', '3.12')[0][:2] == ['net', 'torch']


def test_limit(carry):
    with pytest.raises(SystemExit, match='more than --limit 0'):
        carry('net', '--limit', '0')


def test_a_full_folder_is_refused(carry, tmp_path, capsys):
    (tmp_path / 'wheels').mkdir()
    (tmp_path / 'wheels' / 'old.whl').touch()
    with pytest.raises(SystemExit):
        carry('net')
    assert 'is not empty' in capsys.readouterr().err
