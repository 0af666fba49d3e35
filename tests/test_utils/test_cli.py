"""Options of the command line."""

import errno
import os
from argparse import ArgumentTypeError, Namespace

import pytest
import torch

from mmmamba.utils.cli import (
    UsageError,
    check_checkpoint,
    load_config,
    positive_int,
    run_tool,
    torch_device,
)


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


def test_no_workers(tmp_path):
    """PyTorch refuses to keep them."""
    file = tmp_path / 'config.py'
    file.write_text(
        'train_dataloader = dict(num_workers=4, persistent_workers=True)\n'
        'val_dataloader = dict(num_workers=4, persistent_workers=True)\n'
        'test_dataloader = None\n'
    )
    options = {'train_dataloader.num_workers': 0}
    cfg = load_config(Namespace(config=str(file), cfg_options=options))
    assert not cfg.train_dataloader.persistent_workers
    assert cfg.val_dataloader.persistent_workers


def test_a_work_dir_that_is_a_file(tmp_path):
    file = tmp_path / 'config.py'
    file.write_text('model = dict()')
    args = Namespace(config=str(file), cfg_options=None, work_dir=str(file))
    with pytest.raises(UsageError, match='config.py is a file'):
        load_config(args)


def test_from_mixed_to_full_precision(tmp_path):
    """As NonFiniteError advises."""
    file = tmp_path / 'config.py'
    file.write_text(
        'optim_wrapper = dict(type="AmpOptimWrapper", loss_scale="dynamic", '
        'dtype="float16", accumulative_counts=2)'
    )
    cfg = load_config(Namespace(config=str(file), cfg_options=None))
    assert cfg.optim_wrapper.loss_scale == 'dynamic'
    options = {'optim_wrapper.type': 'OptimWrapper'}
    cfg = load_config(Namespace(config=str(file), cfg_options=options))
    expected = dict(type='OptimWrapper', accumulative_counts=2)
    assert cfg.optim_wrapper == expected


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_in_one_line(code, capsys):
    def save():
        raise OSError(code, os.strerror(code))

    with pytest.raises(SystemExit) as end:
        run_tool(save)
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert os.strerror(code) in line and '--resume' in line


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


def test_numbers_of_at_least_1():
    assert positive_int('12') == 12
    for text in ('0', '-1', '1.5', 'x', ''):
        with pytest.raises(ArgumentTypeError, match='no number of at least 1'):
            positive_int(text)


@pytest.mark.parametrize('gpus', [0, 2])
def test_devices(monkeypatch, gpus):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    assert torch_device('cpu') == 'cpu'
    with pytest.raises(ArgumentTypeError, match='zz is no device of PyTorch'):
        torch_device('zz')
    if gpus:
        assert torch_device('cuda') == 'cuda'
        assert torch_device('cuda:1') == 'cuda:1'
    said = 'the last GPU here is cuda:1' if gpus else 'there is no CUDA GPU'
    with pytest.raises(ArgumentTypeError, match=said):
        torch_device('cuda:2')
