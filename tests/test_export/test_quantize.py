"""Convolutions in 8 bits."""

import sys
import zlib

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_deploy.test_export_layers import SMALL, lively
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.deploy import ExportedModel
from mmmamba.export import ExportError, Facts, make_graph
from mmmamba.export.formats import check_packages, save_openvino, write
from mmmamba.export.onnx_file import make_openvino
from mmmamba.export.quantize import Batches, find_images, quantize_openvino
from mmmamba.utils.onnx import trace

onnx = pytest.importorskip('onnx', reason='exports are ONNX files')
pytest.importorskip('onnxruntime', reason='it quantizes ONNX files')
PACKAGES = {'.onnx': 'onnxruntime', '.xml': 'nncf'}


class Model(nn.Module):
    """A model that is a backbone and nothing else."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = lively(MobileMamba(SMALL))


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    """Pictures in a folder of a folder, one file that is none."""
    folder = tmp_path_factory.mktemp('photos')
    (folder / 'class').mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
        image = cv2.resize(coarse, (80, 60), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'class/{i}.png'), image)
    (folder / 'broken.jpg').write_text('<html>')
    (folder / 'notes.txt').write_text('no image')
    return folder


def quantized(file, photos, batch=1, preprocessed=False, dynamic=()):
    """Write a file; return the graph it was made of."""
    pytest.importorskip(PACKAGES[file.suffix], reason='it quantizes')
    facts = Facts(
        shape=[64, 64],
        mean=[120.0] * 3,
        std=[60.0] * 3,
        bgr_to_rgb=True,
        preprocessed=preprocessed,
        resize=dict(keep_ratio=False),
    )
    graph = make_graph(Model().eval(), facts, (64, 64))
    images = torch.randn(batch, 3, 64, 64)
    if preprocessed:
        images = images.permute(0, 2, 3, 1).to(torch.uint8).contiguous()
    kind = 'onnx' if file.suffix == '.onnx' else 'openvino'
    chosen = find_images(photos, 4)
    write(graph, images, file, kind, dynamic=dynamic, calibration=chosen)
    return graph


def distance(graph, file, photo):
    """Largest difference of the maps of a photo, over their maximum."""
    model = ExportedModel(file, threads=2)
    image = model.prepare(cv2.imread(str(photo)))[0][None]
    with torch.no_grad():
        expected = graph(torch.from_numpy(image))
    found = model.run(image).values()
    return max(
        np.abs(a.numpy() - b).max() / a.abs().max().item()
        for a, b in zip(expected, found)
    )


@pytest.mark.slow
@pytest.mark.parametrize('preprocessed', [False, True])
@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_maps_differ_by_rounding(suffix, preprocessed, photos, tmp_path):
    file = tmp_path / f'model{suffix}'
    graph = quantized(file, photos, preprocessed=preprocessed)
    assert 1e-5 < distance(graph, file, photos / 'class/0.png') < 0.1
    left = {path.suffix for path in tmp_path.iterdir()}
    assert left == {suffix} | ({'.bin'} if suffix == '.xml' else set())


@pytest.mark.slow
def test_dense_convolutions_alone_are_quantized(photos, tmp_path):
    quantized(tmp_path / 'model.onnx', photos)
    model = onnx.load(tmp_path / 'model.onnx')
    made_by = {name: node for node in model.graph.node for name in node.output}
    dense = set()
    for node in model.graph.node:
        if node.op_type != 'Conv':
            continue
        (groups,) = (a.i for a in node.attribute if a.name == 'group')
        weight = made_by.get(node.input[1])
        in_8_bits = weight is not None and 'Dequantize' in weight.op_type
        assert in_8_bits == (groups == 1), node.name
        if groups == 1:
            dense.update(node.output)
    relus = [n for n in model.graph.node if n.op_type == 'Relu']
    assert relus
    assert not any(node.input[0] in dense for node in relus)


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_batch_stays_open(suffix, photos, tmp_path):
    file = tmp_path / f'model{suffix}'
    quantized(file, photos, batch=2, dynamic=['batch'])
    model = ExportedModel(file, threads=2)
    for batch in (1, 3):
        images = np.zeros((batch, 3, 64, 64), np.float32)
        assert len(model.run(images)['stage1']) == batch


class Pyramid(nn.Module):
    """As in an FPN, several read what comes of a convolution."""

    def __init__(self, bias, act):
        super().__init__()
        self.lateral = nn.Sequential(nn.Conv2d(3, 16, 3, bias=bias), act)
        self.out = nn.Conv2d(16, 16, 1)

    def forward(self, images):
        x = self.lateral(images)
        return self.out(x), F.interpolate(x, scale_factor=2)


@pytest.mark.slow
@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('act', [nn.Identity(), nn.ReLU(), nn.SiLU()])
def test_open_batch_costs_no_accuracy(bias, act, photos, tmp_path):
    """OpenVINO scaled what comes of such a convolution twice."""
    pytest.importorskip('nncf', reason='it quantizes')
    torch.manual_seed(0)
    model, images = Pyramid(bias, act), torch.randn(2, 3, 64, 64)
    names = dict(input_names=['images'], dynamic_axes={'images': {0: 'batch'}})
    file = trace(model, images, **names)
    facts = Facts(shape=[64, 64], std=[60.0] * 3, outputs=['out', 'lateral'])
    converted = make_openvino(onnx.load_from_string(file), facts)
    converted = quantize_openvino(converted, facts, find_images(photos, 4))
    save_openvino(converted, tmp_path / 'm.xml')
    found = ExportedModel(tmp_path / 'm.xml').run(images.numpy())
    with torch.no_grad():
        for expected, values in zip(model(images), found.values()):
            error = np.abs(expected.numpy() - values).max()
            assert error < 0.1 * expected.abs().max()


def test_images_are_from_all_over_the_folder(photos):
    assert [p.name for p in find_images(photos, 3)] == ['1.png', '3.png']
    found = find_images(photos, 100)
    assert [p.name for p in found] == [f'{i}.png' for i in range(6)]


def test_images_that_cannot_be_read_are_left_out(photos, tmp_path):
    photo = (photos / 'class/0.png').read_bytes()
    (tmp_path / 'good.png').write_bytes(photo)
    sides, rest = np.array([60000, 60000], '>u4').tobytes(), photo[24:29]
    checksum = zlib.crc32(b'IHDR' + sides + rest).to_bytes(4, 'big')
    huge = photo[:16] + sides + rest + checksum + photo[33:]
    (tmp_path / 'huge.png').write_bytes(huge)
    assert [p.name for p in find_images(tmp_path, 10)] == ['good.png']


def test_last_batch_is_filled_up(photos):
    facts = Facts(shape=[64, 64], resize=dict(keep_ratio=False))
    batches = Batches(find_images(photos, 100), facts, 4)
    assert len(batches) == 2
    for _ in range(2):  # calibration goes over them more than once
        first, last = batches
        assert first.shape == last.shape == (4, 3, 64, 64)
        assert (last[1:] == last[1]).all()
        assert (last[0] != last[1]).any()


def test_folder_without_images_is_named(photos, tmp_path):
    with pytest.raises(ExportError, match=f'{tmp_path}: there is no image'):
        find_images(tmp_path, 10)
    (tmp_path / 'broken.jpg').write_text('<html>')
    with pytest.raises(ExportError, match='that can be read'):
        find_images(tmp_path, 10)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(ExportError, match='pip install nncf'):
        check_packages('openvino', quantized=True)
