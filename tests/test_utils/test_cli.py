"""Options of the command line."""

from argparse import Namespace

from mmmamba.utils.cli import load_config


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
