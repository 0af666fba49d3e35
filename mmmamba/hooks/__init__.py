"""Hooks of the runner, registered in mmengine's root ``HOOKS``."""

from .channels_last_hook import ChannelsLastDataParallel, ChannelsLastHook
from .deploy_hook import SwitchToDeployHook
from .heartbeat_hook import HeartbeatHook
from .interrupt_hook import InterruptHook
from .random_state_hook import RandomStateHook, seed_worker
from .resume_hook import ResumeHook
from .skip_non_finite_hook import NonFiniteError, SkipNonFiniteHook

__all__ = [
    'ChannelsLastDataParallel',
    'ChannelsLastHook',
    'HeartbeatHook',
    'InterruptHook',
    'NonFiniteError',
    'RandomStateHook',
    'ResumeHook',
    'SkipNonFiniteHook',
    'SwitchToDeployHook',
    'seed_worker',
]
