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

import pytest
from test_ops.support import ROOT, find_compiler

pytestmark = [pytest.mark.compiler, pytest.mark.slow]

KERNELS = ROOT / 'mmmamba' / 'ops' / 'csrc' / 'common' / 'cpu'
SOURCES = sorted(KERNELS.glob('kernels_avx*.cpp'))

# The address of a function of the C++ runtime: data that is alike everywhere.
DATA = 'DW.ref.__gxx_personality_v0'
SHARED = """
#include <vector>
void add(std::vector<long>& numbers) { numbers.push_back(1); }
"""


def weak_symbols(source: Path, folder: Path) -> list[str]:
    """What a source defines and the linker may take from another file."""
    nm = shutil.which('nm')
    if nm is None:
        pytest.skip('no nm, which is a part of binutils')
    compiled = folder / 'compiled.o'
    # What -O3 inlines is no symbol: -O1 shows as many or more, and is faster.
    flags = ['-std=c++17', '-O1', '-g0', '-fopenmp', '-fPIC', '-w', '-c']
    compiler = find_compiler(target='x86_64')
    subprocess.run([*compiler, *flags, source, '-o', compiled], check=True)
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
    found = weak_symbols(source, tmp_path)
    isa = source.stem.removeprefix('kernels_')
    assert any(isa in name for name in found)
    assert [name for name in found if isa not in name] == []


def test_what_is_shared_is_found(tmp_path):
    source = tmp_path / 'shared.cpp'
    source.write_text(SHARED)
    found = weak_symbols(source, tmp_path)
    assert any('std::vector<long' in name for name in found)
