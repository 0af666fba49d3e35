"""Models by name, ours and others', so that tools can compare them."""

import contextlib
import re
from argparse import Namespace
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_flatten

from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import PRETRAIN_SIZES
from mmmamba.checkpoint import (
    CheckpointError,
    backbone_state_dict,
    load_from_local,
    load_pretrained,
    unwrap_state_dict,
)
from mmmamba.utils.cli import UsageError, check_checkpoint, load_config

#: How the tools explain a model's name.
NAME_HELP = (
    'a config (configs/cls/mobilemamba_t2.py), mobilemamba:ARCH, timm:NAME or '
    'mmpretrain:NAME, with @PX or @HxW for the image size, for example '
    'mobilemamba:t2@192'
)
#: What of a model can be run: see :func:`build_model`.
PARTS = ('tensor', 'predict', 'backbone')


class NamedModel(nn.Module):
    """A model that takes images and nothing else.

    Args:
        model (nn.Module): A backbone, a timm model or one of OpenMMLab.
        name (str): What to call it, image size included.
        source (str): ``'config'``, ``'mobilemamba'``, ``'timm'`` or
            ``'mmpretrain'``.
        shape (tuple[int, int]): Height and width of its images.
        part (str): See :func:`build_model`.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        source: str,
        shape: tuple[int, int],
        part: str,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.name = name
        self.source = source
        self.shape = shape
        self.part = part

    @property
    def is_ours(self) -> bool:
        """Whether it contains a MobileMamba."""
        return any(isinstance(m, MobileMamba) for m in self.modules())

    def forward(self, images: Tensor):
        """Run the part on images ``(B, 3, H, W)``."""
        if self.part == 'backbone' and self.source == 'timm':
            return self.model.forward_features(images)
        if not hasattr(self.model, 'data_preprocessor'):
            return self.model(images)
        # mmdet, mmseg and mmpretrain models share these modes.
        mode = 'predict' if self.part == 'predict' else 'tensor'
        samples = _samples(self.model, images, mode)
        if samples is None:
            return self.model(images, mode=mode)
        return self.model(images, samples, mode=mode)


def _samples(model: nn.Module, images: Tensor, mode: str) -> list | None:
    """What a detector's ``forward`` needs besides the images, if anything."""
    two_stage = hasattr(model, 'roi_head')  # clips proposals to the image
    if two_stage or (mode == 'predict' and hasattr(model, 'bbox_head')):
        return detection_samples(
            len(images), (images.shape[2], images.shape[3])
        )
    return None


def detection_samples(count: int, size: tuple[int, int]) -> list:
    """Make mmdet's descriptions of images that were not resized.

    Args:
        count (int): How many.
        size (tuple[int, int]): Height and width of all of them.

    Returns:
        list[DetDataSample]: The descriptions.
    """
    from mmdet.structures import DetDataSample

    return [
        DetDataSample(
            metainfo=dict(
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                batch_input_shape=size,
                scale_factor=(1.0, 1.0),
            )
        )
        for _ in range(count)
    ]


def build_model(name: str, part: str = 'tensor') -> NamedModel:
    """Build a model, its weights untrained, in eval mode.

    Args:
        name (str): The path of a config, ``mobilemamba:ARCH``, ``timm:NAME``
            or ``mmpretrain:NAME``; ``@PX`` or ``@HxW`` after it sets the
            image size. Defaults of the size: the config's
            ``analysis_shape`` or that of its toolbox, and what timm gives;
            224 px otherwise.
        part (str): What of it to run: ``'tensor'``, the whole model without
            post-processing; ``'predict'``, with it, where there is one;
            ``'backbone'``, without neck and head. Defaults to ``'tensor'``.

    Returns:
        NamedModel: The model.

    Raises:
        UsageError: If there is no such model, or its package is missing.

    Examples:
        >>> import torch
        >>> model = build_model('mobilemamba:t2@64')
        >>> [tuple(x.shape) for x in model(torch.rand(1, 3, 64, 64))]
        [(1, 144, 4, 4), (1, 272, 2, 2), (1, 368, 1, 1)]
    """
    source, bare, shape = parse_name(name)
    build = dict(
        config=_build_config,
        mobilemamba=_build_arch,
        timm=_build_timm,
        mmpretrain=_build_mmpretrain,
    )[source]
    model, shape = build(bare, shape)
    if part == 'backbone':
        if source == 'timm':
            model.reset_classifier(0)
        else:
            model = getattr(model, 'backbone', model)
    label = _label(source, bare, shape)
    return NamedModel(model, label, source, shape, part).eval()


def _label(source: str, bare: str, shape: tuple[int, int]) -> str:
    """What tables call a model."""
    name = Path(bare).stem if source == 'config' else f'{source}:{bare}'
    height, width = shape
    return (
        f'{name}@{height}' if height == width else f'{name}@{height}x{width}'
    )


def parse_name(name: str) -> tuple[str, str, tuple[int, int] | None]:
    """Take a model's name apart.

    Args:
        name (str): See :func:`build_model`.

    Returns:
        tuple[str, str, tuple[int, int] | None]: The source, the name without
        source and size, and height and width if given.

    Raises:
        UsageError: If it is not of this form.
    """
    match = re.fullmatch(
        r'(?:(\w+):)?([^@]+?)(?:@(\d+)(?:x(\d+))?)?', name.strip()
    )
    if not match:
        raise UsageError(f'{name!r} is no name of a model; give {NAME_HELP}')
    source, bare, height, width = match.groups()
    shape = (int(height), int(width or height)) if height else None
    if source is None:
        if bare in MobileMamba.arch_zoo:
            raise UsageError(f'{name}: did you mean mobilemamba:{name}?')
        if not bare.endswith('.py'):
            raise UsageError(f'{name}: whose is it? Give {NAME_HELP}')
        return 'config', bare, shape
    if source not in ('mobilemamba', 'timm', 'mmpretrain'):
        raise UsageError(f'{name}: no source {source!r}; give {NAME_HELP}')
    return source, bare, shape


def _build_config(path: str, shape):
    cfg = load_config(Namespace(config=path, cfg_options=None))
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    return model, shape or image_shape(cfg)


def _build_arch(arch: str, shape):
    size = _arch_size(arch)
    return MobileMamba(arch), shape or (size, size)


def _arch_size(arch: str) -> int:
    """The image size an arch is pretrained at."""
    if arch.lower() not in PRETRAIN_SIZES:
        raise UsageError(_unknown('MobileMamba', arch, PRETRAIN_SIZES))
    return PRETRAIN_SIZES[arch.lower()]


def _build_timm(name: str, shape, pretrained: bool = False):
    timm = import_timm()
    if not timm.is_model(name):
        raise UsageError(_unknown('timm', name, timm.list_models()))
    # Some models are made for a size, a few of them for a square by its side;
    # most take any and have no such argument.
    options: list[dict] = [{}]
    if shape is not None:
        square = [dict(img_size=shape[0])] if shape[0] == shape[1] else []
        options = [dict(img_size=shape), *square, {}]
    for option in options[:-1]:
        with contextlib.suppress(TypeError):
            model = timm.create_model(name, pretrained, **option)
            break
    else:
        model = timm.create_model(name, pretrained)
    return model, shape or tuple(model.default_cfg['input_size'][1:])


def _build_mmpretrain(name: str, shape):
    return _get_mmpretrain(name), shape or (224, 224)


def _get_mmpretrain(name: str, pretrained: bool = False, **options):
    try:
        from mmpretrain import get_model, list_models
    except ImportError as error:
        raise UsageError(
            f'mmpretrain:{name} needs mmpretrain (pip install '
            f'onedl-mmpretrain): {error}'
        ) from None
    if name not in list_models():
        raise UsageError(_unknown('mmpretrain', name, list_models()))
    return revert_sync_batchnorm(get_model(name, pretrained, **options))


def import_timm():
    """Import timm.

    Returns:
        module: timm.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UsageError(
            f'models of timm need timm: pip install timm ({error})'
        ) from None
    return timm


def _unknown(source: str, name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=4, cutoff=0.5)
    hint = f'did you mean {", ".join(close)}?' if close else 'is it spelt so?'
    return f'{source} has no model {name!r}; {hint}'


def image_shape(cfg, shape: Sequence[int] | None = None) -> tuple[int, int]:
    """The image size to analyze a config's model at.

    Args:
        cfg (Config): The config.
        shape (Sequence[int], optional): What the user asked for: one number,
            or height and width.

    Returns:
        tuple[int, int]: Height and width; by default the config's
        ``analysis_shape``, else 800 x 1280 for detection, 512 x 512 for
        segmentation, 224 x 224 for classification.

    Raises:
        UsageError: If it is not one or two numbers of at least 1.
    """
    by_scope = dict(mmdet=(800, 1280), mmseg=(512, 512))
    shape = (
        shape
        or cfg.get('analysis_shape')
        or by_scope.get(cfg.get('default_scope'), (224, 224))
    )
    if len(shape) not in (1, 2) or min(shape) < 1:
        raise UsageError(
            f'--shape takes one or two numbers of at least 1, got {shape}'
        )
    return shape[0], shape[-1]


# ---------------------------------------------------------------------------
# Feature maps
# ---------------------------------------------------------------------------


class FeatureMap(nn.Module):
    """What a backbone computes up to one of its stages.

    Args:
        backbone (nn.Module): It takes images and nothing else.
        name (str): What to call the model.
        shape (tuple[int, int]): Height and width of its images.
        stage (int | None): The stage, from 1; None for the last.
    """

    def __init__(
        self,
        backbone: nn.Module,
        name: str,
        shape: tuple[int, int],
        stage: int | None,
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.name = name
        self.shape = shape
        self.stage = stage

    def forward(self, images: Tensor) -> Tensor:
        """Compute the map ``(B, C, H', W')`` of images ``(B, 3, H, W)``."""
        if hasattr(self.backbone, 'forward_intermediates'):  # of timm
            index = len(self.backbone.feature_info) - 1
            if self.stage is not None:
                index = self.stage - 1
            maps = self.backbone.forward_intermediates(
                images, indices=[index], intermediates_only=True
            )
        else:
            maps = self.backbone(images)
        if maps[-1].dim() != 4:
            raise UsageError(
                f'{self.name} gives no feature map but a tensor of shape '
                f'{tuple(maps[-1].shape)}'
            )
        return maps[-1]


def build_feature_map(
    name: str,
    stage: int | None = None,
    checkpoint: str | None = None,
    shape: tuple[int, int] | None = None,
) -> FeatureMap:
    """Build a backbone that returns the feature map of a stage.

    Args:
        name (str): See :func:`build_model`.
        stage (int, optional): Which map, from 1, as its package counts:
            timm's ResNets, for example, begin with the stem. Defaults to
            None, the last.
        checkpoint (str, optional): A file with the model's weights, ours
            in either layout; or ``'pretrained'``, for what timm or
            mmpretrain download. Defaults to None: untrained.
        shape (tuple[int, int], optional): Height and width of the images.
            Defaults to what the name says.

    Returns:
        FeatureMap: The backbone, in eval mode, its parameters frozen.

    Raises:
        UsageError: If there is no such model or stage.
        mmmamba.checkpoint.CheckpointError: If the file does not fit.
    """
    source, bare, given = parse_name(name)
    shape = shape or given
    if checkpoint == 'pretrained' and source not in ('timm', 'mmpretrain'):
        raise UsageError(
            f'{name}: only timm and mmpretrain download weights; give a file '
            '(docs/checkpoints.md)'
        )
    out_indices: dict[str, Any] = {}
    if stage is not None:
        out_indices = dict(out_indices=(stage - 1,))
    pretrained = checkpoint == 'pretrained'
    try:
        if source == 'config':
            cfg = load_config(Namespace(config=bare, cfg_options=None))
            shape = shape or image_shape(cfg)
            cfg.model.backbone.update(init_cfg=None, **out_indices)
            backbone = revert_sync_batchnorm(MODELS.build(cfg.model.backbone))
        elif source == 'mobilemamba':
            size = _arch_size(bare)
            shape = shape or (size, size)
            backbone = MobileMamba(bare, **out_indices)
        elif source == 'timm':
            backbone, shape = _build_timm(bare, shape, pretrained)
            _check_intermediates(name, backbone, stage)
        else:
            shape = shape or (224, 224)
            backbone = _get_mmpretrain(
                bare, pretrained, backbone=out_indices
            ).backbone
    except (AssertionError, ValueError, IndexError) as error:
        # Of backbones about out_indices; they differ in what they raise.
        if stage is None:
            raise
        raise UsageError(f'{name} has no stage {stage}: {error}') from None
    if checkpoint and not pretrained:
        _load(backbone, checkpoint)
    feature_map = FeatureMap(
        backbone, _label(source, bare, shape), shape, stage
    )
    return feature_map.eval().requires_grad_(False)


def _check_intermediates(name: str, model: Any, stage: int | None) -> None:
    if not hasattr(model, 'forward_intermediates'):
        raise UsageError(f'{name}: timm gives no feature maps of this model')
    count = len(model.feature_info)
    if stage is not None and stage > count:
        raise UsageError(
            f'{name} has no stage {stage}: timm counts {count} of them'
        )


def _load(backbone: nn.Module, file: str) -> None:
    """Load weights without running code from their file."""
    check_checkpoint(file)
    if isinstance(backbone, MobileMamba):
        load_pretrained(backbone, file)
        return
    tensors = unwrap_state_dict(load_from_local(file))
    try:
        backbone.load_state_dict(backbone_state_dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f'{file}: {error}') from None


# ---------------------------------------------------------------------------
# Fusing
# ---------------------------------------------------------------------------


@torch.no_grad()
def fuse_model(model: NamedModel) -> int:
    """Make a model as fast as its authors and arithmetic allow, in place.

    Re-parameterizes it where it knows how to (``switch_to_deploy`` of
    OpenMMLab and of ours, timm's ``reparameterize_model``), then folds the
    batch norms that are left and directly follow a convolution into it.
    Batch norms get random statistics first, so that the check that the
    outputs stay the same sees them.

    Args:
        model (NamedModel): The model, in eval mode and float32.

    Returns:
        int: The number of batch norms that are left.

    Raises:
        UsageError: If the outputs change.
    """
    for norm in model.modules():
        if not isinstance(norm, _BatchNorm):
            continue
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.8, 1.2)
    images = torch.rand(1, 3, *model.shape)
    expected = _tensors(model(images))

    if model.source == 'timm':
        from timm.utils.model import reparameterize_model

        model.model = reparameterize_model(model.model, inplace=True)
    else:
        parts: list[Any] = list(model.modules())
        for part in parts:
            # Parts of a part that is deployed say so by this attribute.
            done = getattr(part, 'deploy', False)
            if hasattr(part, 'switch_to_deploy') and not done:
                part.switch_to_deploy()
    _fold_batch_norms(model, images)

    for fused, plain in zip(_tensors(model(images)), expected):
        if (fused - plain).abs().max() > 1e-3 * plain.abs().max():
            raise UsageError(
                f'{model.name} computes something else when it is fused; '
                'compare it without --fuse'
            )
    return sum(isinstance(m, _BatchNorm) for m in model.modules())


def _tensors(outputs) -> list[Tensor]:
    """The floating-point tensors of nested outputs."""
    return [
        t
        for t in tree_flatten(outputs)[0]
        if isinstance(t, Tensor) and t.is_floating_point()
    ]


def _fold_batch_norms(model: nn.Module, images: Tensor) -> None:
    """Fold each batch norm whose input is the output of a convolution."""
    made_by: dict[int, nn.Conv2d] = {}
    fed_by: dict[nn.BatchNorm2d, nn.Conv2d | None] = {}
    calls: dict[nn.Module, int] = {}
    kept = []  # or the ids of tensors would be used again

    def after_conv(conv, inputs, output) -> None:
        kept.append(output)
        made_by[id(output)] = conv
        calls[conv] = calls.get(conv, 0) + 1

    def before_norm(norm, inputs) -> None:
        fed_by[norm] = made_by.get(id(inputs[0]))
        calls[norm] = calls.get(norm, 0) + 1

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(after_conv))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(before_norm))
    model(images)
    for hook in hooks:
        hook.remove()

    names = {module: name for name, module in model.named_modules()}
    for norm, conv in fed_by.items():
        # A conv or a norm in two places cannot be changed for one of them.
        if conv is None or calls[conv] > 1 or calls[norm] > 1:
            continue
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
        parent, _, child = names[norm].rpartition('.')
        setattr(model.get_submodule(parent), child, _without_norm(norm))


def _without_norm(norm: Any) -> nn.Module:
    """What a batch norm does besides: timm's also apply the activation."""
    if hasattr(norm, 'act'):
        return nn.Sequential(getattr(norm, 'drop', nn.Identity()), norm.act)
    return nn.Identity()
