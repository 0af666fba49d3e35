"""The analysis tools that mmdet, mmseg and mmpretrain install."""

import runpy
import sys
from importlib import import_module
from pathlib import Path

from mmengine.config import Config

from mmmamba.utils.cli import UsageError


def run_installed_tool(name: str) -> None:
    """Run the toolbox's own tool on the arguments of this process.

    Which toolbox, a config among the arguments says, or the one that mmengine
    left beside a log; mmdet, where there is neither.

    Args:
        name (str): Of the file in the toolboxes' ``tools/analysis_tools``,
            without ``.py``.

    Raises:
        UsageError: If the toolbox has no such tool, or the tool needs a
            package that is not installed.
    """
    scope = _scope(sys.argv[1:])
    package = Path(import_module(scope).__path__[0])
    path = package / '.mim/tools/analysis_tools' / f'{name}.py'
    if not path.is_file():
        raise UsageError(f'{scope} has no analysis tool {name}')
    # What the tool takes for its own folder and name.
    sys.path.insert(0, str(path.parent))
    sys.argv[0] = str(path)
    try:
        runpy.run_path(str(path), run_name='__main__')
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{scope}'s {name} needs {error.name}: pip install {error.name}"
        ) from None


def _scope(arguments: list[str]) -> str:
    for path in map(Path, arguments):
        if path.suffix == '.json':
            path = path.with_name('config.py')
        if path.suffix == '.py' and path.is_file():
            return Config.fromfile(path).get('default_scope', 'mmdet')
    return 'mmdet'
