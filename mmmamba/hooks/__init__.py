"""Training hooks, registered in mmengine's root ``HOOKS``."""

from .interrupt_hook import InterruptHook
from .random_state_hook import RandomStateHook, seed_worker
from .skip_non_finite_hook import NonFiniteError, SkipNonFiniteHook

__all__ = [
    'InterruptHook',
    'NonFiniteError',
    'RandomStateHook',
    'SkipNonFiniteHook',
    'seed_worker',
]
