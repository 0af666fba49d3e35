"""Plot curves and average the times of a training log (vis_data/scalars.json).

The tool is the toolbox's own; ``--help`` lists its options.
"""

import sys
from pathlib import Path

from matplotlib import style

from mmmamba.utils.cli import UsageError, run_tool
from mmmamba.utils.installed_tools import run_installed_tool


def main() -> None:
    for log in map(Path, sys.argv[1:]):
        if log.suffix == '.json' and log.is_file() and not log.stat().st_size:
            raise UsageError(
                f'{log} is empty: its run ended before the first line of the '
                'log'
            )
    # mmdet asks matplotlib for a style that is seaborn's.
    style.library['dark'] = style.library.get('seaborn-v0_8-dark', {})
    run_installed_tool('analyze_logs')


if __name__ == '__main__':
    run_tool(main)
