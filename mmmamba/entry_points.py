"""Commands of an installed mmmamba: the tools, where no checkout is at hand.

``mmmamba-train`` is ``tools/train.py``, and so on; pyproject.toml lists them.
"""

import runpy
from functools import partial
from pathlib import Path

#: Configs and tools, as mim looks for them.
ROOT = Path(__file__).parent / '.mim'


def run(tool: str) -> None:
    """Run a tool as ``python tools/TOOL`` does.

    Args:
        tool (str): Its path below ``tools``.
    """
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')


train = partial(run, 'train.py')
test = partial(run, 'test.py')
image_demo = partial(run, 'image_demo.py')
prepare = partial(run, 'dataset_tools/prepare.py')
check_dataset = partial(run, 'dataset_tools/check_dataset.py')
export = partial(run, 'deployment/export.py')
predict = partial(run, 'deployment/predict.py')
env = partial(run, 'collect_env.py')
