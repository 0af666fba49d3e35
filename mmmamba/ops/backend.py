"""Which implementations of the ops can run here."""

import importlib.util

import torch


def available_backends() -> dict[str, bool]:
    """Report the implementations of the ops and whether each can run.

    Returns:
        dict[str, bool]: ``cpp-cpu`` (compiled extension), ``cuda`` (compiled
        extension and a GPU) and ``pure-torch`` (always).
    """
    compiled = importlib.util.find_spec('mmmamba._ext') is not None
    return {
        'cpp-cpu': compiled,
        'cuda': compiled and torch.cuda.is_available(),
        'pure-torch': True,
    }
