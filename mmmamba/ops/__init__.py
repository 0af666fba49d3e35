"""Operators of the network. Depends on torch alone.

Scans, with gradients and on any device:
    ``selective_scan``, ``bidirectional_scan``.

Ops of a deployed network, for inference, on channels-last maps
``(B, H, W, C)`` and sequences ``(B, L, C)``. A 1x1 convolution is then one
product with a ``(B*H*W, C)`` matrix, and some of the channels are a view.
Their compiled versions have no gradient; PyTorch's serve for
all else:
    ``stem_conv``, ``depthwise_conv``, ``mixer_conv``, ``scan_gate``,
    ``linear``, ``feed_forward``; and, compiled for CPUs alone, ``block`` and
    ``stage``, which are all of a block and of a stage.
"""

from .backend import available_backends, describe_backends, use_backend
from .bidirectional_scan import bidirectional_scan
from .block import BlockParameters, block, block_is_compiled
from .depthwise_conv import depthwise_conv
from .feed_forward import feed_forward
from .linear import linear
from .mixer_conv import mixer_conv
from .packed_weight import (
    has_dot_products,
    is_packed,
    pack_weight,
    unpack_weight,
)
from .scan_gate import scan_gate
from .selective_scan import selective_scan
from .stage import stage
from .stem_conv import stem_conv

__all__ = [
    'BlockParameters',
    'available_backends',
    'bidirectional_scan',
    'block',
    'block_is_compiled',
    'depthwise_conv',
    'describe_backends',
    'feed_forward',
    'has_dot_products',
    'is_packed',
    'linear',
    'mixer_conv',
    'pack_weight',
    'scan_gate',
    'selective_scan',
    'stage',
    'stem_conv',
    'unpack_weight',
    'use_backend',
]
