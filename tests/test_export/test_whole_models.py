"""Whole detectors, segmentors and classifiers in ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from test_deploy.test_export_layers import SMALL, lively
from torch import Tensor

from mmmamba.deploy import ExportedModel
from mmmamba.export import ExportError, gather_facts, make_graph
from mmmamba.export import boxes as B
from mmmamba.export.detectors import align
from mmmamba.export.formats import save_openvino, write
from mmmamba.export.onnx_file import make_openvino

onnx = pytest.importorskip('onnx', reason='exports are ONNX files')
pytest.importorskip('onnxruntime', reason='it runs ONNX files')
pytestmark = pytest.mark.slow

CONFIGS = Path(__file__).parents[2] / 'configs'
#: The factor of the head's weights with which scores are spread, by method.
FACTORS = dict(retinanet=1, atss=6, ssdlite=8, faster=40, mask=40, rtmdet=2)
DINO = 'det/dino_mobilemamba_b1.py'
MASK2FORMER = 'seg/mask2former_mobilemamba_b4.py'


def configs(scope, *usual):
    """All configs of a toolbox; but for the usual, with a marker."""
    for path in sorted(CONFIGS.glob('*/*mobilemamba*.py')):
        name = f'{path.parent.name}/{path.name}'
        if Config.fromfile(path).default_scope != scope or name in (
            DINO,
            MASK2FORMER,
        ):
            continue
        marks = () if name in usual else pytest.mark.all_configs
        yield pytest.param(name, marks=marks)


SIZE = (96, 130)


def build(config, **options):
    """A small model of a config, with lively weights, and the config."""
    cfg = Config.fromfile(CONFIGS / config)
    cfg.merge_from_dict(options)
    init_default_scope(cfg.default_scope)
    backbone = cfg.model.backbone
    backbone.arch, backbone.init_cfg = SMALL, None
    for key in ('preprocess_cfg', 'pretrained'):
        cfg.model.pop(key, None)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    if cfg.default_scope == 'mmpretrain':
        cfg.model.train_cfg = None
        cfg.model.head.in_channels = SMALL['channels'][-1]
    if config == DINO:  # as many places has the image, or more
        cfg.model.num_queries = 30
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).eval()
    lively(model)
    if config == DINO:
        attend(model)
    return model, cfg


def attend(model):
    """Attention that goes by the image; it starts as a fixed pattern."""
    names = ('level_embed', 'sampling_offsets.weight')
    names += ('attention_weights.weight',)
    for name, parameter in model.named_parameters():
        if name.endswith(names):
            torch.nn.init.normal_(parameter, std=0.05)


def spread(model, factor):
    """Scores far from each other, so that their order is one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            head = 'cls' in name and 'rpn' not in name
            if head and name.endswith('weight'):
                parameter.mul_(factor)


def graph_of(model, cfg, **options):
    facts = gather_facts(model, cfg)
    facts.shape = list(SIZE)
    return make_graph(model, facts, SIZE, **options)


def export(model, cfg, tmp_path, **options):
    graph = graph_of(model, cfg, **options)
    images = torch.randn(2, 3, *SIZE)
    write(graph, images, tmp_path / 'm.onnx', 'onnx', dynamic=['batch'])
    exported = ExportedModel(tmp_path / 'm.onnx', threads=2)
    return graph, images, exported


def run_openvino(graph, images, tmp_path):
    """What OpenVINO makes of the file that :func:`export` wrote."""
    pytest.importorskip('openvino', reason='it runs the same graph')
    converted = make_openvino(onnx.load(tmp_path / 'm.onnx'), graph.facts)
    save_openvino(converted, tmp_path / 'm.xml')
    return ExportedModel(tmp_path / 'm.xml', threads=2).run(images.numpy())


def predict_objects(model, images, divisor):
    """What mmdet finds in images that it pads: instances of each."""
    from mmdet.structures import DetDataSample

    padding = (0, -SIZE[1] % divisor, 0, -SIZE[0] % divisor)
    padded = F.pad(images, padding)
    size = tuple(padded.shape[2:])
    meta = dict(
        img_shape=SIZE,
        ori_shape=SIZE,
        pad_shape=size,
        batch_input_shape=size,
        scale_factor=(1.0, 1.0),
    )
    samples = [DetDataSample(metainfo=meta) for _ in images]
    samples = model(padded, samples, mode='predict')
    return [sample.pred_instances for sample in samples]


def check_objects(found, instances):
    """Compare the outputs of a graph with the objects of each image."""
    total = 0
    for i, expected in enumerate(instances):
        number = (found['labels'][i] >= 0).sum()
        assert number == len(expected)
        total += number
        scores = expected.scores.numpy()
        np.testing.assert_allclose(
            found['scores'][i][:number], scores, 0, 1e-4
        )
        # Equal scores have no order.
        distinct = np.diff(scores, append=-1) < -1e-5
        distinct &= np.diff(scores, prepend=2) < -1e-5
        assert distinct.mean() > 0.7
        boxes, labels = expected.bboxes.numpy(), expected.labels.numpy()
        difference = np.abs(found['boxes'][i][:number] - boxes)[distinct]
        assert difference.max() < 0.05
        assert (found['labels'][i][:number] == labels)[distinct].all()
    assert total > 20


@pytest.mark.parametrize(
    'config',
    configs(
        'mmdet',
        'det/retinanet_mobilemamba_b1.py',
        'demo/atss_mobilemamba_t2_bccd.py',
        'det/ssdlite_mobilemamba_b1_320.py',
        'det/faster_rcnn_mobilemamba_b1.py',
        'demo/mask_rcnn_mobilemamba_mini_shapes.py',
        'det/rtmdet_mobilemamba_t2.py',
    ),
)
@torch.no_grad()
def test_objects_are_those_of_predict(config, tmp_path):
    model, cfg = build(config)
    method = config.split('/')[1].split('_')[0]
    spread(model, FACTORS[method])
    graph, images, exported = export(model, cfg, tmp_path)
    found = exported.run(images.numpy())
    expected = predict_objects(model, images, graph.divisor)
    check_objects(found, expected)

    again = run_openvino(graph, images, tmp_path)
    check_objects(again, expected)
    if 'masks' in found:
        same = np.abs(again['boxes'] - found['boxes']).max(-1) < 0.05
        assert same.mean() > 0.7
        difference = np.abs(again['masks'] - found['masks'])[same]
        assert difference.max() < 1e-3


@pytest.mark.parametrize(
    ('config', 'head', 'loss', 'factor'),
    [
        ('retinanet_mobilemamba_b1', 'bbox_head', 'FocalCustomLoss', 1),
        ('faster_rcnn_mobilemamba_b1', 'roi_head.bbox_head', 'SeesawLoss', 40),
    ],
)
@torch.no_grad()
def test_losses_with_an_activation_of_their_own(config, head, loss, factor):
    """Theirs are the scores, and the channels that these are made of."""
    classes = dict(type=loss, num_classes=80, _delete_=True)
    if loss == 'FocalCustomLoss':
        classes['use_sigmoid'] = True
    model, cfg = build(
        f'det/{config}.py', **{f'model.{head}.loss_cls': classes}
    )
    assert model.get_submodule(head).loss_cls.custom_cls_channels
    spread(model, factor)
    graph, images = graph_of(model, cfg), torch.randn(2, 3, *SIZE)
    found = dict(zip(graph.facts.outputs, map(Tensor.numpy, graph(images))))
    check_objects(found, predict_objects(model, images, graph.divisor))


@torch.no_grad()
def test_large_objects_are_pooled_from_the_last_map():
    """The RPN reads five maps, and RoIs are pooled from four of them."""
    extractor = SingleRoIExtractor(
        dict(type='RoIAlign', output_size=7, sampling_ratio=0), 8, [4, 8, 16]
    )
    rois = torch.tensor(
        [[0, 0, 0, 1333.0, 800], [0, 9, 20, 400, 410], [0, 3, 3, 40, 50]]
    )
    feats = [torch.randn(1, 8, 800 // s, 1344 // s) for s in (4, 8, 16, 32)]
    expected = extractor(feats[:3], rois)
    assert expected.flatten(1).abs().amax(1).min() > 0.1
    torch.testing.assert_close(align(extractor, feats, rois), expected)


def build_dino(divisor=1):
    """DINO with proposals and objects that rounding does not swap.

    A query belongs to the rank of its proposal: if two of nearly equal
    scores swap, so do their queries, and other objects are found. Here the
    scores of the proposals are 2e-4 apart and more.
    """
    model, cfg = build(DINO)
    model.data_preprocessor.pad_size_divisor = divisor
    spread(model, 4)
    return model, cfg


@pytest.mark.parametrize('divisor', [1, 32])
@torch.no_grad()
def test_the_graph_of_dino_masks_the_padding(divisor):
    model, cfg = build_dino(divisor)
    graph = graph_of(model, cfg)
    images = torch.randn(2, 3, *SIZE)
    found = dict(zip(graph.facts.outputs, map(Tensor.numpy, graph(images))))
    check_objects(found, predict_objects(model, images, divisor))


@pytest.mark.all_configs
@torch.no_grad()
def test_objects_are_those_of_dino(tmp_path):
    model, cfg = build_dino()
    graph, images, exported = export(model, cfg, tmp_path)
    expected = predict_objects(model, images, graph.divisor)
    check_objects(exported.run(images.numpy()), expected)
    check_objects(run_openvino(graph, images, tmp_path), expected)


@pytest.mark.parametrize(
    'config',
    configs(
        'mmseg',
        'seg/deeplabv3_mobilemamba_b1.py',
        'seg/fpn_mobilemamba_b1.py',
        'seg/pspnet_mobilemamba_b1.py',
        'seg/upernet_mobilemamba_b4.py',
        'seg/segformer_mobilemamba_b4.py',
    ),
)
@torch.no_grad()
def test_label_maps_are_those_of_predict(config, tmp_path):
    from mmseg.structures import SegDataSample

    model, cfg = build(config)
    last = model.decode_head.conv_seg
    torch.nn.init.normal_(last.weight)
    # Without, one class may be the best everywhere.
    logits = model(torch.randn(2, 3, *SIZE), mode='tensor')
    last.bias -= logits.mean((0, 2, 3))
    _, images, exported = export(model, cfg, tmp_path)
    meta = dict(img_shape=SIZE, ori_shape=SIZE, pad_shape=SIZE)
    meta['padding_size'] = [0, 0, 0, 0]
    samples = [SegDataSample(metainfo=meta) for _ in images]
    expected = model(images, samples, mode='predict')
    found = exported.run(images.numpy())['label_map']
    maps = np.stack([s.pred_sem_seg.data[0].numpy() for s in expected])
    assert len(np.unique(maps)) > 1
    assert (maps == found).mean() >= 0.9999


@pytest.mark.all_configs
@torch.no_grad()
def test_logits_are_those_of_mask2former(tmp_path):
    """With random weights all pixels are of one class; logits differ."""
    from mmseg.structures import SegDataSample

    model, cfg = build(MASK2FORMER)
    graph, images, exported = export(model, cfg, tmp_path, logits=True)
    divisor = graph.divisor
    padded = F.pad(images, (0, -SIZE[1] % divisor, 0, -SIZE[0] % divisor))
    size = tuple(padded.shape[2:])
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
    meta['padding_size'] = [0, 0, 0, 0]
    samples = [SegDataSample(metainfo=meta) for _ in images]
    expected = model(padded, samples, mode='predict')
    expected = torch.stack([s.seg_logits.data for s in expected]).numpy()
    found = exported.run(images.numpy())['logits']
    # Attention is masked where a mask is below 0.5, and with random weights
    # many pixels are so near to it that rounding decides.
    spread = expected.max() - expected.min()
    assert np.abs(found - expected).max() < 1e-3 * spread


@pytest.mark.parametrize(
    'config', configs('mmpretrain', 'cls/mobilemamba_t2.py')
)
@torch.no_grad()
def test_scores_are_those_of_the_classifier(config, tmp_path):
    pytest.importorskip('mmpretrain', reason='classifiers are of mmpretrain')
    model, cfg = build(config)
    _, images, exported = export(model, cfg, tmp_path)
    expected = model(images, mode='tensor').softmax(-1).numpy()
    found = exported.run(images.numpy())['scores']
    np.testing.assert_allclose(found, expected, 0, 1e-6)
    assert exported.facts.resize['edge'] > 0


@torch.no_grad()
def test_scores_of_several_labels(tmp_path):
    model, cfg = build('cls/mobilemamba_b1.py')
    cfg.model.head = dict(
        type='MultiLabelLinearClsHead',
        num_classes=5,
        in_channels=SMALL['channels'][-1],
        thr=0.4,
    )
    model = lively(MODELS.build(cfg.model))
    graph, images, exported = export(model, cfg, tmp_path)
    assert exported.facts.multi_label
    assert exported.facts.threshold == 0.4
    expected = model(images, mode='tensor').sigmoid().numpy()
    found = exported.run(images.numpy())['scores']
    assert np.abs(found - expected).max() < 1e-5


@torch.no_grad()
def test_preprocessing_in_the_graph_is_that_outside(tmp_path):
    model, cfg = build('demo/fpn_mobilemamba_t2_camvid.py')
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    results = []
    for inside in (False, True):
        facts = gather_facts(model, cfg)
        facts.shape, facts.preprocessed = list(SIZE), inside
        graph = make_graph(model, facts, SIZE, logits=True)
        shape = (1, *SIZE, 3) if inside else (1, 3, *SIZE)
        example = torch.zeros(shape).to(torch.uint8 if inside else torch.float)
        write(graph, example, tmp_path / 'm.onnx', 'onnx')
        exported = ExportedModel(tmp_path / 'm.onnx')
        prepared, _ = exported.prepare(image)
        assert prepared.dtype == (np.uint8 if inside else np.float32)
        results.append(exported.run(prepared[None])['logits'])
    scale = np.abs(results[0]).max()
    assert np.abs(results[0] - results[1]).max() < 1e-4 * scale


def test_a_threshold_of_zero():
    """Not the default, though it is false to Python."""
    head = {'num_classes': 2, 'out_channels': 1, 'threshold': 0.0}
    model, cfg = build(
        'seg/fpn_mobilemamba_b1.py',
        **{f'model.decode_head.{name}': value for name, value in head.items()},
    )
    assert graph_of(model, cfg).facts.threshold == 0


def test_models_that_are_not_exported_are_named():
    from mmdet.models import DETR

    model, cfg = build(DINO)
    model.__class__ = DETR
    with pytest.raises(ExportError, match='class DETR are not exported'):
        make_graph(model, gather_facts(model, cfg), SIZE)
    graph = make_graph(
        model, gather_facts(model, cfg), SIZE, backbone_only=True
    )
    assert graph.facts.task == 'features'


def test_heads_that_are_not_exported_are_named():
    from mmdet.models import DDQDETRHead, PanopticFPN, YOLOXHead

    model, cfg = build('demo/mask_rcnn_mobilemamba_mini_shapes.py')
    model.__class__ = PanopticFPN
    with pytest.raises(ExportError, match='PanopticFPN predicts in a way'):
        make_graph(model, gather_facts(model, cfg), SIZE)
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    model.bbox_head.__class__ = YOLOXHead
    with pytest.raises(ExportError, match='the head YOLOXHead predicts'):
        make_graph(model, gather_facts(model, cfg), SIZE)
    model, cfg = build(DINO)
    model.bbox_head.loss_cls.use_sigmoid = False
    with pytest.raises(ExportError, match='if its loss_cls.use_sigmoid=True'):
        make_graph(model, gather_facts(model, cfg), SIZE)
    model.bbox_head.__class__ = DDQDETRHead
    with pytest.raises(ExportError, match='DINO with DDQDETRHead predicts'):
        make_graph(model, gather_facts(model, cfg), SIZE)


def test_an_image_with_fewer_places_than_queries_is_refused():
    model, cfg = build(DINO)
    model.num_queries = 900
    with pytest.raises(ExportError, match='291 places.*best 900'):
        make_graph(model, gather_facts(model, cfg), SIZE)


def test_what_torch_export_cannot_follow_is_refused(tmp_path):
    model, cfg = build(DINO)
    graph = graph_of(model, cfg)
    with pytest.raises(ExportError, match='cannot follow deformable'):
        write(graph, torch.zeros(1, 3, *SIZE), tmp_path / 'm.pt2', 'pt2')


def test_open_sizes_of_detectors_are_refused():
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    facts = gather_facts(model, cfg)
    with pytest.raises(ExportError, match='--shape dynamic is for backbones'):
        make_graph(model, facts, SIZE, custom_op='block')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(nms=dict(type='soft_nms')), 'soft_nms'),
        (dict(nms=dict(max_num=5)), 'NMS with max_num'),
        (dict(min_bbox_size=4), 'min_bbox_size is measured'),
    ],
)
def test_what_mmdet_does_otherwise_is_refused(options, message):
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    nms = model.bbox_head.test_cfg.nms
    model.bbox_head.test_cfg.update(options)
    model.bbox_head.test_cfg.nms = {**nms, **options.get('nms', {})}
    with pytest.raises(ExportError, match=message):
        make_graph(model, gather_facts(model, cfg), SIZE)


def test_two_values_of_padding_are_refused():
    """One to the shape of the file, and one to a multiple of 32."""
    options = {'model.data_preprocessor.pad_value': 1.5}
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py', **options)
    cfg.test_dataloader.dataset.pipeline[1].keep_ratio = True
    with pytest.raises(ExportError, match='pads with 1.5, and files'):
        graph_of(model, cfg)


def test_other_ways_to_pool_are_refused():
    from mmdet.models import SABLHead

    model, cfg = build('det/faster_rcnn_mobilemamba_b1.py')
    layer = model.roi_head.bbox_roi_extractor.roi_layers[0]
    layer.aligned = False
    with pytest.raises(ExportError, match='aligned=True'):
        make_graph(model, gather_facts(model, cfg), SIZE)
    layer.aligned = True
    model.roi_head.bbox_head.__class__ = SABLHead
    with pytest.raises(ExportError, match='the head SABLHead is not'):
        make_graph(model, gather_facts(model, cfg), SIZE)


@torch.no_grad()
def test_all_objects_may_be_kept(tmp_path):
    """Which ``max_per_img=-1`` means to an R-CNN."""
    model, cfg = build('det/faster_rcnn_mobilemamba_b1.py')
    model.roi_head.test_cfg.max_per_img = -1
    boxes, _, _ = graph_of(model, cfg)(torch.randn(1, 3, *SIZE))
    assert boxes.shape[1] == model.rpn_head.test_cfg.max_per_img * 80


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('onnx', 'mmcv|no counterpart'),
        ('torchscript', 'TorchScript cannot hold.*mmcv.*--backbone'),
        ('pt2', 'torch.export cannot hold.*mmcv.*--backbone'),
    ],
)
def test_deformable_convolutions_are_refused(kind, message, tmp_path, capfd):
    """Their nodes are of mmcv, whatever the exporter says."""
    from mmcv.ops import ModulatedDeformConv2dPack

    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    model.bbox_head.cls_convs[0].conv = ModulatedDeformConv2dPack(
        *(64, 64, 3), padding=1
    )
    file, image = tmp_path / 'm', torch.zeros(1, 3, *SIZE)
    with pytest.raises(ExportError, match=message):
        write(graph_of(model, cfg), image, file, kind)
    assert not file.exists()
    assert 'graph(' not in capfd.readouterr().out  # all of it


def test_other_numbers_of_channels_are_refused():
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    model.backbone.in_channels = 1
    with pytest.raises(ExportError, match='images of three channels'):
        make_graph(model, gather_facts(model, cfg), SIZE)


def test_padding_of_each_image_is_refused():
    model, cfg = build('demo/fpn_mobilemamba_t2_camvid.py')
    model.data_preprocessor.test_cfg = dict(size=(256, 256))
    with pytest.raises(ExportError, match='pads each image'):
        graph_of(model, cfg)


def test_logits_are_of_segmentors():
    model, cfg = build('demo/atss_mobilemamba_t2_bccd.py')
    with pytest.raises(ExportError, match='--logits is for segmentors'):
        graph_of(model, cfg, logits=True)


@pytest.mark.parametrize('head', [None, 'MultiTaskHead'])
def test_heads_without_scores_are_refused(head):
    pytest.importorskip('mmpretrain')
    model, cfg = build('cls/mobilemamba_t2.py')
    if head is None:
        model.head = None
    else:
        from mmpretrain.models import MultiTaskHead

        model.head.__class__ = MultiTaskHead
    with pytest.raises(ExportError, match='has no scores of classes'):
        make_graph(model, gather_facts(model, cfg), SIZE)


@pytest.mark.parametrize('scores', [[], [0.9], [0.9, 0.8], [0.9, 0.8, 0.7]])
def test_packages_of_any_number_of_candidates(scores):
    """torch.export holds sizes to what it has seen, or to 2 and more."""

    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            groups = torch.zeros_like(scores, dtype=torch.int64)
            cfg = dict(iou_threshold=0.5)
            return B.suppress(boxes, scores, groups, cfg, 4)[1]

    corners = torch.rand(2, 50, 2) * 50
    boxes = torch.cat([corners, corners + 60], -1)
    program = torch.export.export(Suppress(), (boxes, torch.rand(2, 50)))
    given = torch.full((2, 50), B.NONE)
    given[0, : len(scores)] = torch.tensor(scores)
    boxes[0, 1] = boxes[0, 0]  # which the first of them suppresses
    boxes[0, 2] += 500
    kept = program.module()(boxes, given)
    assert kept[1].max() == B.NONE
    wanted = [s for s in scores if s != 0.8]
    assert kept[0][kept[0] >= 0].tolist() == pytest.approx(wanted)


def test_sliding_windows_are_refused():
    model, cfg = build('demo/fpn_mobilemamba_t2_camvid.py')
    model.test_cfg.mode = 'slide'
    with pytest.raises(ExportError, match='sliding window'):
        make_graph(model, gather_facts(model, cfg), SIZE)
