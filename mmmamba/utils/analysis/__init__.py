"""Measurements of models, for the tools in ``tools/analysis_tools``."""

from .complexity import analyze_complexity

__all__ = ['analyze_complexity']
