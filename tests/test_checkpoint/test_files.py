"""Tests of mmmamba/checkpoint/files.py: damaged files, and code in them."""

import io
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from checkpoints import Call, needs_safe_globals, pretrained
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmmamba.checkpoint import (
    CheckpointError,
    load_from_local,
    load_pretrained,
)


def file_of(content, **kwargs):
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def random_bytes(seed):
    return np.random.RandomState(seed).bytes(5000)


NO_CHECKPOINTS = {
    'empty': (b'', 'empty (0 bytes)'),
    'text': (b'version https://git-lfs', 'not a PyTorch checkpoint'),
    'json': (b'{"state_dict": {}}', 'not a PyTorch checkpoint'),
    'other archive': (zip_of({'a.txt': 'a'}), 'damaged'),
    'start of an archive': (b'PK\x03\x04', 'zip directory is missing'),
    'tensor': (file_of(torch.ones(2)), 'holds a Tensor'),
    'list': (file_of([torch.ones(2)]), 'holds a list'),
    **{
        f'{start!r} and noise {seed}': (start + random_bytes(seed), '')
        for start in (b'PK', b'PK\x03\x04', b'\x80', b'\x80\x02')
        for seed in (0, 1)
    },
}
READERS = dict(
    ours=load_from_local,
    init_cfg=lambda path: load_pretrained(nn.Linear(1, 1), path),
    mmengine=pytest.param(
        lambda path: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
        marks=needs_safe_globals,
    ),
    mmengine_model=pytest.param(
        lambda path: load_checkpoint(nn.Linear(1, 1), str(path)),
        marks=needs_safe_globals,
    ),
)
each_reader = pytest.mark.parametrize(
    'read', READERS.values(), ids=READERS.keys()
)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('content', NO_CHECKPOINTS)
@each_reader
def test_other_files_are_refused(read, content, save):
    content, text = NO_CHECKPOINTS[content]
    path = save(content)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert text in str(error.value)
    assert str(path) in str(error.value)


@each_reader
@pytest.mark.parametrize('name', ['', 'nowhere.pth'], ids=['folder', 'none'])
def test_missing_file(read, name, tmp_path):
    path = tmp_path / name
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        read(path)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
@pytest.mark.parametrize(
    'cut', [1, 2, 20, 1000, 0.3, 0.9, 0.999, -100, -22, -2, -1]
)
def test_truncated_file_is_refused(tiny, cut, legacy, save):
    content = file_of(tiny, _use_new_zipfile_serialization=not legacy)
    cut = int(cut * len(content)) if isinstance(cut, float) else cut
    path = save(content[:cut])
    with pytest.raises(CheckpointError) as error:
        load_from_local(path)
    assert str(path) in str(error.value)
    # More than the file's name and 'damaged': what is wrong with it.
    assert not str(error.value).rstrip().endswith(':')


SMALL = dict(
    state_dict=dict(a=torch.arange(64.0), b=torch.ones(3, 5)),
    meta=dict(epoch=3),
)


def plain(checkpoint):
    """Plain values, which ``==`` can compare."""
    if isinstance(checkpoint, dict):
        return {n: plain(v) for n, v in checkpoint.items()}
    if isinstance(checkpoint, torch.Tensor):
        return checkpoint.dtype, checkpoint.tolist()
    return checkpoint


def is_small(checkpoint):
    return plain(checkpoint) == plain(SMALL)


def damaged_versions(content):
    """Flip bits of every seventh byte, and of each in a zip's directory end.

    That takes the last 98 bytes, or 22 in an archive that is not zip64.
    """
    end = len(content) - 98
    for position in [*range(0, end, 7), *range(end, len(content))]:
        for flip in (0x01, 0xFF):
            damaged = bytearray(content)
            damaged[position] ^= flip
            yield position, bytes(damaged)


def test_damaged_file_never_loads_as_other_weights(save):
    """Whole or refused: a zip archive has checksums."""
    content = file_of(SMALL)
    path = save(content)
    assert is_small(load_from_local(path))
    changed, crashed = [], []
    for position, damaged in damaged_versions(content):
        path.write_bytes(damaged)
        try:
            if not is_small(load_from_local(path)):
                changed.append(position)
        except CheckpointError:
            pass
        except Exception as error:
            crashed.append((position, repr(error)))
    assert not changed
    assert not crashed


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_damaged_legacy_file_never_crashes(save):
    """It has no checksums; what cannot be read must still be refused."""
    content = file_of(SMALL, _use_new_zipfile_serialization=False)
    path = save(content)
    assert is_small(load_from_local(path))
    refused = 0
    for _, damaged in damaged_versions(content):
        path.write_bytes(damaged)
        try:
            assert isinstance(load_from_local(path), dict)
        except CheckpointError:
            refused += 1
    assert refused


def test_damaged_weights_are_refused(tiny, save):
    content = bytearray(file_of(tiny))
    content[len(content) // 2] ^= 0x10  # within some tensor
    path = save(bytes(content))
    with pytest.raises(CheckpointError, match='damaged') as error:
        pretrained(path)
    assert str(path) in str(error.value)


def pickled(content, protocol=2):
    return pickle.dumps(content, protocol=protocol)


FORMATS = dict(
    torch=file_of,
    torch_legacy=partial(file_of, _use_new_zipfile_serialization=False),
    pickle0=partial(pickled, protocol=0),
    pickle2=pickled,
    pickle4=partial(pickled, protocol=4),
)
EXPLOITS = dict(
    mkdir=lambda marker: Call(os.mkdir, marker),
    open=lambda marker: Call(open, marker, 'w'),
    eval=lambda marker: Call(eval, f'open({marker!r}, "w")'),
)


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('form', FORMATS)
@pytest.mark.parametrize('exploit', EXPLOITS)
@each_reader
def test_code_is_never_run(read, exploit, form, save, tmp_path):
    marker = tmp_path / 'marker'
    exploit = EXPLOITS[exploit](str(marker))
    content = dict(state_dict=dict(weight=[0.5]), extra=exploit)
    pickle.loads(pickle.dumps(content))
    assert marker.exists()  # so much for loading that runs code
    marker.rmdir() if marker.is_dir() else marker.unlink()

    path = save(FORMATS[form](content))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    'content, name',
    # The first by the name that Python 2 had for it, with PyTorch 2.1.
    [
        (Call(range, 3), r'(range|__builtin__\.xrange)'),
        (Call(Call, print), re.escape(f'{Call.__module__}.Call')),
    ],
    ids=['builtin', 'class'],
)
def test_refusal_names_the_class(content, name, save):
    """So that who trusts the file knows what to allow-list."""
    with pytest.raises(CheckpointError) as error:
        load_from_local(save(dict(extra=content)))
    message = str(error.value)
    assert re.search(rf'(?<![\w.]){name}(?![\w.])', message)
    assert 'add_safe_globals' in message
    # Not PyTorch's advice to run the code, nor its terminal codes.
    assert '`weights_only` set to `False`' not in message
    assert '\x1b' not in message


@pytest.mark.parametrize('form', ['torch', 'torch_legacy', 'pickle2'])
@pytest.mark.parametrize(
    'owner, name',
    [
        (OrderedDict, 'fromkeys'),
        (np.ndarray, 'tofile'),
        (torch.Tensor, 'numpy'),
        ('text', 'format'),
        (Call(getattr, HistoryBuffer, '__init__'), '__globals__'),
        (Call(HistoryBuffer), 'register_statistics'),
    ],
    ids=['type', 'numpy', 'tensor', 'text', 'globals', 'instance'],
)
@needs_safe_globals
def test_getattr_is_for_history_buffers_only(owner, name, form, save):
    allowed = dict(a=Call(getattr, HistoryBuffer, 'mean'))
    assert load_from_local(save(file_of(allowed)))['a'] is HistoryBuffer.mean
    path = save(FORMATS[form](dict(a=Call(getattr, owner, name))))
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load_from_local(path)


@needs_safe_globals
@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: dict(model=weights),
        lambda weights: dict(
            state_dict={f'module.{n}': t for n, t in weights.items()}
        ),
        lambda weights: {f'_orig_mod.{n}': t for n, t in weights.items()},
        lambda weights: dict(
            state_dict={
                n.replace('0.', '0._orig_mod.'): weights[n] for n in weights
            }
        ),
    ],
    ids=['model', 'distributed', 'compiled', 'part is compiled'],
)
def test_runners_find_the_weights(wrap, save):
    """EMAHook looks for them under these names itself."""
    weights = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).state_dict()
    path = save(file_of(wrap(weights)))
    found = CheckpointLoader.load_checkpoint(str(path), 'cpu')['state_dict']
    assert found.keys() == weights.keys()
