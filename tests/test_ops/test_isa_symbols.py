"""What is compiled for AVX2 and AVX-512 is not shared with other code.

A weak symbol exists once in a library: the linker takes any one of its copies.
If it took a copy that is compiled for AVX-512, code for any CPU would call it,
and stop where there is no AVX-512. So all that these files define is named
after their instruction set.
"""

import re
import shutil
import subprocess
from pathlib import Path
from sysconfig import get_platform

import pytest
from setuptools.modified import newer_group
from test_ops.support import ROOT, find_compiler

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

CSRC = ROOT / 'mmmamba' / 'ops' / 'csrc'
SOURCES = sorted(CSRC.glob('common/cpu/kernels_avx*.cpp'))

# The address of a function of the C++ runtime: data that is alike everywhere.
DATA = 'DW.ref.__gxx_personality_v0'
SHARED = """
#include <vector>
void add(std::vector<long>& numbers) { numbers.push_back(1); }
"""


def compile_file(source: Path, folder: Path) -> Path:
    """The object that setup.py linked, if it is of today's sources."""
    folder = ROOT / f'build/kernels.{get_platform()}'
    built = folder / source.relative_to(ROOT)
    built = built.with_suffix('.o')
    # By the rule of setup.py.
    if not newer_group([source, *CSRC.rglob('*.h*')], built):
        return built
    compiled = folder / 'compiled.o'
    # What -O3 inlines is no symbol: -O1 shows as many or more, and is faster.
    flags = ['-std=c++17', '-O1', '-g0', '-fPIC', '-w', '-c']
    compiler = find_compiler(target='x86_64')
    subprocess.run([*compiler, *flags, source, '-o', compiled], check=True)
    return compiled


def weak_symbols(compiled: Path) -> list[str]:
    """What an object defines and the linker may take from another one."""
    nm = shutil.which('nm')
    if nm is None:
        pytest.skip('no nm, which is a part of binutils')
    listing = subprocess.run(
        [nm, '-C', compiled], check=True, capture_output=True, text=True
    ).stdout
    symbols = re.findall(r'^\w* *(\w) (.+)$', listing, re.MULTILINE)
    return [name for kind, name in symbols if kind in 'WVui' and name != DATA]


def test_there_are_files_for_all():
    found = {file.stem.removeprefix('kernels_') for file in SOURCES}
    assert found == {*('avx2', 'avx512', 'avx512_vnni', 'avx512_dot')}


@pytest.mark.parametrize('source', SOURCES, ids=lambda file: file.stem)
def test_all_weak_symbols_are_of_the_instruction_set(source, tmp_path):
    found = weak_symbols(compile_file(source, tmp_path))
    isa = source.stem.removeprefix('kernels_')
    assert any(isa in name for name in found)
    assert [name for name in found if isa not in name] == []


def test_what_is_shared_is_found(tmp_path):
    source, compiled = tmp_path / 'shared.cpp', tmp_path / 'shared.o'
    source.write_text(SHARED)
    command = [*find_compiler(), '-O3', '-c', source, '-o', compiled]
    subprocess.run(command, check=True)
    found = weak_symbols(compiled)
    assert any('std::vector<long' in name for name in found)
