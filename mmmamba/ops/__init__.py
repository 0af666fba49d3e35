"""Operators of the network. Depends on torch alone."""

from .backend import available_backends
from .selective_scan import selective_scan

__all__ = ['available_backends', 'selective_scan']
