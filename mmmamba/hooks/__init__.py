"""Training hooks, registered in mmengine's root ``HOOKS``."""

from .interrupt_hook import InterruptHook

__all__ = ['InterruptHook']
