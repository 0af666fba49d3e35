"""The network for inference: folded, and with channels last."""

from .network import Stage, Stem

__all__ = ['Stage', 'Stem']
