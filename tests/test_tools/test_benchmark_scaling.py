"""benchmark_scaling.py: what it writes, not how long anything takes."""

import csv
import os

import pytest

pytestmark = pytest.mark.slow

TOOL = 'analysis_tools/benchmark_scaling.py'

# Not on macOS.
has_affinity = hasattr(os, 'sched_getaffinity')


def test_rows(run_tool, tmp_path, capsys):
    file, picture = tmp_path / 'out/rows.csv', tmp_path / 'plots/scaling.png'
    cores = os.sched_getaffinity(0) if has_affinity else {0}
    counts = [1, 2] if len(cores) > 1 else [1]
    code = run_tool(
        *(TOOL, 'mobilemamba:t2', '--sizes', 32, '--serve-size', 40),
        *('--threads', *counts, '--rounds', 2),
        *('--csv', file, '--plot', picture),
    )
    assert code == 0
    assert not has_affinity or os.sched_getaffinity(0) == cores
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert 'ns a pixel' in capsys.readouterr().out
    # One process with each number of threads, then the ways to serve.
    keys = ('size', 'processes', 'threads')
    expected = [(32, 1, 1), (40, 1, 1)]
    if len(counts) > 1:
        expected = [(32, 1, 1), (32, 1, 2), (40, 2, 1), (40, 1, 2)]
    rows = list(csv.DictReader(file.open()))
    assert [tuple(int(row[key]) for key in keys) for row in rows] == expected
    for row in rows:
        pixels = float(row['images/s']) * int(row['size']) ** 2
        of_each = pixels / int(row['processes'])
        assert float(row['ns/pixel']) == pytest.approx(1e9 / of_each)


def test_unknown_model(run_tool, capsys):
    code = run_tool(TOOL, 'mobilemamba:zz', '--sizes', 32, '--threads', 1)
    assert code == 1
    error = capsys.readouterr().err
    assert "MobileMamba has no model 'zz'" in error
    assert 'Traceback' not in error


def test_more_threads_than_cores(run_tool, capsys):
    code = run_tool(TOOL, 'mobilemamba:t2', '--threads', 100000)
    assert code != 0
    assert 'cores' in capsys.readouterr().err
