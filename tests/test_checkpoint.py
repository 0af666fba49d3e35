"""Tests of mmmamba/checkpoint: names, containers, refusals, safety."""

import io
import logging
import os
import pickle
import re
import threading
import zipfile
from collections import OrderedDict
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from golden import DATA, published_keys, published_state_dict
from mmengine.hooks import Hook
from mmengine.logging import HistoryBuffer, MessageHub, MMLogger
from mmengine.model import BaseModel
from mmengine.optim import OneCycleLR
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.visualization import Visualizer
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import (
    CheckpointError,
    from_published,
    is_published,
    load_from_local,
    load_pretrained,
    to_published,
)
from mmmamba.checkpoint.files import HAS_SAFE_GLOBALS

MODELS = sorted(p.stem.removeprefix('keys_') for p in DATA.glob('keys_*'))
TINY = dict(base='t2', channels=(48, 64, 80), depths=(1, 1, 1))
# Without it torch cannot be told what a runner's checkpoint may hold, and
# mmengine's own loading is left as it is.
needs_safe_globals = pytest.mark.skipif(
    not HAS_SAFE_GLOBALS, reason='needs torch >= 2.6'
)


def without_heads(tensors):
    """Leave out what only the published classifiers have."""
    return {
        n: t
        for n, t in tensors.items()
        if not n.startswith(('head.', 'head_dist.'))
    }


def hollow(name):
    """A published state dict of true names and shapes, a few kB on disk."""
    return OrderedDict(
        (name, torch.zeros(()).expand(shape))
        for name, shape in published_keys(name).items()
    )


def add_prefix(prefix, tensors):
    return {prefix + n: t for n, t in tensors.items()}


@cache
def to_published_once(name):
    return to_published(name)


def translate(tensors, layout):
    """Our names, or the published ones."""
    if layout == 'ours':
        return dict(tensors)
    return {to_published_once(n): t for n, t in tensors.items()}


@cache
def structure(arch):
    """A backbone without values, for its names and shapes."""
    with torch.device('meta'):
        return MobileMamba(arch)


def assert_holds(model, tensors):
    """Check that a backbone has exactly these tensors, by our names."""
    state_dict = model.state_dict()
    assert state_dict.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert state_dict[name].dtype == tensor.dtype, name
        assert torch.equal(state_dict[name], tensor), name


def pretrained(path, arch=TINY, **init_cfg):
    """Build a backbone the way a config with ``init_cfg`` does."""
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **init_cfg)
    model = MobileMamba(arch, init_cfg=init_cfg)
    model.init_weights()
    return model


def tiny_tensors(seed):
    """Random tensors of the tiny backbone, by our names."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(tensor.shape, generator=generator)
        if tensor.is_floating_point()
        else torch.full_like(tensor, seed)
        for name, tensor in MobileMamba(TINY).state_dict().items()
    }


@pytest.fixture(scope='module')
def t2_model():
    """A backbone for tests in which nothing is loaded."""
    return MobileMamba('t2')


@pytest.fixture(scope='module')
def tiny():
    return tiny_tensors(seed=1)


@pytest.fixture(scope='module')
def t2():
    return published_state_dict('t2')


@pytest.fixture
def save(tmp_path):
    """Save something as a checkpoint file and return its path."""

    def save(content, name='weights.pth', **kwargs):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **kwargs)
        return path

    return save


@pytest.fixture
def log():
    """The messages that reach mmengine's current logger."""
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    MMLogger.get_instance('test_checkpoint').handlers[:] = [handler]
    yield messages
    del MMLogger._instance_dict['test_checkpoint']


# ---------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------


def test_published_key_files_are_there():
    assert {'t2', 's6', 'b1', 'retinanet_b1', 'fpn_b4'} <= set(MODELS)


@pytest.mark.parametrize('name', MODELS)
def test_names_are_a_bijection_onto_the_state_dict(name):
    keys = without_heads(published_keys(name))
    if any(n.startswith('backbone.') for n in keys):
        keys = {
            n.removeprefix('backbone.'): shape
            for n, shape in keys.items()
            if n.startswith('backbone.')
        }
    arch = re.search(r'(?:^|_)([tsb]\d)(?:_|$)', name)[1]
    state_dict = structure(arch).state_dict()

    assert is_published(keys)
    assert not is_published(state_dict)
    ours = {from_published(n): tuple(shape) for n, shape in keys.items()}
    assert len(ours) == len(keys)
    assert ours == {n: tuple(t.shape) for n, t in state_dict.items()}
    assert [to_published(n) for n in ours] == list(keys)


# Written by hand from the description of the published layout: shapes alone
# would not tell apart, say, a block's two depthwise branches.
@pytest.mark.parametrize(
    'published, ours',
    [
        ('patch_embed.0.c.weight', 'stem.0.conv.weight'),
        ('patch_embed.6.bn.running_var', 'stem.3.bn.running_var'),
        ('blocks1.0.dw0.m.c.weight', 'stages.0.blocks.0.dwconv1.conv.weight'),
        ('blocks1.1.ffn1.m.pw2.bn.bias', 'stages.0.blocks.1.ffn2.pw2.bn.bias'),
        ('blocks2.0.0.m.bn.weight', 'stages.1.transition.dwconv1.bn.weight'),
        (
            'blocks2.0.1.m.pw1.c.weight',
            'stages.1.transition.ffn1.pw1.conv.weight',
        ),
        (
            'blocks3.1.conv3.c.weight',
            'stages.2.transition.merging.project.conv.weight',
        ),
        ('blocks3.2.0.m.c.weight', 'stages.2.transition.dwconv2.conv.weight'),
        (
            'blocks3.2.1.m.pw2.c.weight',
            'stages.2.transition.ffn2.pw2.conv.weight',
        ),
        ('blocks2.3.dw1.m.c.weight', 'stages.1.blocks.0.dwconv2.conv.weight'),
        (
            'blocks3.4.mixer.m.attn.proj.1.c.weight',
            'stages.2.blocks.1.mixer.proj.conv.weight',
        ),
        (
            'blocks1.0.mixer.m.attn.local_op.dwconv3x3.weight',
            'stages.0.blocks.0.mixer.local_branch.parts.0.0.conv.weight',
        ),
        (
            'blocks1.0.mixer.m.attn.local_op.bn2.bias',
            'stages.0.blocks.0.mixer.local_branch.parts.0.1.bn.bias',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.base_scale.weight',
            'stages.1.blocks.0.mixer.global_branch.base_scale',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.wavelet_scale.0.weight',
            'stages.1.blocks.0.mixer.global_branch.wavelet.scale',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.iwt_filter',
            'stages.1.blocks.0.mixer.global_branch.wavelet.inverse_filter',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.A_logs',
            'stages.1.blocks.0.mixer.global_branch.ssm.A_log',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.Ds',
            'stages.1.blocks.0.mixer.global_branch.ssm.D',
        ),
        (
            'blocks2.3.mixer.m.attn.global_op.global_atten.out_norm.weight',
            'stages.1.blocks.0.mixer.global_branch.ssm.out_norm.weight',
        ),
    ],
)
def test_names_by_hand(published, ours):
    assert from_published(published) == ours
    assert to_published(ours) == published
    assert published in published_keys('b1')


# ---------------------------------------------------------------------------
# load_state_dict and mmengine's load_checkpoint
# ---------------------------------------------------------------------------


def test_load_published_state_dict(t2):
    given = dict(t2)
    model = MobileMamba('t2')
    assert not any(model.load_state_dict(given))
    backbone = without_heads(t2)
    assert_holds(model, {from_published(n): t for n, t in backbone.items()})
    assert list(given) == list(t2)  # the caller's dict is left alone


def test_load_our_state_dict(tiny):
    model = MobileMamba(TINY)
    assert not any(model.load_state_dict(tiny))
    assert_holds(model, tiny)


@pytest.mark.parametrize('layout', ['published', 'ours'])
def test_old_files_lack_batch_counters(tiny, layout, save):
    tensors = {
        n: t for n, t in tiny.items() if not n.endswith('num_batches_tracked')
    }
    assert len(tensors) < len(tiny)
    tensors = translate(tensors, layout)
    model = MobileMamba(TINY)
    model.load_state_dict(tensors)
    for loaded in (model, pretrained(save(tensors))):
        state_dict = loaded.state_dict()
        assert all(
            torch.equal(state_dict[n], t if t.is_floating_point() else t * 0)
            for n, t in tiny.items()
        )


class Detector(nn.Module):
    """As a detector has its backbone, beside parts of other names."""

    def __init__(self, arch=TINY):
        super().__init__()
        self.backbone = MobileMamba(arch)
        self.neck = nn.Conv2d(2, 3, 1)


LOADERS = dict(
    torch=lambda model, path: model.load_state_dict(torch.load(path)),
    mmengine_strict=partial(load_checkpoint, strict=True),
    mmengine=partial(load_checkpoint, strict=False),
)


@pytest.fixture
def load_nested(request):
    def load(model, path):
        LOADERS[request.param](model, str(path))

    return load


each_loader = pytest.mark.parametrize('load_nested', LOADERS, indirect=True)


@each_loader
@pytest.mark.parametrize('layout', ['published', 'ours'])
def test_load_whole_detector(tiny, layout, load_nested, save):
    neck = dict(weight=torch.rand(3, 2, 1, 1), bias=torch.rand(3))
    path = save(
        {
            **add_prefix('backbone.', translate(tiny, layout)),
            **add_prefix('neck.', neck),
        }
    )
    model = Detector()
    load_nested(model, path)
    assert_holds(model.backbone, tiny)
    assert_holds(model.neck, neck)


@each_loader
def test_whole_detector_of_another_arch_is_refused(load_nested, save):
    """Also where mmengine would only log what does not fit."""
    model = Detector('t2')
    neck = add_prefix('neck.', model.neck.state_dict())
    path = save({**add_prefix('backbone.', hollow('s6')), **neck})
    with pytest.raises(CheckpointError) as error:
        load_nested(model, path)
    for part in ("under 'backbone.'", 'arch t2', 'arch s6', 'stem.0.conv'):
        assert part in str(error.value)


# ---------------------------------------------------------------------------
# init_cfg
# ---------------------------------------------------------------------------

OTHER = {'module.never.read': torch.zeros(1)}
CONTAINERS = dict(
    bare=lambda t: t,
    state_dict=lambda t: dict(state_dict=t, meta=dict(epoch=3)),
    net=lambda t: dict(net=t, epoch=3),
    ema_preferred=lambda t: dict(net=OTHER, net_E=t),
    ema_off=lambda t: dict(net=t, net_E=None),
    model=lambda t: dict(model=t, optimizer={}, epoch=3),
    data_parallel=lambda t: add_prefix('module.', t),
    data_parallel_net=lambda t: dict(net=add_prefix('module.', t)),
    detector=lambda t: dict(
        state_dict={
            **add_prefix('backbone.', t),
            'neck.conv.weight': torch.zeros(3),
        },
        meta={},
    ),
)


@pytest.mark.parametrize(
    'container, layout',
    [
        *((container, 'published') for container in CONTAINERS),
        ('bare', 'ours'),
        ('state_dict', 'ours'),
        ('detector', 'ours'),
    ],
)
def test_pretrained_containers(tiny, container, layout, save):
    path = save(CONTAINERS[container](translate(tiny, layout)))
    assert_holds(pretrained(path), tiny)


@pytest.mark.parametrize('legacy', [False, True], ids=['zip', 'legacy'])
def test_pretrained_published_classifier(t2, legacy, save, log):
    """The heads are ignored, which one line of the log says."""
    path = save(t2, _use_new_zipfile_serialization=not legacy)
    model = pretrained(path, 't2')
    backbone = without_heads(t2)
    assert_holds(model, {from_published(n): t for n, t in backbone.items()})
    about_heads = [m for m in log if 'classification heads' in m]
    assert len(about_heads) == 1
    assert f'{len(t2) - len(backbone)} tensors' in about_heads[0]
    assert any(str(path) in message for message in log)


@pytest.mark.parametrize(
    'given, prefix',
    [
        ('backbone.', 'backbone.'),
        ('backbone.', 'backbone'),
        ('student.backbone.', 'student.backbone'),
    ],
)
def test_pretrained_prefix(tiny, given, prefix, save):
    other = add_prefix('teacher.backbone.', tiny_tensors(seed=2))
    path = save(dict(state_dict={**add_prefix(given, tiny), **other}))
    assert_holds(pretrained(path, prefix=prefix), tiny)


def test_pretrained_inside_a_model(tiny, save):
    """A detector's init_weights reaches the backbone's checkpoint."""
    init_cfg = dict(type='Pretrained', checkpoint=str(save(tiny)))

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.backbone = MobileMamba(TINY, init_cfg=init_cfg)

        def forward(self):
            """Unused."""

    model = Model()
    model.init_weights()
    assert_holds(model.backbone, tiny)
    assert model.backbone.init_cfg == init_cfg


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Serve ``tmp_path`` over http; return the address of ``weights.pth``."""
    monkeypatch.setenv('no_proxy', '*')
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            """Be silent."""

    handler = partial(Handler, directory=str(tmp_path))
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/weights.pth'
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    'runner',
    [False, pytest.param(True, marks=needs_safe_globals)],
    ids=['weights', 'of a runner'],
)
def test_pretrained_address(tiny, runner, save, address):
    logged = dict(message_hub=dict(loss=HistoryBuffer([1.0], [1])))
    save(dict(state_dict=tiny, meta={}, **(logged if runner else {})))
    assert_holds(pretrained(address), tiny)


def test_pretrained_address_of_another_file(save, address):
    save(b'<html>Please log in</html>')
    with pytest.raises(CheckpointError, match=re.escape(address)):
        pretrained(address)


# ---------------------------------------------------------------------------
# Files that are not checkpoints
# ---------------------------------------------------------------------------


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


# ---------------------------------------------------------------------------
# Code in a checkpoint
# ---------------------------------------------------------------------------


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


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
    [(Call(range, 3), 'range'), (Call(Call, print), f'{__name__}.Call')],
    ids=['builtin', 'class'],
)
def test_refusal_names_the_class(content, name, save):
    """So that who trusts the file knows what to allow-list."""
    with pytest.raises(CheckpointError) as error:
        load_from_local(save(dict(extra=content)))
    message = str(error.value)
    assert re.search(rf'(?<![\w.]){re.escape(name)}(?![\w.])', message)
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


# ---------------------------------------------------------------------------
# Checkpoints of something else
# ---------------------------------------------------------------------------


def changed_t2(change):
    tensors = hollow('t2')
    change(tensors)
    return tensors


DT = 'blocks2.3.mixer.m.attn.global_op.global_atten.dt_projs_weight'
RESNET = {
    'conv1.weight': torch.zeros(4, 3, 7, 7),
    'bn1.weight': torch.zeros(4),
    'layer1.0.conv1.weight': torch.zeros(4, 4, 3, 3),
    'fc.weight': torch.zeros(2, 4),
}
MISFITS = {
    'another arch': (
        partial(hollow, 's6'),
        ['arch t2', 'arch s6', 'stem.0.conv.weight (24, 3, 3, 3) instead of'],
    ),
    'another depth': (
        partial(hollow, 'b1'),
        ['arch t2', 'arch b1/b2/b4', 'unexpected (', 'stages.0.blocks.1.'],
    ),
    'a detector of another arch': (
        partial(hollow, 'retinanet_b1'),
        ['arch t2', 'arch b1/b2/b4', 'stem.0.conv.weight'],
    ),
    'one tensor missing': (
        partial(changed_t2, lambda t: t.pop(DT)),
        ['arch t2', 'incomplete', '1 missing', from_published(DT)],
    ),
    'one tensor of another shape': (
        partial(changed_t2, lambda t: t.update({DT: torch.zeros(2, 5, 5)})),
        [
            'arch t2',
            'other settings',
            f'1 of another shape ({from_published(DT)} (2, 5, 5) instead of',
        ],
    ),
    'one tensor too many': (
        partial(changed_t2, lambda t: t.update(extra=torch.zeros(1))),
        ['arch t2', '1 unexpected', 'extra'],
    ),
    'a stem': (
        lambda: {
            n: t
            for n, t in hollow('t2').items()
            if n.startswith('patch_embed.')
        },
        ['arch t2', 'part of a MobileMamba', 'stages.0.blocks.0.'],
    ),
    'ResNet': (lambda: RESNET, ['arch t2', 'no MobileMamba', 'conv1.weight']),
    'no tensors': (
        lambda: dict(epoch=3, lr=[0.1]),
        ['no tensors', 'epoch, lr'],
    ),
    'empty': (dict, ['no tensors']),
    'empty state_dict': (lambda: dict(state_dict={}, meta={}), ['no tensors']),
}


@pytest.mark.parametrize('misfit', MISFITS)
def test_misfits_are_refused(misfit, t2_model, save):
    content, parts = MISFITS[misfit]
    path = save(content())
    with pytest.raises(CheckpointError) as error:
        load_pretrained(t2_model, path)
    for part in [str(path), *parts]:
        assert part in str(error.value)


def test_refusal_of_a_resnet_does_not_advise_another_arch(t2_model, save):
    with pytest.raises(CheckpointError) as error:
        load_pretrained(t2_model, save(RESNET))
    assert 'set arch' not in str(error.value)


def test_wrong_prefix_is_refused(tiny, save):
    path = save(add_prefix('encoder.', tiny))
    with pytest.raises(CheckpointError) as error:
        pretrained(path, prefix='backbone')
    for part in (str(path), "'backbone.'", 'encoder.stem.0.conv.weight'):
        assert part in str(error.value)


def test_a_refusal_leaves_the_weights_alone(tiny):
    model = MobileMamba(TINY)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    incomplete = dict(tiny)
    incomplete.pop('stages.2.blocks.0.dwconv1.conv.weight')
    with pytest.raises(CheckpointError):
        model.load_state_dict(incomplete, strict=False)
    assert_holds(model, before)


# ---------------------------------------------------------------------------
# A runner's own checkpoint
# ---------------------------------------------------------------------------


class ToyModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs, mode):
        """Return a loss."""
        return dict(loss=self.linear(torch.stack(inputs)).square().mean())


class RecordNumPy(Hook):
    """Leave in the message hub what evaluators and hooks leave there."""

    VALUES = dict(
        best=np.float64(0.25),
        rank=np.float32(0.5),
        count=np.int64(7),
        found=np.bool_(True),
        curve=np.linspace(0, 1, 5),
        counts=np.arange(4, dtype=np.uint8),
    )

    def after_train_iter(self, runner, *args, **kwargs):
        for name, value in self.VALUES.items():
            runner.message_hub.update_info(name, value)


@pytest.fixture
def make_runner(tmp_path):
    """Build small runners; forget the global instances they leave."""
    managers = (DefaultScope, MessageHub, MMLogger, Visualizer)
    saved = [manager._instance_dict.copy() for manager in managers]

    def make_runner(max_iters, resume):
        return Runner(
            ToyModel(),
            str(tmp_path),
            train_dataloader=dict(
                batch_size=2,
                num_workers=0,
                dataset=[dict(inputs=torch.ones(2))] * 4,
                sampler=dict(type='InfiniteSampler', seed=0),
            ),
            train_cfg=dict(by_epoch=False, max_iters=max_iters),
            optim_wrapper=dict(
                type='OptimWrapper', optimizer=dict(type='AdamW', lr=0.1)
            ),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=2),
                dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=4),
            ],
            default_hooks=dict(
                logger=dict(type='LoggerHook', interval=1),
                checkpoint=dict(type='CheckpointHook', by_epoch=False),
            ),
            custom_hooks=[RecordNumPy(), dict(type='EMAHook')],
            default_scope='mmengine',
            experiment_name=f'{tmp_path.name}_{max_iters}',
            log_level='ERROR',
            resume=resume,
        )

    yield make_runner
    for manager, instances in zip(managers, saved):
        for instance in manager._instance_dict.values():
            for handler in getattr(instance, 'handlers', []):
                if isinstance(handler, logging.FileHandler):
                    handler.close()
        manager._instance_dict.clear()
        manager._instance_dict.update(instances)


@needs_safe_globals
def test_runner_checkpoint_loads_and_resumes(make_runner, tmp_path):
    runner = make_runner(max_iters=2, resume=False)
    runner.train()
    path = tmp_path / 'iter_2.pth'

    checkpoint = load_from_local(path)
    # The EMA hook saves its average as the state dict, and the weights
    # proper, which the run goes on with, apart.
    weights = checkpoint['ema_state_dict']
    assert weights.pop('steps') == 2
    assert_holds(
        runner.model,
        {n.removeprefix('module.'): t for n, t in weights.items()},
    )
    assert checkpoint['state_dict'].keys() == runner.model.state_dict().keys()
    assert checkpoint['optimizer']['state'][0]['step'] == 2
    hub = checkpoint['message_hub']
    loss = hub['log_scalars']['train/loss']
    assert isinstance(loss, HistoryBuffer)
    for ours, theirs in zip(
        loss.data, runner.message_hub.get_scalar('train/loss').data
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert loss.statistics('mean') == loss.mean()
    for name, value in RecordNumPy.VALUES.items():
        np.testing.assert_array_equal(hub['runtime_info'][name], value)
        assert type(hub['runtime_info'][name]) is type(value)

    resumed = make_runner(max_iters=3, resume=True)
    resumed.train()
    assert resumed.iter == 3
    assert len(resumed.message_hub.get_scalar('train/loss').data[0]) == 3


@needs_safe_globals
def test_one_cycle_schedule_can_be_resumed(save):
    """Its state names a method, unlike that of mmengine's other ones."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1, 0.9)
    schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10)
    state = schedule.state_dict()
    path = save(dict(param_schedulers=[state]))
    assert load_from_local(path)['param_schedulers'] == [state]
