"""Necks and heads take their input channels from the backbone's arch.

``model.backbone.arch`` is then the one option that swaps the backbone, also
on the command line of mmdet's and mmseg's own tools, where a config's Python
has run already and cannot compute channel lists any more.
"""

import copy
import logging

from mmengine.logging import print_log

from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import resolve_arch


def follow_backbone(model: dict) -> dict:
    """Set the ``in_channels`` that the backbone's arch determines.

    Those of the neck or, without one, of the heads that name an ``in_index``;
    of SSD, whose neck hands its inputs on, of both; of a classifier's head
    behind global average pooling.

    Args:
        model (dict): Config of a detector, segmentor or classifier.

    Returns:
        dict: The config itself if nothing has to change, a copy otherwise.
    """
    backbone = model.get('backbone')
    if not isinstance(backbone, dict) or not _is_mobilemamba(backbone):
        return model
    indices = backbone.get('out_indices', (0, 1, 2))
    indices = (indices,) if isinstance(indices, int) else indices
    widths = resolve_arch(backbone.get('arch', 'b1'))['channels']
    channels = tuple(widths[i] for i in indices)

    followed = copy.deepcopy(model)
    neck = (_parts(followed, 'neck') or [{}])[0]
    if str(neck.get('type')).split('.')[-1] == 'GlobalAveragePooling':
        for head in _parts(followed, 'head'):
            _set(head, 'in_channels', channels[-1])
    elif neck and 'in_channels' not in neck:
        return model  # a neck that finds out by itself
    elif neck:
        _set(neck, 'in_channels', channels)
        if neck['type'] == 'SSDNeck':
            rest = tuple(neck['out_channels'])[len(channels) :]
            _set(neck, 'out_channels', channels + rest)
            _set(followed['bbox_head'], 'in_channels', channels + rest)
    else:
        for head in _parts(followed, 'decode_head', 'auxiliary_head'):
            index = head.get('in_index', -1)
            try:
                width = (
                    channels[index]
                    if isinstance(index, int)
                    else tuple(channels[i] for i in index)
                )
            except IndexError:
                raise ValueError(
                    f'in_index={index} of {head.get("type")} is beyond the '
                    f'{len(channels)} outputs of the backbone, out_indices='
                    f'{tuple(indices)}'
                ) from None
            _set(head, 'in_channels', width)
    if followed == model:
        return model
    print_log(
        f'Channels of neck and heads follow the backbone: {channels}',
        logger='current',
        level=logging.INFO,
    )
    return followed


def _is_mobilemamba(backbone: dict) -> bool:
    kind = backbone.get('type')
    # A name may carry the scope it is registered in.
    name = kind.split('.')[-1] if isinstance(kind, str) else kind
    return name in ('MobileMamba', MobileMamba)


def _parts(model: dict, *names: str) -> list[dict]:
    """The configs under these names, each of which may be a list of them."""
    parts: list[dict] = []
    for name in names:
        part = model.get(name) or []
        parts += part if isinstance(part, (list, tuple)) else [part]
    return parts


def _set(part: dict, key: str, value: int | tuple[int, ...]) -> None:
    """Assign; a list stays a list, which mmseg's FPN insists on."""
    if isinstance(value, tuple) and isinstance(part.get(key), list):
        part[key] = list(value)
    else:
        part[key] = value
