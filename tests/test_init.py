"""What ``import mmmamba`` gives, with OpenMMLab and without."""

from pathlib import Path

import pytest
import torch

from mmmamba.backbones import MobileMamba

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / 'tests/programs/without_openmmlab.py'


def test_ops_need_torch_alone(run_python):
    result = run_python(PROGRAM, 'ops')
    assert result.returncode == 0, result.stderr


def test_deployed_layers_need_torch_alone(run_python):
    result = run_python(PROGRAM, 'deploy')
    assert result.returncode == 0, result.stderr


def test_deploy_model_says_what_is_missing(run_python):
    result = run_python(PROGRAM, 'deploy_model')
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('deployed', [False, True])
@torch.no_grad()
def test_exported_program_needs_torch_alone(deployed, tmp_path, run_python):
    arch = dict(base='t2', channels=(16, 32, 48), depths=(1, 1, 1))
    model = MobileMamba(arch).eval()
    if deployed:
        model.switch_to_deploy()
    x = torch.randn(2, 3, 65, 80)
    torch.save((x, model(x)), tmp_path / 'example.pth')
    program = torch.export.export(model, (x,))
    torch.export.save(program, tmp_path / 'program.pt2')
    result = run_python(
        *(PROGRAM, 'program', tmp_path / 'program.pt2'),
        tmp_path / 'example.pth',
    )
    assert result.returncode == 0, result.stderr


def test_broken_mmengine_says_why(tmp_path, run_python):
    broken = tmp_path / 'mmengine.py'
    broken.write_text('raise ImportError("libbroken.so is missing")\n')
    command = f'import sys; sys.path.insert(0, {str(tmp_path)!r})'
    result = run_python('-c', f'{command}; import mmmamba')
    assert 'libbroken.so is missing' in result.stderr


def test_nothing_is_printed(run_python):
    result = run_python('-c', 'import mmmamba')
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')
