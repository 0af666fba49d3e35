"""Checking a file's backbone where no model is at hand."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import check_fit


def check_whole(arch: str | dict, tensors: Mapping[str, Tensor]) -> None:
    """Check that tensors are those of a whole backbone, and no others.

    Args:
        arch (str | dict): Its arch; the images may have any channels.
        tensors (Mapping[str, Tensor]): By our names.

    Raises:
        mmmamba.checkpoint.CheckpointError: If they are not.
    """
    stem = tensors.get('stem.0.conv.weight')
    in_channels = stem.shape[1] if stem is not None and stem.dim() > 1 else 3
    with torch.device('meta'):  # shapes are all that is needed
        model = MobileMamba(arch, in_channels=in_channels)
    check_fit(model, tensors)
