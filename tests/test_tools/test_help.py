"""Every tool starts and explains itself."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = sorted(
    str(file.relative_to(ROOT)) for file in ROOT.glob('tools/**/*.py')
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def answers(run_python):
    """Exit code, output and errors of each tool.

    One process asks all of them: the import of OpenMMLab takes several
    seconds.
    """
    program = ROOT / 'tests/programs/tools_help.py'
    result = run_python(program, *(ROOT / tool for tool in TOOLS))
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_tools_are_found():
    assert {'tools/train.py', 'tools/analysis_tools/benchmark_op.py'} <= set(
        TOOLS
    )


@pytest.mark.parametrize('tool', TOOLS)
def test_help(tool, answers):
    code, output, errors = answers[str(ROOT / tool)]
    assert code == 0, errors
    assert 'usage:' in output
