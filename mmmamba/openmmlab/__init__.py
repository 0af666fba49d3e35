"""All that mmmamba changes in other OpenMMLab packages, behind one door."""

from .versions import check_stack, installed_packages

__all__ = ['check_stack', 'install', 'installed_packages', 'uninstall']


def _changes() -> tuple:
    """The modules of the changes; they import what check_stack() checks."""
    from . import (
        checkpoint_loader,
        contiguous,
        mmseg_configs,
        registries,
        visualizer,
    )

    return (
        mmseg_configs,
        checkpoint_loader,
        registries,
        visualizer,
        contiguous,
    )


def install() -> None:
    """Check the stack, then make every change that is not made yet.

    The module of each change says what it is for. A change is left out, with
    a warning, where another package has changed the same.

    To see what is changed, run this before the first ``import mmmamba``:

        >>> import logging
        >>> logging.basicConfig()
        >>> logging.getLogger('mmmamba').setLevel(logging.DEBUG)

    Raises:
        ImportError: If an OpenMMLab package is missing, too old or too new.
    """
    check_stack()
    for change in _changes():
        change.install()


def uninstall() -> None:
    """Undo what :func:`install` changed."""
    for change in _changes():
        change.uninstall()
