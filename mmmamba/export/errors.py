"""The error of everything that cannot be exported."""

from mmmamba.utils.cli import UsageError


class ExportError(UsageError):
    """A model, an option or a package that an export cannot serve."""
