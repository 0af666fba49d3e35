"""mmdet's SSD head, able to predict."""

from mmdet.models.dense_heads import SSDHead as _SSDHead
from mmdet.registry import MODELS


@MODELS.register_module(force=True)
class SSDHead(_SSDHead):
    """mmdet's ``SSDHead``, in whose place it is registered.

    When predicting, mmdet asks every head for its ``loss_cls``, which SSD's
    has none of: an AttributeError in mmdet 3.3 and its fork.
    """

    loss_cls = None
