"""Checkpoints: the published layout, safe reading, and clear refusals."""

from .files import (
    CheckpointError,
    backbone_state_dict,
    load_from_local,
    unwrap_state_dict,
)
from .fit import (
    adapt_classifier,
    adapt_state_dict,
    arch_name,
    check_arch,
    check_classes,
    check_complete,
    check_fit,
    check_form,
    drop_heads,
    is_deployed,
    load_pretrained,
    refuse_deployed,
)
from .names import from_published, is_published, to_published

__all__ = [
    'CheckpointError',
    'adapt_classifier',
    'adapt_state_dict',
    'arch_name',
    'backbone_state_dict',
    'check_arch',
    'check_classes',
    'check_complete',
    'check_fit',
    'check_form',
    'drop_heads',
    'from_published',
    'is_deployed',
    'is_published',
    'load_from_local',
    'load_pretrained',
    'refuse_deployed',
    'to_published',
    'unwrap_state_dict',
]
