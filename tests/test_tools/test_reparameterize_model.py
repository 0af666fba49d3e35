"""Tests of tools/model_converters/reparameterize_model.py."""

from pathlib import Path

import pytest
import torch
from golden import randomize, relative_error
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_checkpoint

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / 'configs/demo'
CONFIG = CONFIG / 'atss_mobilemamba_mini_shapes.py'
TOOL = 'model_converters/reparameterize_model.py'
OPTIONS = {
    'model.backbone.arch.channels': [16, 24, 32],
    'model.neck.in_channels': [16, 24, 32],
    'model.neck.out_channels': 16,
    'model.bbox_head.in_channels': 16,
    'model.bbox_head.feat_channels': 16,
}
ARGUMENTS = ['--cfg-options', *(f'{k}={v}' for k, v in OPTIONS.items())]
ARGUMENTS = [argument.replace(' ', '') for argument in ARGUMENTS]


def build(**options):
    """The detector of OPTIONS."""
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict({**OPTIONS, **options})
    init_default_scope(cfg.default_scope)
    return MODELS.build(cfg.model)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    model = randomize(build()).eval()
    path = tmp_path / 'trained.pth'
    torch.save(dict(meta=dict(epoch=3), state_dict=model.state_dict()), path)
    return model, path


@torch.no_grad()
def test_the_same_detector(checkpoint, run_tool, tmp_path):
    model, path = checkpoint
    target = tmp_path / 'new/deployed.pth'
    assert run_tool(TOOL, CONFIG, path, target, *ARGUMENTS) == 0
    fast = build(**{'model.backbone.deploy': True}).eval()
    meta = load_checkpoint(fast, str(target), strict=True)['meta']
    assert meta['epoch'] == 3 and meta['deploy']
    x = torch.randn(1, 3, 320, 256)
    for found, expected in zip(fast(x), model(x)):
        for out, plain in zip(found, expected):
            assert relative_error(out, plain) <= 1e-5


@torch.no_grad()
def test_a_detector_in_int8(checkpoint, run_tool, tmp_path):
    model, path = checkpoint
    target = tmp_path / 'int8.pth'
    options = ['--dtype', 'int8', *ARGUMENTS]
    assert run_tool(TOOL, CONFIG, path, target, *options) == 0
    fast = build(**{'model.backbone.deploy': 'int8'}).eval()
    meta = load_checkpoint(fast, str(target), strict=True)['meta']
    assert meta['deploy'] == 'int8'
    model.backbone.switch_to_deploy('int8')
    x = torch.randn(1, 3, 320, 256)
    for found, expected in zip(fast(x), model(x)):
        for out, same in zip(found, expected):
            assert torch.equal(out, same)


@pytest.mark.parametrize(
    'source, target, options, message',
    [
        ('none.pth', 'x.pth', [], 'there is no checkpoint'),
        ('trained.pth', 'trained.pth', [], 'are the same file'),
        ('trained.pth', '.', [], 'is a directory'),
        (
            'trained.pth',
            'x.pth',
            ['model.backbone.deploy=True'],
            'needs deploy=False',
        ),
        (
            'trained.pth',
            'x.pth',
            ['model.backbone.arch.depths=[2,1,1]'],
            'set arch to match it',
        ),
    ],
)
def test_refusals(
    checkpoint, run_tool, tmp_path, capsys, source, target, options, message
):
    files = tmp_path / source, tmp_path / target
    assert run_tool(TOOL, CONFIG, *files, *ARGUMENTS, *options) == 1
    assert message in capsys.readouterr().err


def test_norms_that_do_not_fold(run_tool, capsys, tmp_path):
    norm = {'type': 'GN', 'num_groups': 1}
    norm = {f'model.backbone.norm_cfg.{key}': norm[key] for key in norm}
    path = tmp_path / 'trained.pth'
    torch.save(dict(state_dict=build(**norm).state_dict()), path)
    files, options = (path, tmp_path / 'x.pth'), ARGUMENTS.copy()
    options += [f'{key}={value}' for key, value in norm.items()]
    assert run_tool(TOOL, CONFIG, *files, *options) == 1
    assert 'which GroupNorm' in capsys.readouterr().err


def test_a_checkpoint_of_another_model(checkpoint, run_tool, capsys, tmp_path):
    """Its head would stay as random as it was built."""
    model, path = checkpoint
    weights = model.backbone.state_dict(prefix='backbone.')
    torch.save(dict(state_dict=weights), path)
    target = tmp_path / 'deployed.pth'
    assert run_tool(TOOL, CONFIG, path, target, *ARGUMENTS) == 1
    assert 'tensors are missing' in capsys.readouterr().err
    assert not target.exists()
