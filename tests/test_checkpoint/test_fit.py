"""Tests of mmmamba/checkpoint/fit.py: what loads, and what is refused."""

import os
import pickle
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from checkpoints import (
    TINY,
    Call,
    add_prefix,
    assert_holds,
    hollow,
    needs_safe_globals,
    pretrained,
    tiny_tensors,
    translate,
    without_heads,
)
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import (
    CheckpointError,
    check_complete,
    fit,
    from_published,
    load_pretrained,
)


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
@pytest.mark.slow
def test_whole_detector_of_another_arch_is_refused(load_nested, save):
    """Also where mmengine would only log what does not fit."""
    model = Detector('t2')
    neck = add_prefix('neck.', model.neck.state_dict())
    path = save({**add_prefix('backbone.', hollow('s6')), **neck})
    with pytest.raises(CheckpointError) as error:
        load_nested(model, path)
    for part in ("under 'backbone.'", 'arch t2', 'arch s6', 'stem.0.conv'):
        assert part in str(error.value)


OTHER = {'module.never.read': torch.zeros(1)}
CONTAINERS = dict(
    bare=lambda t: t,
    state_dict=lambda t: dict(state_dict=t, meta=dict(epoch=3)),
    net=lambda t: dict(net=t, epoch=3),
    ema_preferred=lambda t: dict(net=OTHER, net_E=t),
    ema_off=lambda t: dict(net=t, net_E=None),
    model=lambda t: dict(model=t, optimizer={}, epoch=3),
    timm_ema=lambda t: dict(state_dict=OTHER, state_dict_ema=t),
    deit_ema=lambda t: dict(model=OTHER, model_ema=t),
    deepspeed=lambda t: dict(module=t, optimizer=None),
    compiled=lambda t: dict(model=add_prefix('module._orig_mod.', t)),
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
@pytest.mark.slow
def test_pretrained_address(tiny, runner, save, address):
    logged = dict(message_hub=dict(loss=HistoryBuffer([1.0], [1])))
    save(dict(state_dict=tiny, meta={}, **(logged if runner else {})))
    assert_holds(pretrained(address), tiny)


@pytest.mark.slow
def test_pretrained_address_of_another_file(tiny, save, address):
    save(b'<html>Please log in</html>')
    with pytest.raises(CheckpointError, match=re.escape(address)):
        pretrained(address)
    save(tiny)
    assert_holds(pretrained(address), tiny)


@needs_safe_globals
@pytest.mark.parametrize(
    'load', [pretrained, CheckpointLoader.load_checkpoint]
)
def test_a_download_runs_no_code(load, tmp_path, save, address, log):
    save(pickle.dumps(Call(os.mkdir, str(tmp_path / 'mark'))))
    with pytest.raises(CheckpointError, match='could run code') as error:
        load(address)
    assert address in str(error.value)
    assert not (tmp_path / 'mark').exists()


@needs_safe_globals
def test_downloads_are_kept(tiny, save, address, tmp_path, log):
    path = save(tiny)
    CheckpointLoader.load_checkpoint(address)
    path.unlink()
    assert_holds(pretrained(address), tiny)
    assert any('is in the cache' in line for line in log)
    for name in ('weights.pth', 'other.pth'):
        (tmp_path / 'hub/checkpoints/weights.pth').unlink(missing_ok=True)
        with pytest.raises(CheckpointError, match='cannot be downloaded'):
            CheckpointLoader.load_checkpoint(
                address.replace('weights.pth', name)
            )


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


def test_a_backbone_alone_is_no_checkpoint_of_a_detector(tiny):
    """Named by ``load_from``, where ``init_cfg`` was meant."""
    detector = nn.ModuleDict(dict(backbone=MobileMamba(TINY)))
    with pytest.raises(CheckpointError, match=r'named by model.backbone.init'):
        detector.load_state_dict(tiny, strict=False)


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


@pytest.mark.parametrize('layout', ['dataset_meta', 'CLASSES'])
def test_classes_of_a_test(tmp_path, layout, monkeypatch):
    """Labels follow the order of the training."""
    model, file = nn.Linear(1, 1), tmp_path / 'model.pth'
    trained = ('cat', 'dog', 'bird')
    meta = {layout: dict(classes=trained) if '_' in layout else trained}
    torch.save(dict(meta=meta, state_dict=model.state_dict()), file)
    check_complete(model, file, list(trained))
    check_complete(model, file)
    with pytest.raises(CheckpointError, match="'dog' as label 1, which is '"):
        check_complete(model, file, ('cat', 'bird', 'dog'))
    said = []
    monkeypatch.setattr(fit, 'print_log', lambda text, **_: said.append(text))
    check_complete(model, file, ('cat', 'dog', 'parrot'))
    check_complete(model, file, ('cat', 'dog'))
    assert "'bird' as label 2, which is 'parrot'" in said[0]
    assert 'has 3 classes, and the data 2' in said[1]


def test_a_second_head_is_not_left_out(tmp_path):
    """The scores of one head alone are other than those of the training."""
    model, file = nn.ModuleDict(dict(head=nn.Linear(1, 1))), tmp_path / 'm.pth'
    state_dict = dict(model.state_dict())
    torch.save(dict(state_dict={**state_dict, 'extra': torch.ones(1)}), file)
    check_complete(model, file)
    state_dict['head.head_dist.l.weight'] = torch.ones(1)
    torch.save(dict(state_dict=state_dict), file)
    with pytest.raises(CheckpointError, match=r'head\.distillation=True'):
        check_complete(model, file)
