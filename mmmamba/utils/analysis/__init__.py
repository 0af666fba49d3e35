"""Measurements of models."""

from .complexity import analyze_complexity

__all__ = ['analyze_complexity']
