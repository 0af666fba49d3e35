"""tools/deployment: export, predict and test, as a user runs them."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmmamba.deploy import ExportedModel
from mmmamba.export import gather_facts
from mmmamba.utils.trained_model import load_trained

onnx = pytest.importorskip('onnx', reason='exports are ONNX files')
pytest.importorskip('onnxruntime', reason='it runs ONNX files')
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / 'tools/deployment'
WEB = ('--format', 'web')
RESIZE = 'test_dataloader.dataset.pipeline.1'
PILLOW = ('--cfg-options', f'{RESIZE}.backend=pillow')
AREA = ('--cfg-options', f'{RESIZE}.interpolation=area')
INT8 = ('--dtype', 'int8', '--calibration', 'nothing')


@pytest.fixture(scope='module')
def exported(detector, run_python):
    file = detector[0].with_name('model.onnx')
    result = run_python(*(TOOLS / 'export.py', *detector, file, '--check'))
    assert result.returncode == 0, result.stderr
    assert 'Wrote' in result.stdout
    assert 'a photo keeps its proportions in 96x128' in result.stdout
    return file


def test_objects_are_those_of_the_inferencer(inferred, exported, photo):
    found = ExportedModel(exported, threads=2).predict(cv2.imread(str(photo)))
    number = len(inferred['labels'])
    assert found['labels'][:number].tolist() == inferred['labels']
    assert np.abs(found['boxes'][:number] - inferred['boxes']).max() < 0.05
    assert np.abs(found['scores'][:number] - inferred['scores']).max() < 1e-4


def test_predict_needs_neither_torch_nor_openmmlab(
    exported, photo, tmp_path, run_python
):
    blocked = '; '.join(
        f'sys.modules[{name!r}] = None'
        for name in ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg')
    )
    arguments = ['predict.py', str(exported), str(photo)]
    arguments += ['--out-dir', str(tmp_path), '--json', f'{tmp_path}/o.json']
    arguments += ['--score-thr', '0.1']
    program = (
        f'import sys, runpy; {blocked}; sys.argv = {arguments!r}; '
        f'runpy.run_path({str(TOOLS / "predict.py")!r}, run_name="__main__")'
    )
    result = run_python('-c', program)
    assert result.returncode == 0, result.stderr
    assert '1 images drawn' in result.stdout
    drawing = cv2.imread(str(tmp_path / photo.name))
    assert (drawing != cv2.imread(str(photo))).any()
    found = json.loads((tmp_path / 'o.json').read_text())[str(photo)]
    assert len(found['boxes']) == len(found['scores']) > 0


def test_photos_are_turned_and_what_is_none_is_named(
    exported, photo, tmp_path, run_python
):
    bad, turned = tmp_path / 'bad.jpg', tmp_path / 'turned.webp'
    bad.write_text('<html>')
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    Image.new('RGB', (32, 16)).save(turned, exif=exif)
    result = run_python(
        *(TOOLS / 'predict.py', exported, bad, turned, photo),
        *('--out-dir', tmp_path / 'out'),
    )
    assert result.returncode == 1
    assert 'bad.jpg' in result.stderr
    assert (tmp_path / 'out' / photo.name).is_file()
    drawn = cv2.imread(str(tmp_path / 'out' / 'turned.webp.png'))
    assert drawn.shape == (32, 16, 3)


def test_predict_says_what_is_wrong_first(
    exported, photo, tmp_path, run_python
):
    """Before an image is drawn."""
    other = tmp_path / 'other' / photo.name
    other.parent.mkdir()
    other.write_bytes(photo.read_bytes())
    broken = tmp_path / 'broken.onnx'
    broken.write_bytes(exported.read_bytes()[:5000])
    weightless = tmp_path / 'm.xml'
    weightless.write_text('<net/>')
    for arguments, words in (
        ([exported, photo, other], 'would both be drawn to'),
        ([broken, photo], 'broken.onnx cannot be loaded'),
        ([weightless, photo], 'm.xml cannot be loaded'),
        ([photo, photo], 'neither an .onnx nor an .xml'),
        ([exported, photo, '--out-dir', other], 'other'),
        ([exported, photo, '--threads', '-1'], '--threads must be at least 1'),
        ([exported, photo, '--opacity', '5'], 'between 0 and 1'),
    ):
        result = run_python(TOOLS / 'predict.py', *arguments)
        assert result.returncode in (1, 2)
        assert words in result.stderr
        assert 'Traceback' not in result.stderr


def test_a_checkpoint_without_classes_takes_those_of_the_config(
    detector, tmp_path
):
    config, checkpoint = detector
    bare = tmp_path / 'bare.pth'
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    torch.save(weights, bare)
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    model = load_trained(cfg, str(bare))
    assert gather_facts(model, cfg).classes == ['RBC', 'WBC', 'Platelets']
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[name])


def test_a_file_of_other_classes_is_refused(
    detector, exported, run_tool, capsys
):
    code = run_tool(
        *('deployment/test.py', detector[0], exported, '--cfg-options'),
        'test_dataloader.dataset.metainfo.classes=WBC,RBC,Platelets',
    )
    assert code == 1
    said = 'knows 3 classes (RBC, WBC, Platelets), and the test data have 3 ('
    assert said in capsys.readouterr().err


def test_a_pipeline_that_is_not_done_here_is_refused(
    detector, exported, run_python, tmp_path
):
    model = onnx.load(exported)
    (entry,) = (m for m in model.metadata_props if m.key == 'mmmamba')
    facts = dict(json.loads(entry.value), unprepared=['CLAHE'])
    entry.value = json.dumps(facts)
    onnx.save(model, tmp_path / 'm.onnx')
    result = run_python(TOOLS / 'test.py', detector[0], tmp_path / 'm.onnx')
    assert result.returncode == 1
    assert 'm.onnx has CLAHE, which is not done' in result.stderr


def test_metric_is_that_of_the_toolbox(
    detector, exported, photo, tmp_path, run_python
):
    """Found objects as ground truth give an AP of 1."""
    found = ExportedModel(exported, threads=2).predict(cv2.imread(str(photo)))
    assert len(found['boxes']) > 0
    annotations = [
        dict(
            id=i + 1,
            image_id=1,
            category_id=int(label) + 1,
            bbox=[*map(float, (x1, y1, x2 - x1, y2 - y1))],
            area=float((x2 - x1) * (y2 - y1)),
            iscrowd=0,
        )
        for i, ((x1, y1, x2, y2), label) in enumerate(
            zip(found['boxes'], found['labels'])
        )
        if min(x2 - x1, y2 - y1) > 1
    ]
    names = ('RBC', 'WBC', 'Platelets')
    categories = [dict(id=i + 1, name=n) for i, n in enumerate(names)]
    image = dict(id=1, file_name=photo.name, width=640, height=480)
    truth = dict(
        images=[image], annotations=annotations, categories=categories
    )
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    result = run_python(
        *(TOOLS / 'test.py', detector[0], exported),
        *('--work-dir', tmp_path / 'w'),
        '--cfg-options',
        f'test_dataloader.dataset.data_root={tmp_path}/',
        'test_dataloader.dataset.ann_file=truth.json',
        f'test_dataloader.dataset.data_prefix.img={photo.parent}/',
        f'test_evaluator.ann_file={tmp_path}/truth.json',
        f'{RESIZE}.scale=(256, 192)',  # the file has half of it
        'test_dataloader.dataset.pipeline.0.to_float32=True',
    )
    assert result.returncode == 0, result.stderr
    counted = '1 of 1 images were resized to 50% of the size that the config'
    assert counted in ' '.join((result.stdout + result.stderr).split())
    (metrics,) = (tmp_path / 'w').glob('*/*.json')
    assert json.loads(metrics.read_text())['coco/bbox_mAP'] > 0.95


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (['m.xyz'], 'names no format'),
        (['m.onnx', '--format', 'openvino'], 'is called *.xml'),
        (['m.onnx', '--shape', 'dynamic'], 'needs --custom-op'),
        (['m.onnx', '--shape', '64'], 'HEIGHT WIDTH'),
        (['m.onnx', '--batch', '0'], '--batch 0'),
        (['m.pt', '--custom-op'], 'for onnx and openvino'),
        (['m.onnx', '--dtype', 'int8'], 'go together'),
        (['m.pt', *INT8], 'int8 is for onnx, openvino'),
        (['m.xml', *INT8, '--custom-op'], 'nothing to calibrate'),
        (['m.pt2', *INT8], 'nothing to calibrate'),
        (['m.onnx', *INT8, '--custom-op', 'scan'], 'is for openvino'),
        (['m.onnx', *INT8], 'nothing: there is no image'),
        (['m.mlpackage', '--check'], 'macOS alone'),
        (['m.pte'], 'has no NMS'),
        (['page', *WEB, '--logits'], 'leave --backbone and --logits'),
        (['page', *WEB, '--batch', '2'], 'one by one'),
        (['page', *WEB, '--custom-op'], 'for onnx and openvino'),
        (['page', *WEB, *AREA], "interpolation='area', backend='cv2'"),
        (['page', *WEB, *PILLOW], "='bilinear', backend='pillow'"),
        (['m.onnx', '--opset', '9'], 'opset 9 is not supported'),
        (['m.pt', '--batch', 'dynamic'], 'hold one shape'),
        (['m.pt', '--dtype', 'fp16'], '--dtype fp16 is for onnx'),
        (['m.pt', '--opset', '18'], '--opset is for onnx'),
        (['m.pt2', '--batch', 'dynamic'], 'hold detectors of one batch'),
        (['m.onnx', '--logits'], '--logits is for segmentors'),
        (['m/n.onnx'], 'm/n.onnx cannot be written: File exists'),
    ],
)
def test_what_does_not_go_is_said(
    options, words, detector, tmp_path, run_tool, capsys
):
    (tmp_path / 'm').write_text('')
    file, *rest = options
    arguments = (*detector, tmp_path / file, *rest)
    assert run_tool('deployment/export.py', *arguments) == 1
    assert words in capsys.readouterr().err


def test_check_is_against_the_trained_model(
    detector, tmp_path, run_tool, capsys, monkeypatch
):
    """Not against what it was turned into, which may be wrong."""

    def fold_wrongly(model):
        model.bbox_head.atss_cls.weight.data.mul_(1.1)

    monkeypatch.setattr('mmmamba.export.graph.fold_norms', fold_wrongly)
    arguments = (*detector, tmp_path / 'm.onnx', '--check')
    assert run_tool('deployment/export.py', *arguments) == 1
    assert 'the file differs from the model' in capsys.readouterr().err
