"""Backbones, registered in mmengine's root ``MODELS``."""

from .mobilemamba import MobileMamba

__all__ = ['MobileMamba']
