"""MobileMamba for OpenMMLab: detection, segmentation and classification.

Importing the package registers its modules, so that
``custom_imports = dict(imports=['mmmamba'])`` is all a config needs. Where
mmengine is not installed, there are the ops and the deployed layers, which
need PyTorch alone; where PyTorch is not either, there is what runs exported
models.
"""

from importlib.util import find_spec

from mmmamba import deploy
from mmmamba.deploy.libraries import openvino_extension, ort_library
from mmmamba.version import __version__

__all__ = ['__version__', 'deploy', 'openvino_extension', 'ort_library']

try:
    import torch  # noqa: F401
except ImportError:
    _has_torch = False
else:
    _has_torch = True

# Not by trying the import: an mmengine that fails to import shall say why.
if _has_torch and find_spec('mmengine') is not None:
    from mmmamba import openmmlab

    openmmlab.install()

    from mmmamba import backbones, hooks, necks

    __all__ += ['backbones', 'hooks', 'necks']
elif _has_torch:
    from mmmamba import ops

    __all__ += ['ops']
