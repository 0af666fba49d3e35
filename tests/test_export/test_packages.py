"""Formats of PyTorch, and those for phones."""

import json

import pytest
import torch
from test_deploy.test_export_layers import SMALL, lively

from mmmamba.backbones import MobileMamba
from mmmamba.export import ExportError, Facts, make_graph
from mmmamba.export.check import compare
from mmmamba.export.formats import exported_program, write

pytestmark = pytest.mark.slow

WITH_TORCH_ALONE = """
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'torchvision'):
    sys.modules[name] = None
import torch
import mmmamba.ops
from torch._inductor import aoti_load_package

model = aoti_load_package(sys.argv[1])
images, *expected = torch.load(sys.argv[2])
for found, map in zip(model(images), expected, strict=True):
    torch.testing.assert_close(found, map, rtol=1e-5, atol=1e-5)
print(model.get_metadata()['mmmamba'])
"""


def make(height, width, batch=1, custom_op=None, dtype=None, arch=SMALL):
    """A graph of a small backbone, and images for it."""
    torch.manual_seed(0)
    backbone = lively(MobileMamba(arch)).eval()
    if dtype is not None:
        backbone.switch_to_deploy(dtype)
    facts = Facts(arch='small', shape=[height, width])
    graph = make_graph(backbone, facts, (height, width), custom_op=custom_op)
    return graph, torch.randn(batch, 3, height, width)


def check(graph, file, images):
    differences = compare(graph, file, images)
    assert [d.name for d in differences] == ['stage1', 'stage2', 'stage3']
    for difference in differences:
        assert difference.passed, difference


def test_torchscript(tmp_path):
    graph, images = make(161, 130, batch=2)
    write(graph, images, tmp_path / 'm.pt', 'torchscript')
    check(graph, tmp_path / 'm.pt', images)
    facts = {'mmmamba.json': ''}
    torch.jit.load(tmp_path / 'm.pt', _extra_files=facts)
    assert json.loads(facts['mmmamba.json'])['arch'] == 'small'


@pytest.mark.compiler
@pytest.mark.parametrize('dtype', [None, 'int8'])
def test_package_of_pytorch(tmp_path, run_python, compiled, dtype):
    """Any batch, height and width, in a process without OpenMMLab."""
    graph, images = make(161, 130, 2, 'block', dtype)
    file = tmp_path / 'm.pt2'
    write(graph, images, file, 'pt2', dynamic=['batch', 'height', 'width'])
    images = torch.randn(3, 3, 128, 80)
    check(graph, file, images)
    with torch.no_grad():
        torch.save([images, *graph(images)], tmp_path / 'expected.pth')
    result = run_python(
        '-c', WITH_TORCH_ALONE, file, tmp_path / 'expected.pth'
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)['arch'] == 'small'


def test_axes_that_cannot_stay_open(tmp_path):
    """The blocks of a narrow arch do not run as one op."""
    arch = dict(channels=(32, 48, 64), depths=(1, 1, 1))
    graph, images = make(96, 96, custom_op='block', arch=arch)
    with pytest.raises(ExportError, match='cannot leave height, width open'):
        exported_program(graph, images, ['height', 'width'])


def test_executorch(tmp_path):
    """The Haar filters of the two ways must not be taken for one."""
    runtime = pytest.importorskip('executorch.runtime').Runtime.get()
    graph, images = make(161, 130)
    file = tmp_path / 'm.pte'
    write(graph, images, file, 'executorch')
    check(graph, file, images)
    facts = runtime.load_program(file).load_method('mmmamba').execute([])
    assert json.loads(facts[0])['arch'] == 'small'


def test_core_ml(tmp_path):
    """What macOS alone runs: the form of the file, and what it is made of."""
    coremltools = pytest.importorskip('coremltools')
    graph, images = make(161, 130)
    file = tmp_path / 'm.mlpackage'
    write(graph, images, file, 'coreml')
    model = coremltools.models.MLModel(str(file), skip_model_load=True)
    spec = model.get_spec()
    (image,) = spec.description.input
    assert image.name == 'images'
    assert list(image.type.multiArrayType.shape) == [1, 3, 161, 130]
    names = [output.name for output in spec.description.output]
    assert names == ['stage1', 'stage2', 'stage3']
    assert json.loads(model.user_defined_metadata['mmmamba'])['arch']
    (function,) = spec.mlProgram.functions.values()
    (block,) = function.block_specializations.values()
    kinds = {operation.type for operation in block.operations}
    assert {'conv', 'conv_transpose', 'linear', 'exp'} <= kinds
    assert not {'while_loop', 'cond'} & kinds
    program = exported_program(graph, images).run_decompositions({})
    with torch.no_grad():
        for found, expected in zip(program.module()(images), graph(images)):
            error = (found - expected).abs().max() / expected.abs().max()
            assert error < 1e-5


@pytest.mark.parametrize('kind', ['executorch', 'coreml'])
def test_detectors_are_refused(kind, tmp_path):
    graph, images = make(64, 64)
    graph.facts.task = 'detection'
    with pytest.raises(ExportError, match='has no NMS'):
        write(graph, images, tmp_path / 'm', kind)
