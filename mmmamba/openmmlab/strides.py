"""Warn of detectors whose anchors, points or RoIs are for other maps.

Most configs of mmdet are written for maps of strides 4 to 32, and MobileMamba
gives 16 to 64. A head that takes a map for one of half its stride looks at a
quarter of the image, and learns from that without a word.
"""

import logging
import math
from collections.abc import Iterator

import torch
from mmengine.logging import print_log
from mmengine.utils import to_2tuple
from torch import nn

from mmmamba.backbones import MobileMamba

_SIDE = 256  # of the image that tells; small, as each build runs it
# Some strides are rounded, such as SSDLite's 107 for 128: no error.
_FACTOR = 1.9


def check_strides(model: nn.Module) -> None:
    """Warn if parts of a detector are for maps of other strides.

    Args:
        model (nn.Module): Any model that was just built; only detectors on a
            MobileMamba are looked at. It stays as it is.
    """
    backbone = getattr(model, 'backbone', None)
    if not isinstance(backbone, MobileMamba) or backbone.deploy:
        return
    parts = {strides: name for name, strides in _parts(model)}
    # What is of the meta device has no memory to run in.
    if not parts or next(backbone.parameters()).is_meta:
        return
    true = _true_strides(model)
    for strides, name in parts.items():
        # A map of one pixel may have any larger stride.
        pairs = [pair for pair in zip(strides, true) if pair[1] < _SIDE]
        if all(max(a / b, b / a) < _FACTOR for a, b in pairs):
            continue
        wanted, given = (', '.join(map(str, s)) for s in zip(*pairs))
        print_log(
            f'{name} is for maps of strides {wanted}, but gets maps of '
            f'strides {given}, so that it looks at the wrong places of an '
            'image. MobileMamba has maps of strides 16, 32 and 64: '
            "type='MobileMambaFPN' with num_finer=1 as the neck begins at 8, "
            'with num_finer=2 at 4; or set the strides of the part',
            logger='current',
            level=logging.WARNING,
        )


def _parts(model: nn.Module) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Parts that place something in an image, and the strides they expect."""
    for name, part in model.named_modules():
        strides = getattr(part, 'featmap_strides', None)
        if strides is None:
            generator = getattr(part, 'prior_generator', None)
            strides = getattr(generator, 'strides', None)
        if strides is not None:  # one number or a pair for each map
            yield name, tuple(max(to_2tuple(s)) for s in strides)


def _true_strides(model: nn.Module) -> list[int]:
    """Strides of the maps behind the neck; none if it needs more than them."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            image = torch.zeros(1, 3, _SIDE, _SIDE, device=device)
            maps = model.extract_feat(image)  # type: ignore[operator]
        return [math.ceil(_SIDE / m.shape[-1]) for m in maps]
    except Exception:  # one with other inputs, or whose own error comes later
        return []
    finally:
        for module, training in modes:
            module.training = training
