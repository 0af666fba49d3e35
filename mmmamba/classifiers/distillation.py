"""A student that learns from the labels and from a teacher."""

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from .teacher import Teacher


@MODELS.register_module()
class DistillationLoss(nn.Module):
    r"""Soft distillation: the divergence of the student from the teacher.

    .. math:: w \, \tau^2 \, \frac{1}{B} \sum_{b,c} p_{bc}
        (\log p_{bc} - \log q_{bc})

    with the softmax over classes of the teacher's logits over
    :math:`\tau`, :math:`p`, and of the student's, :math:`q` (Hinton et al.,
    arXiv:1503.02531; `DeiT <https://arxiv.org/abs/2012.12877>`_, Eq. 2).

    Args:
        temperature (float): :math:`\tau`. Defaults to 1.
        loss_weight (float): :math:`w`. Defaults to 5, as published.
    """

    def __init__(
        self, temperature: float = 1.0, loss_weight: float = 5.0
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f'temperature={temperature} must be positive')
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, in float32 at least.

        Args:
            student (Tensor): Logits ``(B, num_classes)``.
            teacher (Tensor): Logits ``(B, num_classes)``.

        Returns:
            Tensor: A scalar.
        """
        log_q, log_p = (
            F.log_softmax(
                logits.to(torch.promote_types(logits.dtype, torch.float32))
                / self.temperature,
                dim=1,
            )
            for logits in (student, teacher)
        )
        divergence = F.kl_div(
            log_q, log_p, reduction='batchmean', log_target=True
        )
        return self.loss_weight * self.temperature**2 * divergence


#: Its images are of 0 to 1, without further normalization.
TRESNET_V2_L = dict(
    type='mmpretrain.TimmClassifier',
    model_name='tresnet_v2_l',
    data_preprocessor=dict(
        mean=[0.0, 0.0, 0.0], std=[255.0, 255.0, 255.0], to_rgb=True
    ),
)


@MODELS.register_module()
class DistilledClassifier(ImageClassifier):
    """mmpretrain's ``ImageClassifier`` with a frozen teacher beside it.

    The loss is that of the head, ``loss_cls``, plus ``loss_distill``. A head
    with a second part for it (``distillation=True``) is distilled there,
    another one where it classifies. The teacher sees the very batch the
    student sees, mixed and erased, at its own size and normalization.

    Args:
        teacher_config (dict | str): Config of the teacher's model or a config
            file; see :class:`Teacher`. Defaults to timm's TResNet-L v2, as
            published.
        teacher_ckpt (str, optional): The teacher's weights. Defaults to None,
            for a ``teacher_config`` that brings its own.
        teacher_size (int): Side in pixels of the images the teacher sees.
            Defaults to 224.
        distill_loss (dict): Config of the second term, a
            ``DistillationLoss`` unless it has another type. Defaults to
            ``dict()``.
        **kwargs: Passed to ``ImageClassifier``.
    """

    def __init__(
        self,
        *args,
        teacher_config: dict | str = TRESNET_V2_L,
        teacher_ckpt: str | None = None,
        teacher_size: int = 224,
        distill_loss: dict = dict(),
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = Teacher(teacher_config, teacher_ckpt, teacher_size)
        # Options set one of them alone, such as its temperature.
        loss = {'type': 'DistillationLoss', **distill_loss}
        self.distill_loss = MODELS.build(loss)

    def init_weights(self) -> None:
        """Initialize the student and load the teacher, as training begins.

        Raises:
            FileNotFoundError: If the teacher's checkpoint does not exist.
            mmmamba.checkpoint.CheckpointError: If it does not fit.
        """
        super().init_weights()
        self.teacher.load(self.head.num_classes)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """Compute both terms.

        Args:
            inputs (Tensor): Normalized images, ``(B, 3, H, W)``.
            data_samples (list[DataSample]): Their labels or soft labels.

        Returns:
            dict[str, Tensor]: ``loss_cls`` and ``loss_distill``, scalars, and
            what else the head reports.
        """
        self.teacher.load(self.head.num_classes)
        score = self.head(self.extract_feat(inputs))
        score, distilled = score if isinstance(score, tuple) else (score,) * 2
        losses = self.head._get_loss(score, data_samples)
        losses['loss_cls'] = losses.pop('loss')
        losses['loss_distill'] = self.distill_loss(
            distilled, self.teacher(self._pixels(inputs))
        )
        return losses

    def _pixels(self, inputs: Tensor) -> Tensor:
        """Undo the normalization: RGB of 0 to 255."""
        preprocessor = self.data_preprocessor
        if preprocessor._enable_normalize:
            inputs = inputs * preprocessor.std + preprocessor.mean
        return inputs if preprocessor.to_rgb else inputs.flip(1)
