"""The network for inference: folded, and with channels last."""

from .model import deploy_model
from .network import Stage, Stem

__all__ = ['Stage', 'Stem', 'deploy_model']
