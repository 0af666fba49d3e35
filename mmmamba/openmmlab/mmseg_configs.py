"""``mmseg::`` in a config's ``_base_`` finds either edition of mmseg.

mmengine looks for a distribution named mmsegmentation, which the fork is not;
the module has the same name in both.
"""

from mmengine.config.utils import MODULE2PACKAGE

from .report import changed, left_alone

_MODULE = 'mmseg'
_DISTRIBUTION = 'mmsegmentation'
_installed = False


def install() -> None:
    """Let mmengine look for the module instead of the distribution."""
    global _installed
    package = MODULE2PACKAGE.get(_MODULE)
    if package == _MODULE:
        return
    if package != _DISTRIBUTION:
        left_alone(
            f'mmengine looks for mmseg:: configs in {package!r}, which '
            'another package has set, and mmmamba leaves that in place. If '
            'they are not found, set mmengine.config.utils.MODULE2PACKAGE'
            "['mmseg'] = 'mmseg'"
        )
        return
    MODULE2PACKAGE[_MODULE] = _MODULE
    _installed = True
    changed('mmseg:: configs are looked for in the module mmseg')


def uninstall() -> None:
    """Let mmengine look for the distribution again, if that was changed."""
    global _installed
    if _installed and MODULE2PACKAGE.get(_MODULE) == _MODULE:
        MODULE2PACKAGE[_MODULE] = _DISTRIBUTION
    _installed = False
