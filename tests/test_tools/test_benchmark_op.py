"""benchmark_op.py: what it writes, not how long anything takes."""

import pytest

pytestmark = pytest.mark.slow

TOOL = 'analysis_tools/benchmark_op.py'


def test_tables(run_tool, tmp_path):
    file = tmp_path / 'rows.csv'
    tables = 'backbone', 'deployed'
    code = run_tool(TOOL, '--tables', *tables, '--rounds', 1, '--csv', file)
    assert code == 0
    lines = file.read_text().splitlines()
    headers = [line for line in lines if line.startswith('table,')]
    assert len(headers) == 2
    assert {line.split(',')[0] for line in lines} == {'table', *tables}
    # The ops of a deployed network, not the one op of a block or a stage.
    ops = {line.split(',')[2] for line in lines if line.startswith('deployed')}
    assert ops == {
        *('depthwise_conv', 'mixer_conv', 'scan_gate', 'linear'),
        *('feed_forward', 'stem_conv'),
    }
