"""What ImageNet pretraining needs beyond mmpretrain.

Classification configs import this module; it imports mmpretrain, which the
rest of the package does without.
"""

from .cls_head import MobileMambaClsHead
from .distillation import DistillationLoss, DistilledClassifier
from .teacher import Teacher, check_teacher

__all__ = [
    'DistillationLoss',
    'DistilledClassifier',
    'MobileMambaClsHead',
    'Teacher',
    'check_teacher',
]
