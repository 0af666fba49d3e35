"""benchmark_op.py: what it writes, not how long anything takes."""

import runpy
import sys
import types

import pytest
import torch
from test_ops.support import ROOT

from mmmamba.ops import selective_scan

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


def test_the_scan_of_mamba_ssm(monkeypatch):
    """With a stand-in, which takes its arguments by their names."""
    interface = types.ModuleType('mamba_ssm.ops.selective_scan_interface')

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=0
    ):
        assert z is None
        return selective_scan(u, delta, A, B, C, D, delta_bias, delta_softplus)

    interface.selective_scan_fn = selective_scan_fn
    for name in ('mamba_ssm', 'mamba_ssm.ops'):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    tool = runpy.run_path(str(ROOT / 'tools' / TOOL))
    scan = tool['Scan'](2, 12, 40, 3, 'cpu', torch.float32)
    torch.testing.assert_close(scan.mamba_ssm(), scan.fused())
