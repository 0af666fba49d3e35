"""Every tool starts and explains itself."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(
    str(file.relative_to(ROOT)) for file in ROOT.glob('tools/**/*.py')
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def answers():
    """Exit code, output and errors of each tool.

    One process asks all of them: the import of OpenMMLab takes several
    seconds.
    """
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    result = subprocess.run(
        [sys.executable, 'tests/programs/tools_help.py', *TOOLS],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths))),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_tools_are_found():
    assert {'tools/train.py', 'tools/analysis_tools/benchmark_op.py'} <= set(
        TOOLS
    )


@pytest.mark.parametrize('tool', TOOLS)
def test_help(tool, answers):
    code, output, errors = answers[tool]
    assert code == 0, errors
    assert 'usage:' in output
