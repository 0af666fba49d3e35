"""Networks as files of ONNX Runtime and OpenVINO."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from test_deploy.test_export_layers import SMALL, lively
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.deploy import ExportedModel
from mmmamba.export import ExportError, Facts, make_graph, make_onnx
from mmmamba.export.formats import write
from mmmamba.export.graph import Graph
from mmmamba.ops import use_backend

onnx = pytest.importorskip('onnx', reason='exports are ONNX files')
ort = pytest.importorskip('onnxruntime', reason='it runs ONNX files')
pytestmark = pytest.mark.slow


class Model(nn.Module):
    """A model that is a backbone and nothing else."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = lively(MobileMamba({**SMALL, **options}))


def exported(model, size=(64, 96), batch=2, custom_op=None, **options):
    """The graph, and example images."""
    facts = Facts(shape=list(size), custom_ops=custom_op is not None)
    graph = make_graph(model, facts, size, custom_op=custom_op, **options)
    return graph, torch.randn(batch, 3, *size)


def check(model, file, images):
    """A file gives the trained network's feature maps."""
    found = ExportedModel(file, threads=2).run(images.numpy())
    with torch.no_grad():
        expected = model.backbone(images)
    for value, (name, other) in zip(expected, found.items()):
        error = np.abs(value.numpy() - other).max() / value.abs().max()
        assert error < 1e-5, name


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
@pytest.mark.parametrize(
    'options', [{}, dict(directions=4, d_state=2), dict(directions=1)]
)
def test_runtimes_give_the_same_maps(suffix, options, tmp_path):
    if suffix == '.xml':
        pytest.importorskip('openvino', reason='it runs .xml files')
    model = Model(**options).eval()
    graph, images = exported(model)
    file = tmp_path / f'model{suffix}'
    kind = 'onnx' if suffix == '.onnx' else 'openvino'
    write(graph, images, file, kind)
    check(model, file, images)


def test_only_standard_operations_and_no_loops():
    graph, images = exported(Model().eval())
    model = make_onnx(graph, images)
    kinds = {node.op_type for node in model.graph.node}
    assert not kinds & {'Scan', 'Loop', 'If', 'ScatterND'}
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}


def test_batch_stays_open(tmp_path):
    model = Model().eval()
    graph, images = exported(model)
    write(graph, images, tmp_path / 'm.onnx', 'onnx', dynamic=['batch'])
    for batch in (1, 2, 5):
        check(model, tmp_path / 'm.onnx', torch.randn(batch, 3, 64, 96))


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_what_is_no_image_is_refused(suffix, tmp_path):
    if suffix == '.xml':
        pytest.importorskip('openvino', reason='it runs .xml files')
    graph, images = exported(Model().eval(), batch=1)
    file = tmp_path / f'm{suffix}'
    write(graph, images, file, 'onnx' if suffix == '.onnx' else 'openvino')
    model = ExportedModel(file, threads=2)
    photo = np.zeros((50, 70, 3), np.uint8)
    assert len(model.predict(photo)) == 3
    for bad in (
        None,
        'photo.jpg',
        photo[..., 0],
        photo[:0],
        photo.repeat(2, -1)[..., :4],
        photo.astype(np.float32),
        photo.astype(np.uint16),
    ):
        with pytest.raises(ValueError, match=r'an image is an array \(H, W'):
            model.predict(bad)
    for dtype in (np.uint8, np.float64):
        with pytest.raises(ValueError, match='takes images of float32, not'):
            model.run(images.numpy().astype(dtype))
    model.facts.unprepared = ['CLAHE']
    with pytest.raises(ValueError, match='has CLAHE, which is not done here'):
        model.predict(photo)


@pytest.mark.parametrize('custom_op', ['scan', 'block'])
def test_custom_ops_give_the_same_maps(custom_op, tmp_path):
    model = Model().eval()
    graph, images = exported(model, custom_op=custom_op)
    write(graph, images, tmp_path / 'm.onnx', 'onnx')
    check(model, tmp_path / 'm.onnx', images)
    nodes = onnx.load(tmp_path / 'm.onnx').graph.node
    ours = {node.op_type for node in nodes if node.domain == 'mmmamba'}
    name = dict(scan='BidirectionalScan', block='Block')[custom_op]
    assert name in ours


def test_blocks_take_images_of_any_size(tmp_path):
    model = Model().eval()
    graph, images = exported(model, custom_op='block')
    graph.facts.shape = None
    axes = ['batch', 'height', 'width']
    write(graph, images, tmp_path / 'm.onnx', 'onnx', dynamic=axes)
    check(model, tmp_path / 'm.onnx', torch.randn(1, 3, 70, 65))


@torch.no_grad()
def test_tracing_exporter_keeps_the_scan_in_pytorch():
    """It once lost the scan, whose writes into a tensor it does not see."""
    torch.manual_seed(0)
    backbone = lively(MobileMamba(SMALL))
    images = torch.randn(1, 3, 64, 64)
    file = io.BytesIO()
    with use_backend('torch'):
        expected = backbone(images)
        torch.onnx.export(
            backbone, (images,), file, dynamo=False, opset_version=17
        )
    session = ort.InferenceSession(file.getvalue())
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    for value, other in zip(expected, found):
        error = np.abs(value.numpy() - other).max() / value.abs().max()
        assert error < 1e-5


@pytest.fixture(scope='module')
def file_with_facts(tmp_path_factory):
    graph, images = exported(Model().eval())
    graph.facts.resize = dict(interpolation='bilinear')
    file = tmp_path_factory.mktemp('facts') / 'm.onnx'
    write(graph, images, file, 'onnx')
    ExportedModel(file)
    return file


def test_facts_are_in_the_file(tmp_path):
    graph, images = exported(Model().eval())
    graph.facts.classes = ['ant', 'bee']
    write(graph, images, tmp_path / 'm.onnx', 'onnx')
    meta = {
        p.key: p.value for p in onnx.load(tmp_path / 'm.onnx').metadata_props
    }
    facts = json.loads(meta['mmmamba'])
    assert facts['classes'] == ['ant', 'bee']
    assert facts['arch'] == 't2' or facts['arch'] == ''
    assert facts['outputs'] == ['stage1', 'stage2', 'stage3']


def test_half_weights_make_the_file_half_as_large(tmp_path):
    graph, images = exported(Model().eval())
    sizes = []
    for half in (False, True):
        write(graph, images, tmp_path / 'm.onnx', 'onnx', half=half)
        sizes.append((tmp_path / 'm.onnx').stat().st_size)
        found = ExportedModel(tmp_path / 'm.onnx').run(images.numpy())
    with torch.no_grad():
        expected = graph(images)[-1]
    error = np.abs(found['stage3'] - expected.numpy()).max()
    assert 0 < error / expected.abs().max() < 1e-2
    assert sizes[1] < 0.75 * sizes[0]


class Anchored(nn.Module):
    """A layer, and constants in pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 64, 3)
        self.register_buffer('anchors', torch.linspace(0, 1333, 1000))

    def forward(self, images):
        return self.layer(images), self.anchors + images.mean()


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_half_weights_leave_anchors_in_place(suffix, tmp_path):
    if suffix == '.xml':
        pytest.importorskip('openvino', reason='it runs .xml files')
    graph = Graph(Anchored(), Facts(outputs=['maps', 'anchors']))
    images, file = torch.randn(1, 3, 8, 8), tmp_path / f'm{suffix}'
    kind = 'onnx' if suffix == '.onnx' else 'openvino'
    write(graph, images, file, kind, half=True)
    found = ExportedModel(file).run(images.numpy())
    with torch.no_grad():
        maps, anchors = graph(images)
    assert 1e-5 < np.abs(found['maps'] - maps.numpy()).max() < 1e-2
    assert np.abs(found['anchors'] - anchors.numpy()).max() < 1e-3


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    openvino = pytest.importorskip('openvino', reason='it writes .xml files')
    graph, images = exported(Model(), (64, 64), 1)
    file = tmp_path / 'm.xml'
    write(graph, images, file, 'openvino')
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    assert sorted(before) == ['m.bin', 'm.xml']

    def disk_full(model, path, **options):
        Path(path).with_suffix('.bin').write_bytes(b'half')
        raise OSError('no space left on device')

    monkeypatch.setattr(openvino, 'save_model', disk_full)
    with pytest.raises(OSError, match='no space'):
        write(graph, images, file, 'openvino')
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_a_deployed_backbone_is_refused():
    model = Model().eval()
    model.backbone.switch_to_deploy()
    with pytest.raises(ExportError, match='deployed already'):
        exported(model)


def test_int8_of_a_backbone_that_is_deployed():
    """In float32 it gets fewer bits, in other ones it is refused."""
    model = Model().eval()
    model.backbone.switch_to_deploy()
    graph, _ = exported(model, custom_op='block', dtype='int8')
    assert torch.int8 in {p.dtype for p in graph.parameters()}
    model = Model().eval()
    model.backbone.switch_to_deploy('bfloat16')
    with pytest.raises(ExportError, match='already, and not in int8'):
        exported(model, custom_op='block', dtype='int8')


def test_a_backbone_in_bfloat16_is_refused():
    model = Model().eval()
    model.backbone.switch_to_deploy('bfloat16')
    graph, images = exported(model, custom_op='block')
    with pytest.raises(ExportError, match='is deployed in bfloat16'):
        make_onnx(graph, images)


def test_narrow_blocks_are_refused_by_name():
    model = Model(channels=(32, 48, 64)).eval()
    graph, images = exported(model, custom_op='block')
    with pytest.raises(ExportError, match='--custom-op scan serves'):
        make_onnx(graph, images)


def test_an_untested_opset_is_refused():
    graph, images = exported(Model().eval())
    with pytest.raises(ExportError, match='opset 9'):
        make_onnx(graph, images, opset=9)


def test_another_backbone_is_refused():
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 3, 1)
    with pytest.raises(ExportError, match='Conv2d, is not MobileMamba'):
        make_graph(model, Facts(), (64, 64))


def test_a_foreign_file_is_refused(tmp_path):
    graph, images = exported(Model().eval())
    model = make_onnx(graph, images)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / 'm.onnx')
    with pytest.raises(ValueError, match='not written by mmmamba'):
        ExportedModel(tmp_path / 'm.onnx')


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (lambda text: text[:-5], 'line 1 column'),
        (lambda text: '[1]', 'must be a mapping'),
        (lambda text: text.replace('"resize"', '"other"'), "'resize'"),
        (lambda text: text.replace('"bilinear"', '"x"'), "is 'x')"),
        (lambda text: text.replace('[64, 96]', '[64, 97]'), 'has [64, 96]'),
    ],
)
def test_damaged_metadata_are_named(damage, words, file_with_facts, tmp_path):
    model = onnx.load(file_with_facts)
    (entry,) = (p for p in model.metadata_props if p.key == 'mmmamba')
    entry.value = damage(entry.value)
    onnx.save(model, tmp_path / 'm.onnx')
    with pytest.raises(ValueError, match='its metadata are damaged') as error:
        ExportedModel(tmp_path / 'm.onnx')
    assert str(error.value).startswith(f'{tmp_path}/m.onnx: ')
    assert words in str(error.value)
