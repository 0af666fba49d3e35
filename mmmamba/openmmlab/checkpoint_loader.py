"""The checkpoints that mmengine reads, of disks and http, are read safely."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmmamba.checkpoint import files, is_published, unwrap_state_dict

from .report import changed, left_alone, name_of


def load_from_disk(
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
    return in_container(files.load_from_local(filename, map_location))


def load_from_http(
    filename: str, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """Download a file and read it as :func:`load_from_disk`.

    Args:
        filename (str): An http(s) address.
        map_location (str | torch.device, optional): As in ``torch.load``.
            Defaults to ``'cpu'``.

    Returns:
        dict: As of :func:`load_from_disk`.

    Raises:
        CheckpointError: As :func:`mmmamba.checkpoint.files.load_from_http`.
    """
    return in_container(files.load_from_http(filename, map_location))


def in_container(checkpoint: dict) -> dict:
    """Put the weights of a file where mmengine's hooks expect them.

    Args:
        checkpoint (dict): What the file holds.

    Returns:
        dict: The same, with weights under ``state_dict``.
    """
    contained = isinstance(checkpoint.get('state_dict'), Mapping)
    weights = checkpoint['state_dict'] if contained else checkpoint
    names = [str(name) for name in weights]
    # mmengine's EMAHook would keep prefixes that all names have. A part of a
    # model may have been compiled.
    wrapped = all(map(files.WRAPPERS.search, names))
    wrapped |= any('_orig_mod.' in name for name in names)
    if set(files.AVERAGES) & set(checkpoint) or (names and wrapped):
        weights = unwrap_state_dict(checkpoint)
        return {**(checkpoint if contained else {}), 'state_dict': weights}
    if 'state_dict' in checkpoint:
        return checkpoint
    if set(files.CONTAINERS) & set(checkpoint) or is_published(checkpoint):
        return {'state_dict': unwrap_state_dict(checkpoint)}
    return checkpoint


# By mmengine's names of schemes; a path has none.
_LOADERS: dict[str, Callable] = {
    '': load_from_disk,
    'http://': load_from_http,
    'https://': load_from_http,
}


def install() -> None:
    """Register the safe loaders in the place of mmengine's own."""
    if not files.HAS_SAFE_GLOBALS:
        return
    for scheme, ours in _LOADERS.items():
        loader = CheckpointLoader._schemes[scheme]
        if loader is ours:
            continue
        if loader is not _own(scheme):
            left_alone(
                f'{name_of(loader)} reads the checkpoints of runners from '
                f'{scheme or "disk"}, and mmmamba leaves it in place: whether '
                'files that would run code are refused and published ones '
                "understood is up to it. For mmmamba's own, call "
                'mmengine.runner.CheckpointLoader.register_scheme('
                f'prefixes={scheme!r}, force=True, loader={name_of(ours)})'
            )
            continue
        _register(scheme, ours)
        changed(
            f'{name_of(ours)} reads the checkpoints of runners from '
            f'{scheme or "disk"}'
        )


def uninstall() -> None:
    """Give files and addresses back to mmengine's own loaders."""
    for scheme, ours in _LOADERS.items():
        if CheckpointLoader._schemes[scheme] is ours:
            _register(scheme, _own(scheme))


def _own(scheme: str) -> Callable:
    """Return the loader of mmengine."""
    if scheme:
        return mmengine_checkpoint.load_from_http
    return mmengine_checkpoint.load_from_local


def _register(scheme: str, loader: Callable) -> None:
    CheckpointLoader.register_scheme(
        prefixes=scheme, loader=loader, force=True
    )
