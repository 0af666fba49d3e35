"""Options of the command line."""

import os
from argparse import Namespace

import pytest

from mmmamba.utils.cli import UsageError, check_checkpoint, load_config


def test_options_below_a_setting_that_is_none(tmp_path):
    """As in ``init_cfg=None``, which mmengine would refuse to extend."""
    file = tmp_path / 'config.py'
    file.write_text('model = dict(backbone=dict(init_cfg=None), neck=1)')
    options = {
        'model.backbone.init_cfg.type': 'Pretrained',
        'model.backbone.init_cfg.checkpoint': 'a.pth',
        'model.head.x': 2,
    }
    cfg = load_config(Namespace(config=str(file), cfg_options=options))
    expected = dict(type='Pretrained', checkpoint='a.pth')
    assert cfg.model.backbone.init_cfg == expected
    assert (cfg.model.neck, cfg.model.head.x) == (1, 2)


@pytest.mark.parametrize('given', ['init_cfg=None', ''])
def test_a_checkpoint_alone_is_enough(tmp_path, given):
    file = tmp_path / 'config.py'
    file.write_text(f'model = dict(backbone=dict({given}))')
    options = {'model.backbone.init_cfg.checkpoint': 'a.pth'}
    cfg = load_config(Namespace(config=str(file), cfg_options=options))
    expected = dict(type='Pretrained', checkpoint='a.pth')
    assert cfg.model.backbone.init_cfg == expected


def test_a_pattern_that_fits_no_checkpoint(tmp_path):
    """As printed by prepare.py; the shell leaves it as it is."""
    pattern = str(tmp_path / 'best_*.pth')
    with pytest.raises(UsageError) as error:
        check_checkpoint(pattern)
    assert str(error.value) == (
        f'there is no checkpoint {pattern}: a validation that finds nothing '
        'keeps none'
    )
    for epoch in (9, 12):
        file = tmp_path / f'epoch_{epoch}.pth'
        file.write_bytes(b'')
        os.utime(file, (epoch, epoch))
    with pytest.raises(UsageError, match=r'the newest in .* epoch_12.pth$'):
        check_checkpoint(pattern)
    check_checkpoint(str(file))
