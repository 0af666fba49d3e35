"""Hooks of the runner, registered in mmengine's root ``HOOKS``."""

from .deploy_hook import SwitchToDeployHook
from .interrupt_hook import InterruptHook

__all__ = ['InterruptHook', 'SwitchToDeployHook']
