"""Necks, registered in mmengine's root ``MODELS``."""

from .fpn import MobileMambaFPN

__all__ = ['MobileMambaFPN']
