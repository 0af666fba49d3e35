"""What a model file must tell the program that runs it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mmengine.config import Config
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.version import __version__

from .errors import ExportError


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
            ``interpolation``, ``backend`` and, of classifiers, ``edge``, the
            length of the shorter side before the crop.
        outputs (list[str]): Names.
        custom_ops (bool): Whether it needs mmmamba's library.
        align_corners (bool): Of segmentors: how logits are resized.
        mask_threshold (float): Of instance masks.
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
    outputs: list[str] = field(default_factory=list)
    custom_ops: bool = False
    align_corners: bool = False
    mask_threshold: float = 0.5
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
    meta = getattr(model, 'dataset_meta', None) or {}
    facts.classes = list(meta.get('classes', []))
    palette = meta.get('palette')
    if palette and not isinstance(palette, str):
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
    return facts


def pipeline_of(cfg: Config) -> list[dict]:
    """Return the transforms that an image goes through in a test."""
    if 'test_dataloader' in cfg:
        dataset = cfg.test_dataloader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        return dataset.get('pipeline', [])
    return cfg.get('test_pipeline', [])


def kind_of(step: dict) -> str:
    """Return the class name of a transform."""
    kind = step['type']
    return kind.rsplit('.', 1)[-1] if isinstance(kind, str) else kind.__name__


def resizing(cfg: Config) -> dict:
    """Tell how the test pipeline gives an image its size."""
    found: dict = dict(keep_ratio=True, interpolation='bilinear')
    for step in pipeline_of(cfg):
        kind = kind_of(step)
        if kind == 'Resize':
            found['keep_ratio'] = step.get('keep_ratio', False)
        elif kind == 'ResizeEdge':
            found['edge'] = step['scale']
        elif kind == 'Pad' and isinstance(step.get('pad_val'), dict):
            found['pad_value'] = list(step['pad_val'].get('img', (0, 0, 0)))
        else:
            continue
        for name in ('interpolation', 'backend'):
            if name in step:
                found[name] = step[name]
    return found


def image_shape(cfg: Config) -> tuple[int, int]:
    """Choose the height and width of the images that are exported for.

    Args:
        cfg (Config): The config of the model.

    Returns:
        tuple[int, int]: What the test pipeline resizes to; the size that the
        image is cropped or padded to, if it is.

    Raises:
        ExportError: If the pipeline does not say it.
    """
    shape = None
    for step in pipeline_of(cfg):
        kind = kind_of(step)
        if kind == 'Resize' and step.get('scale') is not None:
            scale = step['scale']
            scale = (scale, scale) if isinstance(scale, int) else scale
            shape = (scale[1], scale[0])
        elif kind == 'CenterCrop':
            size = step['crop_size']
            shape = (size, size) if isinstance(size, int) else tuple(size)
        elif kind == 'Pad' and step.get('size'):
            shape = (step['size'][1], step['size'][0])
    if shape is None:
        raise ExportError(
            'the test pipeline of the config does not tell the size of the '
            'images; give --shape HEIGHT WIDTH'
        )
    return int(shape[0]), int(shape[1])
