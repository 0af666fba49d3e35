"""A trained model as a graph: images in, predictions out."""

import copy
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.backbones import MobileMamba
from mmmamba.deploy import pack_products
from mmmamba.deploy.export_layers import Network
from mmmamba.deploy.model import fold_norms

from .errors import ExportError
from .facts import Facts
from .pooling import replace_pools


class Graph(nn.Module):
    """Preprocessing, model and postprocessing.

    Args:
        body (nn.Module): The model and its postprocessing.
        facts (Facts): What the preprocessing is.
        divisor (int): What the sides of the network's input are multiples of.
            Defaults to 1.
        pad_value (float): What it is padded with. Defaults to 0.
    """

    def __init__(
        self,
        body: nn.Module,
        facts: Facts,
        divisor: int = 1,
        pad_value: float = 0,
    ) -> None:
        super().__init__()
        self.body = body
        self.facts = facts
        self.divisor, self.pad_value = divisor, pad_value
        self.mean: Tensor
        self.std: Tensor
        for name in ('mean', 'std'):
            value = torch.tensor(getattr(facts, name)).view(1, -1, 1, 1)
            self.register_buffer(name, value, persistent=False)

    def forward(self, images: Tensor):
        """Run on ``(B, 3, H, W)`` float, or ``(B, H, W, 3)`` uint8."""
        x = images
        if self.facts.preprocessed:
            x = x.permute(0, 3, 1, 2).float()
            if self.facts.bgr_to_rgb:
                x = torch.cat(x.split(1, 1)[::-1], 1)
            x = (x - self.mean) / self.std
        if self.divisor > 1:
            height, width = (int(side) for side in x.shape[2:])
            pad = (0, -width % self.divisor, 0, -height % self.divisor)
            if any(pad):
                x = F.pad(x, pad, value=self.pad_value)
        return self.body(x)


class Features(nn.Module):
    """The backbone alone."""

    padding = (1, 0)

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def describe(self, facts: Facts) -> None:
        """Fill in the task and the outputs."""
        facts.task = 'features'
        stages = cast(MobileMamba, self.backbone).out_indices
        facts.outputs = [f'stage{i + 1}' for i in stages]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps."""
        return tuple(self.backbone(x))


class Classifier(nn.Module):
    """A classifier that ends in the scores of the classes.

    Args:
        model (nn.Module): mmpretrain's ``ImageClassifier``.

    Raises:
        ExportError: If its head has no scores of classes.
    """

    padding = (1, 0)

    def __init__(self, model: Any) -> None:
        super().__init__()
        heads = {cls.__name__ for cls in type(model.head).__mro__}
        if model.head is None or 'MultiTaskHead' in heads:
            raise ExportError(
                f'the head {type(model.head).__name__} has no scores of '
                'classes; --backbone exports the feature maps'
            )
        self.model: Any = model
        # Whether an image may be of several classes.
        self.multi_label = 'MultiLabelClsHead' in heads

    def describe(self, facts: Facts) -> None:
        """Fill in the task and the outputs."""
        facts.task, facts.outputs = 'classification', ['scores']
        facts.multi_label = self.multi_label
        if self.multi_label and self.model.head.thr is not None:
            facts.threshold = float(self.model.head.thr)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, classes)``, which sum to 1 if there is one label."""
        logits = self.model(x, mode='tensor')
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)


class Segmentor(nn.Module):
    """A segmentor that ends in a map of labels, or in logits.

    Args:
        model (nn.Module): mmseg's ``EncoderDecoder``.
        logits (bool): Whether it ends in logits.

    Raises:
        ExportError: If it runs an image in several parts or steps.
    """

    def __init__(self, model: Any, logits: bool) -> None:
        super().__init__()
        # Not at the top: mmseg may not be installed.
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        if model.test_cfg.get('mode', 'whole') != 'whole':
            raise ExportError(
                'a sliding window is not exported; set '
                "model.test_cfg.mode='whole' by --cfg-options"
            )
        if isinstance(model.decode_head, nn.ModuleList):
            raise ExportError(
                'several heads in a row (CascadeEncoderDecoder) are not '
                'exported'
            )
        # mmseg pads in a test only if its test_cfg says so
        test_cfg = getattr(model.data_preprocessor, 'test_cfg', None) or {}
        if test_cfg.get('size'):
            raise ExportError(
                'data_preprocessor.test_cfg.size pads each image, which is '
                'not exported; give --shape, and leave it out'
            )
        pad_value = getattr(model.data_preprocessor, 'pad_val', 0)
        self.padding = test_cfg.get('size_divisor', 1) or 1, pad_value
        self.model: Any = model
        self.logits = logits
        # Most heads look at the first alone, whatever the batch.
        head = type(model.decode_head)
        self.takes_one_meta = head.predict is BaseDecodeHead.predict

    def describe(self, facts: Facts) -> None:
        """Fill in the task and the outputs."""
        head = self.model.decode_head
        facts.task = 'segmentation'
        facts.outputs = ['logits' if self.logits else 'label_map']
        facts.align_corners = bool(head.align_corners)
        threshold = getattr(head, 'threshold', None)  # Mask2Former has none
        facts.threshold = 0.5 if threshold is None else float(threshold)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, H, W)`` uint8 or int32, or ``(B, classes, H, W)``."""
        model = self.model
        size = (int(x.shape[2]), int(x.shape[3]))
        metas = [dict(img_shape=size, pad_shape=size, ori_shape=size)]
        if not self.takes_one_meta:
            metas *= int(x.shape[0])
        logits = model.decode_head.predict(
            model.extract_feat(x), metas, model.test_cfg
        )
        if self.logits:
            return logits
        classes = int(logits.shape[1])
        if classes == 1:
            threshold = model.decode_head.threshold
            return (logits.sigmoid() > threshold)[:, 0].to(torch.uint8)
        dtype = torch.uint8 if classes <= 256 else torch.int32
        return logits.argmax(1).to(dtype)


def make_graph(
    trained: nn.Module,
    facts: Facts,
    shape: tuple[int, int],
    *,
    backbone_only: bool = False,
    custom_op: str | None = None,
    dtype: str = 'float32',
    logits: bool = False,
    folded: bool = True,
) -> Graph:
    """Bring a model into the form that is exported.

    Args:
        trained (nn.Module): A model of a toolbox or a backbone, in eval
            mode; stays as it is.
        facts (Facts): Its facts; task and outputs are filled in.
        shape (tuple[int, int]): Height and width of the images.
        backbone_only (bool): Whether to end in the feature maps. Defaults to
            False.
        custom_op (str, optional): ``'scan'`` or ``'block'``, if a library of
            mmmamba is to run them. Defaults to None.
        dtype (str): What the products of ``'block'`` multiply, as in
            ``switch_to_deploy``. Defaults to ``'float32'``.
        logits (bool): Segmentors: whether to end in logits. Defaults to
            False.
        folded (bool): Whether the layers are those for export. Without, they
            are the trained ones, to compare a file with. Defaults to True.

    Returns:
        Graph: For images ``(B, 3, *shape)``.

    Raises:
        ExportError: If a part of it has no counterpart.
    """
    model: Any = copy.deepcopy(trained).eval()
    if isinstance(model, MobileMamba):
        model = Features(model)
    if folded:
        replace_backbones(model, custom_op, dtype)
        replace_pools(model)
        fold_norms(model)
    model.requires_grad_(False)
    if backbone_only or not hasattr(model, 'data_preprocessor'):
        body: Any = Features(model.backbone)
    else:
        with torch.no_grad():
            body = _body(model, shape, logits)
    body.describe(facts)
    if facts.shape is None and facts.task in ('detection', 'segmentation'):
        raise ExportError(
            f'{facts.task} is exported for one size of image: anchors and '
            'maps have that of the trace; --shape dynamic is for backbones '
            '(--backbone) and classifiers'
        )
    if logits and facts.task != 'segmentation':
        raise ExportError(f'--logits is for segmentors, not {facts.task}')
    value = body.padding[1]
    if value and facts.resize.get('keep_ratio'):
        raise ExportError(
            f'data_preprocessor pads with {value}, and files pad photos of '
            'other proportions with 0; set it to 0, or keep_ratio=False in '
            'the test pipeline'
        )
    return Graph(body, facts, *body.padding).eval()


def _body(model, shape: tuple[int, int], logits: bool) -> nn.Module:
    """Choose the postprocessing by the model's own class."""
    kinds = {cls.__name__ for cls in type(model).__mro__}
    if 'EncoderDecoder' in kinds:
        return Segmentor(model, logits)
    if 'ImageClassifier' in kinds:
        return Classifier(model)
    # Not at the top: mmdet may not be installed.
    if 'TwoStageDetector' in kinds:
        from .detectors import TwoStage

        return TwoStage(model, shape)
    if 'SingleStageDetector' in kinds:
        from .detectors import SingleStage

        return SingleStage(model, shape)
    if 'DINO' in kinds:
        from .dino import DINO

        return DINO(model, shape)
    known = 'SingleStageDetector, TwoStageDetector, DINO, EncoderDecoder and '
    raise ExportError(
        f'models of class {type(model).__name__} are not exported; those of '
        f'{known}ImageClassifier are. --backbone exports the backbone alone'
    )


def replace_backbones(
    model: nn.Module, custom_op: str | None, dtype: str
) -> None:
    """Put the form for export in the place of each MobileMamba.

    Args:
        model (nn.Module): The model, changed in place.
        custom_op (str, optional): See :func:`make_graph`.
        dtype (str): See :func:`make_graph`.

    Raises:
        ExportError: If there is none, or if it is deployed.
    """
    named = [
        (name, part)
        for name, part in model.named_modules()
        if isinstance(part, MobileMamba)
    ]
    if any(part.in_channels != 3 for _, part in named):
        raise ExportError('images of three channels are exported, no others')
    if not named:
        raise ExportError(
            f'the backbone, {type(model.backbone).__name__}, is not '
            'MobileMamba'
        )
    for name, part in named:
        if part.deploy and custom_op != 'block':
            raise ExportError(
                'this backbone is deployed already; export the checkpoint '
                'that was trained, with deploy=False'
            )
        if custom_op == 'block':
            if not part.deploy:
                part.switch_to_deploy()
            try:
                pack_products(part, dtype)
            except ValueError as error:  # it is packed in another dtype
                raise ExportError(str(error)) from None
            continue
        parent, _, child = name.rpartition('.')
        network = Network(part, custom_op == 'scan')
        setattr(model.get_submodule(parent), child, network)
