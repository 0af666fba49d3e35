"""Imports run downward only, as the table in CONTRIBUTING.md says."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'mmmamba'


class Imports(NamedTuple):
    """What a room imports."""

    ours: set[str]  #: other rooms of mmmamba, at module level or not
    others: set[str]  #: packages outside the standard library, at its level


def read_table() -> dict[str, Imports]:
    """Read what each room of mmmamba imports, in the order of the rows."""
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    rows = re.findall(
        r'^\| `mmmamba/(\w+)(?:\.py)?` \|[^|]*\|([^|]*)\|([^|]*)\|$',
        text,
        re.M,
    )
    return {
        room: Imports(*(set(re.findall(r'\w+', cell)) for cell in cells))
        for room, *cells in rows
    }


def imports_of(source: str, package: str) -> Imports:
    """Find what the source of a module imports.

    Imports for type checkers alone do not count.

    Args:
        source (str): The Python source.
        package (str): The package it is part of, such as ``mmmamba.ops``.

    Returns:
        Imports: By name; ``''`` stands for the package mmmamba itself.
    """
    ours, others = set(), set()
    for name, at_module_level in _imported(ast.parse(source), package):
        top, _, rest = name.partition('.')
        if top == 'mmmamba':
            ours.add(rest.split('.')[0])
        elif at_module_level and top not in sys.stdlib_module_names:
            others.add(top)
    return Imports(ours, others)


def _imported(
    node: ast.AST, package: str, at_module_level: bool = True
) -> Iterator[tuple[str, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, at_module_level
        elif isinstance(child, ast.ImportFrom):
            parts = package.split('.')
            base = parts[: len(parts) + 1 - child.level] if child.level else []
            module = '.'.join([*base, *filter(None, [child.module])])
            for alias in child.names:
                yield f'{module}.{alias.name}', at_module_level
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            continue
        else:
            function = isinstance(child, (ast.FunctionDef, ast.Lambda))
            yield from _imported(
                child, package, at_module_level and not function
            )


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ('TYPE_CHECKING', 'typing.TYPE_CHECKING')


def rooms() -> dict[str, list[Path]]:
    """The files of each folder, and of each module outside of one."""
    return {
        path.stem: [path] if path.is_file() else sorted(path.rglob('*.py'))
        for path in sorted(PACKAGE.iterdir())
        if path.suffix == '.py' or any(path.glob('*.py'))
    }


def imports_of_room(files: list[Path]) -> Imports:
    ours, others = set(), set()
    for file in files:
        package = '.'.join(file.relative_to(ROOT).parent.parts)
        found = imports_of(file.read_text(), package)
        ours |= found.ours
        others |= found.others
    return Imports(ours, others)


@pytest.mark.parametrize(
    ('source', 'ours', 'others'),
    [
        ('import os, torch.nn', '', 'torch'),
        ('from mmcv.cnn import ConvModule', '', 'mmcv'),
        ('import mmmamba.ops.linear', 'ops', ''),
        ('from mmmamba import deploy, layers', 'deploy layers', ''),
        ('from mmmamba.utils.cli import run_tool', 'utils', ''),
        ('from . import fold', 'here', ''),
        ('from .. import utils', 'utils', ''),
        ('from ..utils import cli', 'utils', ''),
        ('def f():\n    import timm, mmmamba.utils', 'utils', ''),
        ('try:\n    import timm\nexcept ImportError:\n    pass', '', 'timm'),
        ('if TYPE_CHECKING:\n    import mmcv, mmmamba.utils', '', ''),
    ],
)
def test_imports_are_found(source, ours, others):
    found = imports_of(source, 'mmmamba.here')
    assert found == (set(ours.split()), set(others.split()))


def test_table_has_every_room():
    assert set(read_table()) == set(rooms())


def test_table_has_every_folder():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    table = text.split('Where things are:')[1]
    named = re.findall(r'^\| `([\w/.]+)` \|', table, re.M)
    for path in named:
        assert (ROOT / path).exists(), path
    for folder in ('configs', 'docs', 'mmmamba', 'tests', 'tools'):
        assert any(path.split('/')[0] == folder for path in named), folder


@pytest.mark.parametrize('room', rooms())
def test_table_is_true(room):
    """A room imports what its row says, no more and no less."""
    found = imports_of_room(rooms()[room])
    found = Imports(found.ours - {room}, found.others)
    assert found == read_table()[room], 'CONTRIBUTING.md, "Where things are"'


def test_rows_import_rows_above():
    above: set[str] = set()
    for room, imports in read_table().items():
        assert imports.ours <= above, f'mmmamba/{room} imports upward'
        above.add(room)


def test_ops_need_torch_alone():
    assert read_table()['ops'] == (set(), {'torch'})
