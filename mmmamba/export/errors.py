"""The error of everything that cannot be exported."""

import importlib

from mmmamba.utils.cli import UsageError


class ExportError(UsageError):
    """A model, an option or a package that an export cannot serve."""


def need(package: str, install: str | None = None):
    """Import a package that only some formats need.

    Args:
        package (str): What is imported.
        install (str, optional): What pip installs. Defaults to ``package``.

    Returns:
        module: The package.

    Raises:
        ExportError: If it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ExportError(
            f'this needs {package} ({error}); run: '
            f'pip install {install or package}'
        ) from None
