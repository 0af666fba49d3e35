"""Show a data set as training sees it.

The tool is the toolbox's own; ``--help`` lists its options.
"""

from mmmamba.utils.cli import run_tool
from mmmamba.utils.installed_tools import run_installed_tool


def main() -> None:
    run_installed_tool('browse_dataset')


if __name__ == '__main__':
    run_tool(main)
