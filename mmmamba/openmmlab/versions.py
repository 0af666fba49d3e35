"""The OpenMMLab packages around us: which versions work, and how to get them.

This is the only place that looks at versions of OpenMMLab packages. Each
exists in two editions with the same import name: the classic one and the
maintained fork (``onedl-*``).
"""

import re
from importlib import metadata

from mmmamba.version import __version__

_INSTALL = (
    'pip install "torch===2.13.0" "torchvision===0.28.0" && '
    'pip install --no-build-isolation --no-cache-dir {requirement}'
)

# import name: distributions, first version that works, first that does not
_REQUIRED = {
    'mmengine': (('onedl-mmengine', 'mmengine'), '0.10.4', '1.0.0'),
    # The backbone needs nothing of mmcv's ops.
    'mmcv': (('onedl-mmcv', 'mmcv', 'mmcv-lite'), '2.1.0', '2.4.0'),
}
_OPTIONAL = {
    'mmdet': (('onedl-mmdetection', 'mmdet'), '3.3.0', '4.0.0'),
    'mmseg': (('onedl-mmsegmentation', 'mmsegmentation'), '1.2.2', '2.0.0'),
    'mmpretrain': (('onedl-mmpretrain', 'mmpretrain'), '1.2.0', '2.0.0'),
}


def check_stack() -> None:
    """Check the packages this one builds on.

    Raises:
        ImportError: If mmengine or mmcv is missing, or any OpenMMLab package
            is too old or too new; names the version found, the range that
            works and the command that fixes it.
    """
    for name, (editions, low, high) in {**_REQUIRED, **_OPTIONAL}.items():
        distribution, version = _installed(editions)
        requirement = f'"{editions[0]}>={low},<{high}"'
        remedy = f'Run: {_INSTALL.format(requirement=requirement)}'
        if version is None:
            if name in _REQUIRED:
                raise ImportError(
                    f'mmmamba {__version__} needs {name} >= {low}, < {high}, '
                    f'and it is not installed. {remedy}'
                )
        elif not _key(low) <= _key(version) < _key(high):
            raise ImportError(
                f'mmmamba {__version__} works with {name} >= {low}, < {high},'
                f' but {distribution} {version} is installed. {remedy}'
            )


def installed_packages() -> dict[str, tuple[str, str | None]]:
    """List the OpenMMLab packages.

    Returns:
        dict[str, tuple]: Distribution and version by import name; the version
        is None where none is installed.
    """
    return {
        name: _installed(editions)
        for name, (editions, _, _) in {**_REQUIRED, **_OPTIONAL}.items()
    }


def _installed(editions: tuple[str, ...]) -> tuple[str, str | None]:
    """Find which edition of a package is installed, and its version."""
    for distribution in editions:
        try:
            return distribution, metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return editions[0], None


def _key(version: str) -> tuple[int, ...]:
    """Comparable form of the leading numbers of a version."""
    key = []
    for part in version.split('+')[0].split('.')[:3]:
        digits = re.sub('[^0-9].*', '', part)
        key.append(int(digits or 0))
    return tuple(key)
