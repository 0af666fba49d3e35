"""benchmark_scaling.py: what it writes, not how long anything takes."""

import csv
import os

import pytest

pytestmark = pytest.mark.slow

TOOL = 'analysis_tools/benchmark_scaling.py'


def test_rows(run_tool, tmp_path, capsys):
    file, picture = tmp_path / 'out/rows.csv', tmp_path / 'plots/scaling.png'
    code = run_tool(
        *(TOOL, 'mobilemamba:t2', '--sizes', 32, 48, '--serve-size', 40),
        *('--threads', 1, '--rounds', 2, '--csv', file, '--plot', picture),
    )
    assert code == 0
    assert picture.read_bytes().startswith(b'\x89PNG')
    assert 'ns a pixel' in capsys.readouterr().out
    rows = list(csv.DictReader(file.open()))
    assert [int(row['size']) for row in rows] == [32, 48, 40]
    for row in rows:
        assert row['processes'] == row['threads'] == '1'
        per_second = float(row['images/s']) * int(row['size']) ** 2
        assert float(row['ns/pixel']) == pytest.approx(1e9 / per_second)


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2
    if hasattr(os, 'sched_getaffinity')
    else 1,
    reason='processes beside each other need two cores',
)
def test_processes_share_the_cores(run_tool, tmp_path):
    file = tmp_path / 'rows.csv'
    before = os.sched_getaffinity(0)
    code = run_tool(
        *(TOOL, 'mobilemamba:t2', '--sizes', 32, '--serve-size', 32),
        *('--threads', 1, 2, '--rounds', 2, '--csv', file),
    )
    assert code == 0
    assert os.sched_getaffinity(0) == before
    rows = list(csv.DictReader(file.open()))
    # One process with either number of threads, then two ways to serve.
    keys = [(row['processes'], row['threads']) for row in rows]
    assert keys == [('1', '1'), ('1', '2'), ('2', '1'), ('1', '2')]


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
