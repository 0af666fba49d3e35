"""MobileMamba for OpenMMLab: detection, segmentation and classification.

Importing the package registers its modules, so that
``custom_imports = dict(imports=['mmmamba'])`` is all a config needs.
"""

from mmmamba.stack import check_stack
from mmmamba.version import __version__

check_stack()

from mmmamba import backbones, necks  # noqa: E402

__all__ = ['__version__', 'backbones', 'necks']
