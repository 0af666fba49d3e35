"""MobileMamba for OpenMMLab: detection, segmentation and classification.

Importing the package registers its modules, so that
``custom_imports = dict(imports=['mmmamba'])`` is all a config needs.
"""

from mmmamba.openmmlab.versions import check_stack, find_mmseg_configs
from mmmamba.version import __version__

check_stack()
find_mmseg_configs()

from mmmamba import backbones, hooks, necks  # noqa: E402
from mmmamba.openmmlab import checkpoint_loader, follow  # noqa: E402

checkpoint_loader.install()
follow.install()

__all__ = ['__version__', 'backbones', 'hooks', 'necks']
