"""The checkpoints that mmengine reads from disk are read safely, too."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmmamba.checkpoint import (
    is_published,
    load_from_local,
    unwrap_state_dict,
)
from mmmamba.checkpoint.files import HAS_SAFE_GLOBALS

from .report import changed, left_alone, name_of

# mmengine's name for "no scheme", a path.
_LOCAL = ''


def load_for_runner(
    filename: str | Path, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """Read a file safely, into the container that mmengine's hooks expect.

    Args:
        filename (str | Path): A local file.
        map_location (str | torch.device, optional): As in ``torch.load``.
            Defaults to ``'cpu'``.

    Returns:
        dict: What the file holds. The weights of a published checkpoint are
        under ``state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: As :func:`mmmamba.checkpoint.load_from_local`.
    """
    checkpoint = load_from_local(filename, map_location)
    if 'state_dict' in checkpoint:
        weights = checkpoint['state_dict']
        if (
            isinstance(weights, Mapping)
            and weights
            and all(str(name).startswith('module.') for name in weights)
        ):
            # Of DistributedDataParallel; mmengine's EMAHook keeps the prefix.
            return {**checkpoint, 'state_dict': unwrap_state_dict(checkpoint)}
        return checkpoint
    containers = {'net', 'net_E', 'model'}
    if containers & set(checkpoint) or is_published(checkpoint):
        return {'state_dict': unwrap_state_dict(checkpoint)}
    return checkpoint


def install() -> None:
    """Register the safe loader as mmengine's loader of local files."""
    if not HAS_SAFE_GLOBALS:
        return
    loader = CheckpointLoader._schemes[_LOCAL]
    if loader is load_for_runner:
        return
    if loader is not mmengine_checkpoint.load_from_local:
        left_alone(
            f'{name_of(loader)} reads the checkpoints of runners from disk, '
            'and mmmamba leaves it in place: whether files that would run '
            'code are refused and published ones understood is up to it. '
            "For mmmamba's own, call mmengine.runner.CheckpointLoader."
            "register_scheme(prefixes='', force=True, loader="
            f'{name_of(load_for_runner)})'
        )
        return
    _register(load_for_runner)
    changed(f'{name_of(load_for_runner)} reads the checkpoints of runners')


def uninstall() -> None:
    """Give local files back to mmengine's own loader."""
    if CheckpointLoader._schemes[_LOCAL] is load_for_runner:
        _register(mmengine_checkpoint.load_from_local)


def _register(loader: Callable) -> None:
    CheckpointLoader.register_scheme(
        prefixes=_LOCAL, loader=loader, force=True
    )
