"""The tools that report: FLOPs and the environment."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import PRETRAIN_SIZES
from mmmamba.utils.analysis import analyze_complexity

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('arch', 'published'),
    [
        ('t2', 255),
        ('t4', 413),
        ('s6', 652),
        ('b1', 1080),
        ('b2', 2427),
        ('b4', 4313),
    ],
)
def test_flops_are_the_published(arch, published):
    size = PRETRAIN_SIZES[arch]
    _, flops = analyze_complexity(MobileMamba(arch), (size, size))
    assert flops.total() / 1e6 == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize('size, published', [(320, 1.7), (512, 4.4)])
def test_published_flops_of_ssdlite(size, published):
    """Of three stages, one of which is not used, and neck; without heads."""
    cfg = Config.fromfile(
        ROOT / f'configs/det/ssdlite_mobilemamba_b1_{size}.py'
    )
    cfg.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    _, detector = analyze_complexity(MODELS.build(cfg.model), (size, size))
    _, backbone = analyze_complexity(MobileMamba('b1'), (size, size))
    flops = backbone.total() + detector.by_module()['model.neck']
    assert flops / 1e9 == pytest.approx(published, rel=0.02)


def test_scan_counts_as_published():
    """9 N + 1 for each direction, channel and position."""
    model = MobileMamba(dict(base='t2', d_state=3))
    _, flops = analyze_complexity(model, (64, 96))
    scanned = 0
    for stage, length in zip(model.stages, (4 * 6, 2 * 3, 1 * 2)):
        for block in stage.blocks:
            scanned += block.mixer.global_branch.ssm.D.numel() * length
    assert flops.by_operator()['selective_scan'] == scanned * 28


@pytest.mark.parametrize('directions', [1, 2, 4])
def test_flops_of_a_deployed_backbone(directions):
    """Those of the plain one without its batch norms, which are folded."""
    arch = dict(base='t2', directions=directions)
    model = MobileMamba(arch, norm_cfg=dict(type='BN')).eval()
    _, plain = analyze_complexity(model, (96, 128))
    plain = Counter(plain.by_operator())
    expected = plain.total() - plain['batch_norm']
    model.switch_to_deploy()
    _, deployed = analyze_complexity(model, (96, 128))
    deployed = Counter(deployed.by_operator())
    assert deployed['selective_scan'] == plain['selective_scan'] > 0
    # The plain one multiplies by Haar's filters, the deployed one adds.
    assert deployed.total() == pytest.approx(expected, rel=0.003)


def test_get_flops_of_a_deployed_model(run_tool, capsys):
    config = ROOT / 'configs/cls/mobilemamba_t2.py'
    assert run_tool('analysis_tools/get_flops.py', config) == 0
    assert '256 M' in capsys.readouterr().out
    options = ['--fuse-conv-bn', '--shape', 192]
    assert run_tool('analysis_tools/get_flops.py', config, *options) == 0
    assert '253 M' in capsys.readouterr().out


def test_get_flops_of_a_detector(run_tool, capsys):
    config = ROOT / 'configs/det/retinanet_mobilemamba_b1.py'
    options = ['--shape', 128, 160, '--per-module', 2]
    assert run_tool('analysis_tools/get_flops.py', config, *options) == 0
    output = capsys.readouterr().out
    assert '27.05 M' in output
    assert 'bbox_head' in output


def test_get_flops_of_mask2former(run_tool, capsys):
    """Its head wants descriptions of the images, which mmseg leaves out."""
    config = ROOT / 'configs/seg/mask2former_mobilemamba_b4.py'
    assert run_tool('analysis_tools/get_flops.py', config, '--shape', 64) == 0
    assert '40.88 M' in capsys.readouterr().out


def test_get_flops_of_an_image_that_is_too_small(run_tool, capsys):
    """DINO takes the best 900 places of an image."""
    config = ROOT / 'configs/det/dino_mobilemamba_b1.py'
    assert run_tool('analysis_tools/get_flops.py', config, '--shape', 64) == 1
    message = capsys.readouterr().err
    assert 'does not run on an image of 64x64: selected index k' in message
    assert len(message.splitlines()) == 1


def test_get_flops_refuses_three_sizes(run_tool, capsys):
    config = ROOT / 'configs/cls/mobilemamba_t2.py'
    options = ['--shape', 64, 64, 64]
    assert run_tool('analysis_tools/get_flops.py', config, *options) == 1
    assert '--shape' in capsys.readouterr().err


def test_collect_env():
    result = subprocess.run(
        [sys.executable, ROOT / 'tools/collect_env.py'],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for part in (
        'PyTorch: ',
        'mmmamba: ',
        'mmcv: ',
        'scan, torch: avail',
        'scan on cpu: ',
        'scan on cuda: ',
    ):
        assert part in result.stdout


def test_curve_of_a_log(run_tool, tmp_path):
    """By mmdet's tool, with the style that is its default."""
    log = tmp_path / 'scalars.json'
    rows = (dict(epoch=1, iter=i, step=i, loss=1 / i) for i in (1, 2, 3))
    log.write_text(''.join(f'{json.dumps(row)}\n' for row in rows))
    curve = tmp_path / 'curve.png'
    options = ('plot_curve', log, '--keys', 'loss', '--out', curve)
    assert run_tool('analysis_tools/analyze_logs.py', *options) == 0
    assert curve.stat().st_size > 1000


def test_an_empty_log(run_tool, tmp_path, capsys):
    log = tmp_path / 'scalars.json'
    log.touch()
    assert run_tool('analysis_tools/analyze_logs.py', 'cal_train_time', log)
    message = capsys.readouterr().err
    assert f'{log} is empty: its run ended before' in message
    assert 'Traceback' not in message
