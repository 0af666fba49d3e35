"""Model registries build models whose channels follow the backbone."""

from mmengine.config import ConfigDict
from mmengine.registry import MODELS, Registry, build_model_from_cfg
from torch import nn

from .follow import check_backbone, follow_backbone
from .report import changed, left_alone, name_of
from .strides import check_strides


def build_model(
    cfg: dict | list[dict],
    registry: Registry,
    default_args: dict | ConfigDict | None = None,
) -> nn.Module:
    """Build a model as mmengine does, its channels following the backbone.

    Strides do not follow; :func:`check_strides` warns.

    Args:
        cfg (dict | list[dict]): Config of the model or of a part of one.
        registry (Registry): Where its type is registered.
        default_args (dict, optional): Arguments ``cfg`` does not give.
            Defaults to None.

    Returns:
        nn.Module: The model.

    Raises:
        TypeError: If a MobileMamba has an argument that it does not know.
        ValueError: If its arch, or an ``in_index`` of a head, is not valid.
    """
    if isinstance(cfg, dict):
        check_backbone(cfg)
        cfg = follow_backbone(cfg)
    model = build_model_from_cfg(cfg, registry, default_args)
    check_strides(model)
    return model


def install() -> None:
    """Make :func:`build_model` the build function of the model registries.

    A registry created later inherits it from its parent, ``MODELS``.
    """
    for registry in _registries():
        scope, build_func = registry.scope, registry.build_func
        if build_func is build_model:
            continue
        if build_func is not build_model_from_cfg:
            left_alone(
                f'{name_of(build_func)} builds the models of scope {scope}, '
                'and mmmamba leaves it in place: in_channels of necks and '
                "heads do not follow the backbone's arch there. Write them "
                'into the config, or let that function call '
                'mmmamba.openmmlab.follow.follow_backbone on it'
            )
            continue
        registry.build_func = build_model
        changed(f'{name_of(build_model)} builds the models of scope {scope}')


def uninstall() -> None:
    """Give the model registries mmengine's build function back."""
    for registry in _registries():
        if registry.build_func is build_model:
            registry.build_func = build_model_from_cfg


def _registries() -> list[Registry]:
    return [MODELS, *MODELS.children.values()]
