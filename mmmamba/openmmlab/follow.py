"""Necks and heads take their input channels from the backbone's arch.

``model.backbone.arch`` is then the one option that swaps the backbone, also
on the command line of mmdet's and mmseg's own tools, where a config's Python
has run already and cannot compute channel lists any more.
"""

import copy
import inspect
import logging
from collections.abc import Iterator

from mmengine.logging import print_log

from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import resolve_arch

# The option with the width, where it is not called in_channels.
_OPTIONS = dict(Feature2Pyramid='embed_dim', ClsBatchNormNeck='input_features')
# What reads the last of its maps; all other necks of one width read all maps.
_LAST_MAP_NECKS = (
    *('ClsBatchNormNeck', 'CTResNetNeck', 'DilatedEncoder', 'LinearNeck'),
    *('DenseCLNeck', 'MoCoV2Neck', 'NonLinearNeck', 'SwAVNeck'),
)
_LAST_MAP_HEADS = ('head', 'decode_head', 'auxiliary_head')
# What reads every map with the same layers.
_SHARED_HEADS = ('rpn_head', 'bbox_head', 'mask_head', 'semantic_head')
_QUERY_HEADS = ('panoptic_head', 'track_head')


def check_backbone(cfg: dict) -> None:
    """Refuse arguments that MobileMamba does not have.

    Most are left over from another backbone, whose config was inherited.

    Args:
        cfg (dict): Config of any module.

    Raises:
        TypeError: If it is of a MobileMamba with an unknown argument; says
            what to write instead.
    """
    if _kind(cfg) != 'MobileMamba':
        return
    known = list(inspect.signature(MobileMamba).parameters)
    unknown = [
        k for k in cfg if k not in known and k not in ('type', '_scope_')
    ]
    if 'pretrained' in unknown:
        raise TypeError(
            f'MobileMamba has no argument pretrained={cfg["pretrained"]!r}: '
            'write pretrained=None in model, next to backbone, where mmseg '
            'keeps it, or take it out of backbone. To start from a checkpoint '
            "write backbone=dict(init_cfg=dict(type='Pretrained', "
            'checkpoint=FILE))'
        )
    if unknown:
        raise TypeError(
            f'MobileMamba has no argument {", ".join(unknown)}. If the config '
            "inherits another backbone's, write backbone=dict(_delete_=True, "
            f"type='MobileMamba', ...); the arguments are {', '.join(known)}"
        )


def follow_backbone(model: dict) -> dict:
    """Set the input channels that the backbone's arch determines.

    Those of the neck, and those of heads whose inputs come from the backbone
    itself: without a neck, or behind one that hands its inputs on, such as
    SSD's or global average pooling. What reads all maps with one layer, and
    gets maps of different widths, is left alone, with a warning.

    Args:
        model (dict): Config of a detector, segmentor or classifier.

    Returns:
        dict: The config itself if nothing has to change, a copy otherwise.

    Raises:
        ValueError: If the arch is unknown, or an ``in_index`` is beyond the
            backbone's outputs.
    """
    channels = {
        prefix: widths
        for prefix in ('', 'teacher_')  # LAD's teacher is a second model
        if isinstance(backbone := model.get(f'{prefix}backbone'), dict)
        and _kind(backbone) == 'MobileMamba'
        and (widths := _channels(backbone))
    }
    if not channels:
        return model
    followed = copy.deepcopy(model)
    for prefix, widths in channels.items():
        _follow(followed, prefix, widths)
    if followed == model:
        return model
    print_log(
        'Channels of neck and heads follow the backbone: '
        f'{", ".join(map(str, channels.values()))}',
        logger='current',
        level=logging.INFO,
    )
    return followed


def _channels(backbone: dict) -> tuple[int, ...]:
    """Widths of the backbone's outputs; none if it will refuse the indices."""
    indices = backbone.get('out_indices', (0, 1, 2))
    indices = (indices,) if isinstance(indices, int) else indices
    widths = resolve_arch(backbone.get('arch', 'b1'))['channels']
    known = set(indices) <= set(range(len(widths)))
    return tuple(widths[i] for i in indices) if known else ()


def _follow(model: dict, prefix: str, widths: tuple[int, ...]) -> None:
    """Set the options of the parts in place."""
    for neck in _listed(model.get(f'{prefix}neck')):
        _set_neck(neck, widths)
        handed_on = _handed_on(neck, widths)
        if handed_on is None:
            return
        widths = handed_on
    for name in _LAST_MAP_HEADS:
        for head in _heads(model.get(prefix + name)):
            _set(head, name, widths, last_map=True)
    for name in (*_SHARED_HEADS, *_QUERY_HEADS):
        for head in _heads(model.get(prefix + name)):
            _set(head, name, widths)
    if model.get(f'{prefix}roi_head'):
        _set_roi_head(model[f'{prefix}roi_head'], widths)


def _set_neck(neck: dict, widths: tuple[int, ...]) -> None:
    kind = _kind(neck)
    if kind == 'YOLOV3Neck':  # the coarsest map comes first
        widths = widths[::-1]
    _set(
        neck,
        'neck',
        widths,
        option=_OPTIONS.get(kind, 'in_channels'),
        last_map=kind in _LAST_MAP_NECKS,
    )
    if kind == 'SSDNeck':
        rest = tuple(neck['out_channels'])[len(widths) :]
        neck['out_channels'] = _like(neck['out_channels'], widths + rest)


def _handed_on(neck: dict, widths: tuple[int, ...]) -> tuple[int, ...] | None:
    """Widths behind a neck if the backbone determines them."""
    kind = _kind(neck)
    if kind == 'SSDNeck':
        return tuple(neck['out_channels'])
    if kind == 'JPU':  # all maps but the last stay as they are
        dilations = len(neck.get('dilations', (1, 2, 4, 8)))
        joined = neck.get('mid_channels', 512) * dilations
        return (*widths[neck.get('start_level', 0) : -1], joined)
    pooling = ('GlobalAveragePooling', 'GeneralizedMeanPooling')
    if kind in (*pooling, *_OPTIONS):
        return widths
    return None


def _set_roi_head(roi_head: dict, widths: tuple[int, ...]) -> None:
    """Two-stage detectors without a neck."""
    if roi_head.get('shared_head'):
        _left_alone(
            'roi_head',
            roi_head['shared_head'],
            'its shared_head is a stage of a ResNet, of fixed width; write '
            'shared_head=None, or put a neck behind the backbone',
        )
        return
    for name in ('bbox', 'mask'):
        for part in _listed(roi_head.get(f'{name}_roi_extractor')):
            _set(
                part,
                f'roi_head.{name}_roi_extractor',
                widths,
                option='out_channels',
            )
        for part in _listed(roi_head.get(f'{name}_head')):
            _set(part, f'roi_head.{name}_head', widths)


def _set(
    part: dict,
    name: str,
    widths: tuple[int, ...],
    option: str = 'in_channels',
    last_map: bool = False,
) -> None:
    """Set the width or widths of what a part reads, in the config's form."""
    if 'c1_in_channels' in part and part['c1_in_channels']:
        part['c1_in_channels'] = widths[0]  # DeepLabv3+ also reads this one
    if 'in_index' in part:
        part[option] = _indexed(part, widths)
    elif option not in part and name not in _LAST_MAP_HEADS:
        return  # one that finds out by itself
    elif isinstance(part.get(option), (list, tuple)):
        part[option] = _like(part[option], widths)
    elif last_map or len(set(widths)) == 1:
        part[option] = widths[-1]
    else:
        _left_alone(
            name,
            part,
            f'{option}={part[option]} is for maps of one width, and it gets '
            f'{", ".join(map(str, widths))}; put a neck before it '
            "(type='MobileMambaFPN', in_channels="
            f'{list(widths)}), or let backbone.out_indices name one stage',
        )


def _indexed(part: dict, widths: tuple[int, ...]) -> int | list | tuple:
    index = part['in_index']
    try:
        if isinstance(index, int):
            return widths[index]
        return _like(part.get('in_channels'), tuple(widths[i] for i in index))
    except IndexError:
        raise ValueError(
            f'in_index={index} of {_kind(part)} is beyond the {len(widths)} '
            'maps that it gets from backbone.out_indices; write indices from '
            f'0 to {len(widths) - 1}'
        ) from None


def _heads(cfg: dict | list[dict] | None) -> Iterator[dict]:
    """The configs of heads; those of heads inside of them instead, or too."""
    for head in _listed(cfg):
        inner = [
            head.get('kernel_generate_head'),  # KNet
            head.get('stages'),  # cascade RPN
            *head.get('task_heads', {}).values(),
        ]
        parts = [part for inside in inner for part in _heads(inside)]
        yield from parts
        if not parts or 'in_channels' in head:
            yield head


def _listed(cfg: dict | list[dict] | None) -> list[dict]:
    """A part may be one config or a list of them."""
    parts = cfg if isinstance(cfg, (list, tuple)) else [cfg]
    return [part for part in parts if isinstance(part, dict)]


def _like(old: object, widths: tuple[int, ...]) -> list | tuple:
    """A list stays a list, which mmseg's FPN insists on."""
    return list(widths) if isinstance(old, list) else widths


def _kind(cfg: dict) -> str:
    """Name of a config's type, which may be a class or carry its scope."""
    kind = cfg.get('type')
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


def _left_alone(name: str, part: dict, reason: str) -> None:
    print_log(
        f'{name} ({_kind(part)}) does not follow the backbone: {reason}',
        logger='current',
        level=logging.WARNING,
    )
