"""Hooks of the runner, registered in mmengine's root ``HOOKS``."""

from .channels_last_hook import ChannelsLastDataParallel, ChannelsLastHook
from .deploy_hook import SwitchToDeployHook
from .epoch_length_hook import EpochLengthHook
from .heartbeat_hook import HeartbeatHook
from .interrupt_hook import InterruptHook
from .random_state_hook import RandomStateHook, seed_worker
from .skip_non_finite_hook import NonFiniteError, SkipNonFiniteHook

__all__ = [
    'ChannelsLastDataParallel',
    'ChannelsLastHook',
    'EpochLengthHook',
    'HeartbeatHook',
    'InterruptHook',
    'NonFiniteError',
    'RandomStateHook',
    'SkipNonFiniteHook',
    'SwitchToDeployHook',
    'seed_worker',
]
