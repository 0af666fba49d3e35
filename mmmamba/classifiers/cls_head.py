"""The classification head: one or two of BatchNorm1d and Linear."""

from mmengine.registry import MODELS
from mmpretrain.models import LeViTClsHead
from torch import Tensor


@MODELS.register_module()
class MobileMambaClsHead(LeViTClsHead):
    """mmpretrain's ``LeViTClsHead``, able to train its second head.

    Args:
        num_classes (int): Number of classes. Defaults to 1000.
        in_channels (int): Width of the backbone's last stage.
        distillation (bool): Whether there is a second head, ``head_dist``, as
            in `DeiT <https://arxiv.org/abs/2012.12877>`_: it learns from a
            teacher (:class:`DistilledClassifier`) or, without one, from the
            labels as the first. Predictions average both heads' logits.
            Defaults to False.
        deploy (bool): Whether the batch norms are folded into the linear
            layers from the start. Defaults to False.
        init_cfg (dict, optional): Initialization config. Defaults to that of
            the published network: linear layers of std 0.02 and bias 0.
        **kwargs: Passed to mmpretrain's ``ClsHead``: ``loss``, ``topk``,
            ``cal_acc``.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int | None = None,
        distillation: bool = False,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = dict(
            type='TruncNormal', layer='Linear', std=0.02, bias=0
        ),
        **kwargs,
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            distillation=distillation,
            in_channels=in_channels,
            init_cfg=init_cfg,
            **kwargs,
        )
        if deploy:  # the parent's constructor fails at this
            self.switch_to_deploy()

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor | tuple:
        """Compute the logits.

        Args:
            feats (tuple[Tensor]): Features of the neck, of which the last,
                ``(B, in_channels)``, is used.

        Returns:
            Tensor | tuple[Tensor, Tensor]: Logits ``(B, num_classes)``; of
            both heads, in that order, when training two of them.
        """
        x = self.pre_logits(feats)
        if not self.distillation:
            return self.head(x)
        logits = self.head(x), self.head_dist(x)
        return logits if self.training else (logits[0] + logits[1]) / 2

    def _get_loss(
        self, cls_score: Tensor | tuple, data_samples: list, **kwargs
    ) -> dict[str, Tensor]:
        if not isinstance(cls_score, tuple):
            return super()._get_loss(cls_score, data_samples, **kwargs)
        first, second = (
            super(MobileMambaClsHead, self)._get_loss(
                score, data_samples, **kwargs
            )
            for score in cls_score
        )
        return {name: (first[name] + second[name]) / 2 for name in first}
