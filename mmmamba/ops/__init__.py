"""Operators of the network. Depends on torch alone."""

from .backend import available_backends, describe_backends
from .selective_scan import bidirectional_scan, selective_scan

__all__ = [
    'available_backends',
    'bidirectional_scan',
    'describe_backends',
    'selective_scan',
]
