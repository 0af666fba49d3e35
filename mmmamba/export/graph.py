"""A trained model as a graph: images in, predictions out."""

import copy
from typing import Any

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

#: Names of the outputs, by task.
OUTPUTS = {
    'classification': ['scores'],
    'detection': ['boxes', 'scores', 'labels'],
    'segmentation': ['label_map'],
}


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

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps."""
        return tuple(self.backbone(x))


class Classifier(nn.Module):
    """A classifier that ends in the scores of the classes.

    Args:
        model (nn.Module): mmpretrain's ``ImageClassifier``.
        multi_label (bool): Whether an image may be of several classes.
    """

    def __init__(self, model: nn.Module, multi_label: bool) -> None:
        super().__init__()
        self.model = model
        self.multi_label = multi_label

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(B, classes)``, which sum to 1 if there is one label."""
        logits = self.model(x, mode='tensor')
        return logits.sigmoid() if self.multi_label else logits.softmax(-1)


class Segmentor(nn.Module):
    """A segmentor that ends in a map of labels, or in logits.

    Args:
        model (nn.Module): mmseg's ``EncoderDecoder``.
        labels (bool): Whether it ends in labels.
    """

    def __init__(self, model: Any, labels: bool) -> None:
        super().__init__()
        # Not at the top: mmseg may not be installed.
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        self.model: Any = model
        self.labels = labels
        # Most heads look at the first alone, whatever the batch.
        head = type(model.decode_head)
        self.takes_one_meta = head.predict is BaseDecodeHead.predict

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
        if not self.labels:
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
    preprocessor = getattr(model, 'data_preprocessor', None)
    divisor = getattr(preprocessor, 'pad_size_divisor', 1)
    pad_value = getattr(preprocessor, 'pad_value', 0)
    if backbone_only or not hasattr(model, 'data_preprocessor'):
        backbone = model.backbone
        facts.task = 'features'
        indices = backbone.out_indices
        facts.outputs = [f'stage{i + 1}' for i in indices]
        return Graph(Features(backbone), facts).eval()
    padded = [side + -side % divisor for side in shape]
    example = torch.zeros(1, 3, *padded)
    labels = not logits
    with torch.no_grad():
        facts.task, body = _body(model, shape, example, labels)
    if facts.shape is None and facts.task != 'classification':
        raise ExportError(
            f'{facts.task} is exported for one size of image: anchors and '
            'maps have that of the trace; --shape dynamic is for backbones '
            '(--backbone) and classifiers'
        )
    if logits and facts.task != 'segmentation':
        raise ExportError(f'--logits is for segmentors, not {facts.task}')
    facts.outputs = list(OUTPUTS[facts.task])
    if facts.task == 'segmentation':
        facts.align_corners = bool(model.decode_head.align_corners)
        # Mask2Former's head has none.
        threshold = getattr(model.decode_head, 'threshold', None)
        facts.threshold = float(threshold or 0.5)
        if logits:
            facts.outputs = ['logits']
        # mmseg pads in a test only if its test_cfg says so
        test_cfg = getattr(preprocessor, 'test_cfg', None) or {}
        if test_cfg.get('size'):
            raise ExportError(
                'data_preprocessor.test_cfg.size pads each image, which is '
                'not exported; give --shape, and leave it out'
            )
        divisor = test_cfg.get('size_divisor', 1) or 1
        pad_value = getattr(preprocessor, 'pad_val', 0)
    if facts.task == 'detection' and getattr(model, 'with_mask', False):
        facts.outputs.append('masks')
        facts.mask_threshold = model.roi_head.test_cfg['mask_thr_binary']
    if facts.task == 'classification':
        divisor = 1
        facts.multi_label = bool(body.multi_label)
        if facts.multi_label and model.head.thr is not None:
            facts.threshold = float(model.head.thr)
    return Graph(body, facts, divisor, pad_value).eval()


def _body(model, shape, example, labels) -> tuple[str, nn.Module]:
    """Choose the postprocessing by the model's own class."""
    kinds = {cls.__name__ for cls in type(model).__mro__}
    if 'EncoderDecoder' in kinds:
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
        return 'segmentation', Segmentor(model, labels)
    if 'ImageClassifier' in kinds:
        heads = {cls.__name__ for cls in type(model.head).__mro__}
        if model.head is None or 'MultiTaskHead' in heads:
            raise ExportError(
                f'the head {type(model.head).__name__} has no scores of '
                'classes; --backbone exports the feature maps'
            )
        return 'classification', Classifier(
            model, 'MultiLabelClsHead' in heads
        )
    if kinds & {'SingleStageDetector', 'TwoStageDetector'}:
        # Not at the top: mmdet may not be installed.
        from .detectors import SingleStage, TwoStage

        body = TwoStage if 'TwoStageDetector' in kinds else SingleStage
        return 'detection', body(model, shape, example)
    if 'DINO' in kinds:
        from .dino import DINO

        return 'detection', DINO(model, shape, example)
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
