"""MobileMamba for OpenMMLab: detection, segmentation and classification.

Importing the package registers its modules, so that
``custom_imports = dict(imports=['mmmamba'])`` is all a config needs. Where
mmengine is not installed, there are the ops and the deployed layers, which
need PyTorch alone.
"""

from importlib.util import find_spec

from mmmamba.version import __version__

# Not by trying the import: an mmengine that fails to import shall say why.
if find_spec('mmengine') is None:
    from mmmamba import deploy, ops

    __all__ = ['__version__', 'deploy', 'ops']
else:
    from mmmamba import openmmlab

    openmmlab.install()

    from mmmamba import backbones, hooks, necks

    __all__ = ['__version__', 'backbones', 'hooks', 'necks']
