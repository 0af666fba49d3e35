"""Operators of the network. Depends on torch alone."""

from .backend import available_backends, describe_backends, use_backend
from .block import BlockParameters, block, block_is_compiled
from .channels_last import depthwise_conv, mixer_conv, scan_gate, stem_conv
from .linear import feed_forward, linear
from .selective_scan import bidirectional_scan, selective_scan
from .transition import (
    TransitionParameters,
    transition,
    transition_is_compiled,
)

__all__ = [
    'BlockParameters',
    'TransitionParameters',
    'available_backends',
    'bidirectional_scan',
    'block',
    'block_is_compiled',
    'depthwise_conv',
    'describe_backends',
    'feed_forward',
    'linear',
    'mixer_conv',
    'scan_gate',
    'selective_scan',
    'stem_conv',
    'transition',
    'transition_is_compiled',
    'use_backend',
]
