"""Heads that mmdet has, but not in working order.

Configs that need them import this module; it imports mmdet, which the rest of
the package does without.
"""

from .ssd_head import SSDHead

__all__ = ['SSDHead']
