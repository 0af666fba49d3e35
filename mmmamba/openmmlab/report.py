"""What the log says about a change, and about one that was not made."""

import logging
from collections.abc import Callable

from mmengine.logging import print_log

# Of Python, as no handler of mmengine's logger lets debug messages through.
_logger = logging.getLogger('mmmamba')


def changed(message: str) -> None:
    """Log a change of another package, at debug level.

    Args:
        message (str): What works otherwise now.
    """
    _logger.debug(message)


def left_alone(message: str) -> None:
    """Warn that somebody else was there first.

    Args:
        message (str): Who, what does not work now, and the remedy.
    """
    print_log(message, logger='current', level=logging.WARNING)


def name_of(function: Callable) -> str:
    """Return where a function is found.

    Args:
        function (Callable): Any callable.

    Returns:
        str: Such as ``mmengine.registry.build_functions.build_from_cfg``.
    """
    if hasattr(function, '__qualname__'):
        return f'{function.__module__}.{function.__qualname__}'
    return repr(function)
