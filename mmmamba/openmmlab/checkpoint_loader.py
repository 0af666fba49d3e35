"""Local checkpoints that mmengine reads are read safely, too."""

from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader

from mmmamba.checkpoint import (
    is_published,
    load_from_local,
    unwrap_state_dict,
)
from mmmamba.checkpoint.files import HAS_SAFE_GLOBALS


def load_for_runner(
    filename: str | Path, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """As :func:`load_from_local`, in the container mmengine's hooks expect."""
    checkpoint = load_from_local(filename, map_location)
    if 'state_dict' in checkpoint:
        return checkpoint
    if {'net', 'net_E'} & set(checkpoint) or is_published(checkpoint):
        return {'state_dict': unwrap_state_dict(checkpoint)}
    return checkpoint


def install() -> None:
    """Let a runner or an inferencer read every local checkpoint this way."""
    if HAS_SAFE_GLOBALS:
        CheckpointLoader.register_scheme(
            prefixes='', loader=load_for_runner, force=True
        )
