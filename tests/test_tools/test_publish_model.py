"""Tests of tools/model_converters/publish_model.py."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from golden import published_keys, published_state_dict
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

import mmmamba
from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import resolve_arch
from mmmamba.checkpoint import from_published, load_from_local

pytestmark = pytest.mark.slow

TOOL = 'model_converters/publish_model.py'
ARCH = dict(base='t2', channels=[16, 32, 48], depths=[1, 1, 1])


class Classifier(BaseModel):
    """A small model with a teacher, as mmengine trains it."""

    def __init__(self):
        super().__init__()
        self.backbone = MobileMamba(ARCH)
        self.head = nn.Linear(48, 2)
        self.teacher = nn.Linear(48, 2)

    def forward(self, inputs, mode='tensor'):
        feature = self.backbone(torch.stack(inputs))[-1].mean((2, 3))
        target = self.teacher(feature.detach())
        return dict(loss=(self.head(feature) - target).square().mean())


class Noise(BaseDataset):
    METAINFO = dict(classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)])

    def load_data_list(self):
        return [dict(seed=seed) for seed in range(4)]

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.rand(3, 64, 64, generator=generator))


def pipelines(test, train=None):
    """The loaders of a config, as mmpretrain's pipelines spell them."""
    return dict(
        test_dataloader=dict(
            dataset=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='ResizeEdge', scale=219),
                        dict(type='mmpretrain.CenterCrop', crop_size=test),
                    ]
                )
            )
        )
        if test
        else None,
        train_dataloader=dict(
            dataset=dict(
                pipeline=[dict(type='RandomResizedCrop', scale=train)]
            )
        ),
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A checkpoint of a real run with EMA; returns path and raw weights."""
    folder = tmp_path_factory.mktemp('run')
    torch.manual_seed(0)
    model = Classifier()
    runner = Runner(
        model,
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            dataset=Noise(),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=2),
        custom_hooks=[EMAHook(momentum=0.5)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        default_scope='mmengine',
        cfg=Config(
            dict(
                model=dict(backbone=dict(type='MobileMamba', arch=ARCH)),
                **pipelines((96, 96), 64),
            )
        ),
        experiment_name='publish',
    )
    runner.train()
    raw = {name: v.clone() for name, v in model.state_dict().items()}
    return folder / 'epoch_1.pth', raw


@pytest.fixture
def publish(run_tool, tmp_path, monkeypatch, capsys):
    """Run the tool; returns the path and the content of what it wrote."""
    monkeypatch.chdir(tmp_path)

    def publish(in_file, *options, out='out.pth'):
        before = set(tmp_path.rglob('*'))
        assert run_tool(TOOL, in_file, out, *options) == 0
        (path,) = (p for p in set(tmp_path.rglob('*')) - before if p.is_file())
        return path, load_from_local(path)

    return publish


@pytest.fixture
def refusal(run_tool, tmp_path, monkeypatch, capsys):
    """Run the tool, which must refuse; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def refusal(*args):
        before = sorted(tmp_path.rglob('*'))
        capsys.readouterr()
        assert run_tool(TOOL, *args) == 1
        message = capsys.readouterr().err
        assert message.startswith('publish_model.py: error: ')
        assert message.count('\n') == 1
        assert sorted(tmp_path.rglob('*')) == before
        return message

    return refusal


def assert_same(tensors, expected):
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name], tensor), name


def without_teacher(tensors):
    return {n: t for n, t in tensors.items() if not n.startswith('teacher.')}


def hollow(name):
    """A published state dict of true names and shapes, a few kB on disk."""
    return {
        n: torch.zeros(()).expand(shape)
        for n, shape in published_keys(name).items()
    }


@pytest.mark.slow
def test_a_real_run(publish, trained):
    source, raw = trained
    path, result = publish(source, out='new/folder/name.pth')
    data = path.read_bytes()
    digits = hashlib.sha256(data).hexdigest()[:8]
    assert path.parts[-3:] == ('new', 'folder', f'name-{digits}.pth')
    assert len(data) < source.stat().st_size / 3

    assert set(result) == {'meta', 'state_dict'}
    assert result['meta'] == dict(
        arch=resolve_arch(ARCH),
        resolution=96,
        weights='ema',
        epoch=1,
        iter=2,
        dataset_meta=dict(
            classes=('cat', 'dog'), palette=[(1, 2, 3), (4, 5, 6)]
        ),
        mmmamba_version=mmmamba.__version__,
    )
    torch.load(path, weights_only=True)  # plain values need no allow-list

    saved = load_from_local(source)['state_dict']
    assert_same(result['state_dict'], without_teacher(saved))
    # EMA weights are others than the raw ones, which are the model's.
    _, result = publish(source, '--weights', 'raw')
    assert result['meta']['weights'] == 'raw'
    assert_same(result['state_dict'], without_teacher(raw))
    assert not torch.equal(saved['head.weight'], raw['head.weight'])


@pytest.mark.parametrize('options', [[], ['--backbone-only']])
@pytest.mark.parametrize('weights', ['ema', 'raw'])
@pytest.mark.slow
def test_features_of_the_loaded_backbone(publish, trained, weights, options):
    source, raw = trained
    tensors = raw
    if weights == 'ema':
        tensors = load_from_local(source)['state_dict']
    expected = Classifier()
    expected.load_state_dict(tensors)
    path, result = publish(source, '--weights', weights, *options)
    backbone = MobileMamba(
        ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(path))
    )
    backbone.init_weights()
    images = torch.rand(1, 3, 65, 97)
    for found, wanted in zip(
        backbone.eval()(images), expected.backbone.eval()(images)
    ):
        assert torch.equal(found, wanted)
    if options:
        assert list(result['state_dict']) == list(backbone.state_dict())
        assert 'dataset_meta' not in result['meta']


@pytest.mark.slow
def test_the_same_input_gives_the_same_file(publish, trained):
    first, _ = publish(trained[0], out='a.pth')
    second, _ = publish(trained[0], out='other_name')
    assert first.read_bytes() == second.read_bytes()
    assert first.stem[1:] == second.stem.removeprefix('other_name')


@pytest.mark.slow
def test_publishing_twice_keeps_the_facts(publish, trained, refusal):
    path, first = publish(trained[0], '--resolution', 128)
    assert first['meta']['resolution'] == 128
    _, second = publish(path, '--backbone-only', out='backbone.pth')
    del first['meta']['dataset_meta']
    assert second['meta'] == first['meta']
    assert 'no raw weights' in refusal(path, 'x.pth', '--weights', 'raw')


def test_small_tensors_of_large_storages(publish):
    storage = torch.zeros(10_000_000)
    tensors = {
        name: storage[: value.numel()].view(value.shape)
        for name, value in MobileMamba(ARCH).state_dict().items()
        if value.is_floating_point()
    }
    torch.save(tensors, 'views.pth')
    path, _ = publish('views.pth')
    assert path.stat().st_size < 10_000_000


# ---------------------------------------------------------------------------
# Facts
# ---------------------------------------------------------------------------


def checkpoint(network=None, cfg=None, **meta):
    """A checkpoint of this config: a published network's or a small one's."""
    tensors = hollow(network) if network else MobileMamba(ARCH).state_dict()
    if not any(n.startswith('backbone.') for n in tensors):
        tensors = {f'backbone.{n}': t for n, t in tensors.items()}
    if cfg is not None:
        meta['cfg'] = cfg if isinstance(cfg, str) else Config(cfg).pretty_text
    return dict(meta=meta, state_dict=tensors)


def backbone_cfg(**kwargs):
    return dict(model=dict(backbone=dict(type='mmdet.MobileMamba', **kwargs)))


@pytest.mark.parametrize(
    'cfg, options, arch',
    [
        (backbone_cfg(arch='B4'), [], 'b4'),
        (backbone_cfg(arch='b2'), ['--arch', 'b4'], 'b4'),
        (backbone_cfg(), [], 'b1'),  # the default of the argument
        (backbone_cfg(arch=dict(base='b2', drop_path_rate=0.2)), [], 'b2'),
        (None, [], 'b1'),
        ('no config (', [], 'b1'),
        (None, ['--arch', 'b2'], 'b2'),
        (dict(model=dict(backbone=dict(type='ResNet'))), [], 'b1'),
    ],
)
@pytest.mark.slow
def test_arch(publish, capsys, cfg, options, arch):
    torch.save(checkpoint('b1', cfg), 'a.pth')
    _, result = publish('a.pth', *options)
    assert result['meta']['arch'] == arch
    # The user hears about a guess.
    guessed = not options and 'MobileMamba' not in str(cfg)
    out = capsys.readouterr().out
    assert ('b1, b2, b4 are one network, recorded as b1' in out) is guessed
    assert 'resolution' not in result['meta']


def test_custom_arch_without_a_config_is_not_recorded(publish, capsys):
    torch.save(MobileMamba(ARCH).state_dict(), 'a.pth')
    _, result = publish('a.pth')
    assert 'arch' not in result['meta']
    assert 'arch is not recorded' in capsys.readouterr().out


@pytest.mark.parametrize(
    'test, train, expected',
    [
        (224, 192, 224),
        ((320, 256), 192, (256, 320)),  # width first
        (None, 160, 160),
        (None, (128, 160), (128, 160)),  # height first
        ('large', None, None),
    ],
)
def test_resolution(publish, test, train, expected):
    cfg = dict(backbone_cfg(arch=ARCH), **pipelines(test, train))
    torch.save(checkpoint(None, cfg), 'a.pth')
    _, result = publish('a.pth')
    assert result['meta'].get('resolution') == expected


@pytest.mark.parametrize(
    'cfg',
    [
        "model = dict(backbone=dict(type='MobileMamba', arch={}))",
        'x = {}',
        'import os\n{}',
        '(y := {})',
        "dict.__call__ = {}\nmodel = dict(backbone='{{}}')",
        "model = (lambda: {})()\nmodel = {{'backbone': {{{}: 1}}}}",
        'def dict(**k): {}\nmodel = dict(a=1)',
        '@{}\nclass A: pass',
    ],
)
def test_a_config_is_not_run(publish, cfg):
    code = "__import__('pathlib').Path('executed').touch()"
    exec(code)  # it would work
    Path('executed').unlink()
    cfg = cfg.replace('{}', code).replace('{{', '{').replace('}}', '}')
    torch.save(checkpoint(None, cfg), 'a.pth')
    _, result = publish('a.pth')
    assert not Path('executed').exists()
    assert 'arch' not in result['meta']


@pytest.mark.parametrize('cfg', ['(' * 10_000, '-' * 100_000 + '1', 5, None])
def test_a_config_that_cannot_be_read(publish, cfg):
    content = checkpoint()
    content['meta']['cfg'] = cfg
    torch.save(content, 'a.pth')
    assert 'arch' not in publish('a.pth')[1]['meta']


def test_dataset_meta_becomes_plain(publish):
    classes = dict(
        classes=('a', 'b'),
        ratio=np.float64(0.5),
        palette=np.zeros((2, 3), np.uint8),
        tensor=torch.zeros(3),
    )
    torch.save(checkpoint(dataset_meta=classes), 'a.pth')
    path, _ = publish('a.pth')
    assert torch.load(path, weights_only=True)['meta']['dataset_meta'] == dict(
        classes=('a', 'b'), ratio=0.5, palette=[[0] * 3] * 2, tensor=None
    )


# ---------------------------------------------------------------------------
# Published containers
# ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('names', ['state_dict', 'model'])
def test_averages_of_timm_and_deit(publish, names):
    raw = published_state_dict('t2')
    ema = {n: t + 1 if t.is_floating_point() else t for n, t in raw.items()}
    torch.save({names: raw, f'{names}_ema': ema}, 'a.pth')
    for options, weights, tensors in (
        ([], 'ema', ema),
        (['--weights', 'raw'], 'raw', raw),
    ):
        _, result = publish('a.pth', *options)
        assert result['meta']['weights'] == weights
        assert_same(result['state_dict'], tensors)


@pytest.mark.slow
def test_published_containers(publish, refusal):
    raw = published_state_dict('t2')
    ema = {
        f'module.{n}': t + 1 if t.is_floating_point() else t
        for n, t in raw.items()
    }
    torch.save(dict(net=raw, net_E=ema, optimizer=dict(), epoch=3), 'a.pth')
    ema = {n.removeprefix('module.'): t for n, t in ema.items()}
    for options, weights, tensors in (
        ([], 'ema', ema),
        (['--weights', 'raw'], 'raw', raw),
    ):
        _, result = publish('a.pth', *options)
        assert result['meta']['weights'] == weights
        assert result['meta']['arch'] == 't2'
        assert_same(result['state_dict'], tensors)
        _, result = publish('a.pth', '--backbone-only', *options, out='bb')
        expected = {
            from_published(n): t
            for n, t in tensors.items()
            if not n.startswith(('head.', 'head_dist.'))
        }
        assert_same(result['state_dict'], expected)

    torch.save(dict(net=raw), 'raw.pth')
    message = refusal('raw.pth', 'x.pth', '--weights', 'ema')
    assert 'raw.pth: there are no ema weights in it, only raw ones' in message
    torch.save(dict(net_E=raw), 'ema.pth')
    message = refusal('ema.pth', 'x.pth', '--weights', 'raw')
    assert 'there are no raw weights in it, only ema ones' in message


# ---------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------


def save_without(name):
    content = checkpoint('t2')
    del content['state_dict'][name]
    return content


SOURCES = {
    'no moving average': (
        lambda: checkpoint('t2'),
        ['--weights', 'ema'],
        ['a.pth', 'no ema weights', 'only raw ones'],
    ),
    'another arch by option': (
        lambda: checkpoint('t2'),
        ['--arch', 'b1'],
        ['--arch says arch b1', 'looks like arch t2'],
    ),
    'another arch by config': (
        lambda: checkpoint('t2', backbone_cfg(arch='s6')),
        [],
        ['its config says arch s6', 'looks like arch t2'],
    ),
    'another arch by meta': (
        lambda: checkpoint('t2', arch='t4'),
        [],
        ['its meta says arch t4', 'looks like arch t2'],
    ),
    'arch unknown': (
        lambda: checkpoint('t2', backbone_cfg(arch='t9')),
        [],
        ["its config: unknown arch 't9'", '--arch'],
    ),
    'incomplete': (
        lambda: save_without('backbone.blocks1.0.ffn1.m.pw2.bn.running_var'),
        [],
        ['incomplete', '1 missing'],
    ),
    'stray average': (
        lambda: dict(
            checkpoint('t2'), ema_state_dict={'module.x': torch.zeros(1)}
        ),
        [],
        ['ema_state_dict has tensors'],
    ),
    'another network': (
        lambda: dict(state_dict={'backbone.conv1.weight': torch.zeros(2)}),
        [],
        ['a.pth: this is no MobileMamba'],
    ),
    'no tensors': (lambda: dict(epoch=3), [], ['a.pth', 'no tensors']),
    'code': (lambda: dict(extra=Path()), [], ['a.pth', 'refused']),
}


@pytest.mark.parametrize('case', SOURCES)
def test_sources_that_are_refused(refusal, tmp_path, case):
    content, options, parts = SOURCES[case]
    torch.save(content(), tmp_path / 'a.pth')
    message = refusal('a.pth', 'x.pth', *options)
    for part in parts:
        assert part in message


def test_paths_that_are_refused(refusal, tmp_path):
    torch.save(checkpoint('t2'), tmp_path / 'a.pth')
    (tmp_path / 'folder').mkdir()
    assert 'none.pth does not exist' in refusal('none.pth', 'x.pth')
    assert 'folder is a directory' in refusal('a.pth', 'folder')
    assert 'cannot write a.pth/x' in refusal('a.pth', 'a.pth/x')


def test_deployed_is_refused(refusal):
    model = MobileMamba(ARCH).eval()
    model.switch_to_deploy('int8')
    torch.save(dict(state_dict=model.state_dict()), 'a.pth')
    message = refusal('a.pth', 'out.pth')
    assert 'a.pth: this is a deployed MobileMamba' in message
