"""What a model file must tell the program that runs it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.utils import to_2tuple
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.datasets.config import leaves, type_name
from mmmamba.version import __version__

from .errors import ExportError

#: Under this key the facts are in the metadata of a file.
KEY = 'mmmamba'


@dataclass
class Facts:
    """Facts of an exported model; saved as one JSON text.

    Attributes:
        task (str): ``'features'``, ``'classification'``, ``'detection'`` or
            ``'segmentation'``.
        arch (str): Name of the backbone's arch.
        config (str): Name of the config.
        classes (list[str]): Names, by label.
        palette (list): Colors of the classes, RGB 0 to 255, if known.
        shape (list[int] | None): Height and width of the images; None if any.
        mean, std (list[float]): Of the channels, in the order of the network.
        bgr_to_rgb (bool): Whether the channels of a BGR image are swapped.
        preprocessed (bool): Whether the graph does all that, and takes
            ``(B, H, W, 3)`` uint8 images as OpenCV reads them.
        resize (dict): How an image gets the shape: ``keep_ratio``,
            ``interpolation``, ``backend``, ``pad_value`` (of BGR pixels),
            ``scale``, height and width, where it is padded or cropped
            afterwards, ``crops``, whether its centre is taken, and of
            classifiers the size of the ``crop``, height and width, and
            ``edge``, the length of its ``side``, ``'short'``, ``'long'``,
            ``'width'`` or ``'height'``.
        unprepared (list[str]): Steps of the test pipeline that change images
            and are not among these.
        outputs (list[str]): Names.
        custom_ops (bool): Whether it needs mmmamba's library.
        align_corners (bool): Of segmentors: how logits are resized.
        mask_threshold (float): Of instance masks.
        threshold (float): Of the scores of a segmentor with one channel, and
            of a classifier with several labels.
        multi_label (bool): Whether a classifier gives an image several
            labels, with scores that do not sum to 1.
        version (str): Of mmmamba.
    """

    task: str = 'features'
    arch: str = ''
    config: str = ''
    classes: list[str] = field(default_factory=list)
    palette: list = field(default_factory=list)
    shape: list[int] | None = None
    mean: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    std: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    bgr_to_rgb: bool = False
    preprocessed: bool = False
    resize: dict = field(default_factory=dict)
    unprepared: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    custom_ops: bool = False
    align_corners: bool = False
    mask_threshold: float = 0.5
    threshold: float = 0.5
    multi_label: bool = False
    version: str = __version__

    def to_json(self) -> str:
        """Write it as a text."""
        return json.dumps(asdict(self))


def gather_facts(model: nn.Module, cfg: Config) -> Facts:
    """Collect what the model and its config say.

    Args:
        model (nn.Module): The model that is exported.
        cfg (Config): Its config.

    Returns:
        Facts: All but what the export itself decides.
    """
    facts = Facts(config=Path(cfg.filename or '').stem)
    backbones = [m for m in model.modules() if isinstance(m, MobileMamba)]
    facts.arch = backbones[0].arch_name if backbones else ''
    meta = getattr(model, 'dataset_meta', None)
    meta = meta or getattr(model, '_dataset_meta', None) or {}  # mmpretrain
    facts.classes = list(meta.get('classes', []))
    palette = meta.get('palette')
    if palette is not None and not isinstance(palette, str):
        facts.palette = [[int(v) for v in color] for color in palette]
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is not None:
        mean = getattr(preprocessor, 'mean', None)
        if mean is not None:
            facts.mean = mean.flatten().tolist()
            facts.std = preprocessor.std.flatten().tolist()
        facts.bgr_to_rgb = bool(
            getattr(preprocessor, '_channel_conversion', False)
            or getattr(preprocessor, 'channel_conversion', False)
            or getattr(preprocessor, 'to_rgb', False)
        )
    facts.resize = resizing(cfg)
    facts.unprepared = unprepared(cfg)
    return facts


def pipeline_of(cfg: Config) -> list[dict]:
    """Return the transforms that an image goes through in a test."""
    if 'test_dataloader' in cfg:
        return next(leaves(cfg.test_dataloader.dataset)).get('pipeline', [])
    return cfg.get('test_pipeline', [])


def resizing(cfg: Config) -> dict:
    """Tell how the test pipeline gives an image its size."""
    found: dict = dict(keep_ratio=True, interpolation='bilinear')
    keeps_scale = found['crops'] = cfg.get('default_scope') == 'mmpretrain'
    for step in pipeline_of(cfg):
        kind = type_name(step)
        if kind == 'Resize':
            found['keep_ratio'] = step.get('keep_ratio', False)
            if step.get('scale') is not None:
                width, height = to_2tuple(step['scale'])
                found['scale'] = [height, width]
        elif kind == 'ResizeEdge':
            found['edge'] = step['scale']
            found['side'] = step.get('edge', 'short')
        elif kind == 'CenterCrop':
            width, height = to_2tuple(step['crop_size'])
            found['crop'] = [height, width]
            if step.get('auto_pad'):
                found['pad_value'] = _pad_value(step.get('pad_cfg', {}))
        elif kind == 'Pad':
            found['pad_value'] = _pad_value(step)
            keeps_scale |= bool(step.get('size') or step.get('size_divisor'))
        else:
            continue
        for name in ('interpolation', 'backend'):
            if name in step:
                found[name] = step[name]
    if not keeps_scale:  # the shape of the file is the scale
        found.pop('scale', None)
    return found


def _pad_value(pad: dict) -> list:
    """Of the three channels of an image."""
    value = pad.get('pad_val', 0)
    value = value.get('img', 0) if isinstance(value, dict) else value
    return np.broadcast_to(value, 3).tolist()


def unprepared(cfg: Config) -> list[str]:
    """Name what the test pipeline does to an image beyond :func:`resizing`."""
    found = []
    cropped = False
    for step in pipeline_of(cfg):
        kind = type_name(step)
        if kind == 'CenterCrop':
            cropped = True
            known = cfg.get('default_scope') == 'mmpretrain'
        elif kind in ('Resize', 'ResizeEdge'):
            known = not cropped and not step.get('scale_factor')
        elif kind == 'LoadImageFromFile':
            known = step.get('color_type', 'color') == 'color'
        elif kind == 'RandomFlip':
            known = not step.get('prob')
        else:
            known = kind == 'Pad' or kind.startswith(('Load', 'Pack'))
        if not known:
            found.append(kind)
    return found


def resizing_to(how: dict, shape: Sequence[int]) -> dict:
    """Adapt how a classifier's images are resized to another size.

    Args:
        how (dict): Of the config, see :class:`Facts`.
        shape (Sequence[int]): Height and width that the network shall get.

    Returns:
        dict: With the same share of the image in the crop.
    """
    how = dict(how)
    if 'crop' in how:
        factor = min(shape) / min(how['crop'])
        if 'edge' in how:
            how['edge'] = round(how['edge'] * factor)
        if 'scale' in how:
            how['scale'] = [round(side * factor) for side in how['scale']]
        how['crop'] = list(shape)
    elif 'scale' in how:
        how['scale'] = list(shape)
    return how


def image_shape(cfg: Config) -> tuple[int, int]:
    """Choose the height and width of the images that are exported for.

    Args:
        cfg (Config): The config of the model.

    Returns:
        tuple[int, int]: What the test pipeline resizes to; the size that the
        image is cropped or padded to, if it is. A segmentor takes each image
        in its own proportions: the shape is then that of one of 4:3.

    Raises:
        ExportError: If the pipeline does not say it.
    """
    shape = None
    for step in pipeline_of(cfg):
        kind = type_name(step)
        if kind == 'Resize' and step.get('scale') is not None:
            scale = to_2tuple(step['scale'])
            shape = (scale[1], scale[0])
            if cfg.get('default_scope') == 'mmseg' and step.get('keep_ratio'):
                shorter = min(scale)
                shape = (shorter, min(max(scale), math.ceil(shorter * 4 / 3)))
        elif kind == 'CenterCrop':
            width, height = to_2tuple(step['crop_size'])
            shape = (height, width)
        elif kind == 'Pad' and step.get('size'):
            width, height = to_2tuple(step['size'])
            shape = (height, width)
        elif kind == 'Pad' and step.get('size_divisor') and shape:
            height, width = (
                side + -side % step['size_divisor'] for side in shape
            )
            shape = (height, width)
    if shape is None:
        raise ExportError(
            'the test pipeline of the config does not tell the size of the '
            'images; give --shape HEIGHT WIDTH'
        )
    return int(shape[0]), int(shape[1])
