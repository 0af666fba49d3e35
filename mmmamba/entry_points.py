"""Commands of an installed mmmamba: the tools, where no checkout is at hand.

``mmmamba-train`` is ``tools/train.py``, and so on; pyproject.toml lists them.
"""

import runpy
from pathlib import Path

#: Configs and tools, as mim looks for them.
ROOT = Path(__file__).parent / '.mim'


def run(tool: str) -> None:
    """Run a tool as ``python tools/TOOL`` does.

    Args:
        tool (str): Its path below ``tools``.
    """
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')


def train() -> None:
    """Run ``tools/train.py``."""
    run('train.py')


def test() -> None:
    """Run ``tools/test.py``."""
    run('test.py')


def image_demo() -> None:
    """Run ``tools/image_demo.py``."""
    run('image_demo.py')


def prepare() -> None:
    """Run ``tools/dataset_tools/prepare.py``."""
    run('dataset_tools/prepare.py')


def check_dataset() -> None:
    """Run ``tools/dataset_tools/check_dataset.py``."""
    run('dataset_tools/check_dataset.py')


def export() -> None:
    """Run ``tools/deployment/export.py``."""
    run('deployment/export.py')


def predict() -> None:
    """Run ``tools/deployment/predict.py``."""
    run('deployment/predict.py')


def env() -> None:
    """Run ``tools/collect_env.py``."""
    run('collect_env.py')
