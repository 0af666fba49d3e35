"""Tests of tools/model_converters/convert_checkpoint.py."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from golden import published_keys, published_state_dict
from mmengine.logging import MMLogger

import mmmamba
from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import from_published, load_from_local, to_published
from mmmamba.utils.cli import run_tool

pytestmark = pytest.mark.slow

SCRIPT = (
    Path(__file__).parents[2] / 'tools/model_converters/convert_checkpoint.py'
)
HEADS = ('head.', 'head_dist.')


@pytest.fixture(scope='module')
def script():
    """Import the script by its path."""
    spec = importlib.util.spec_from_file_location('convert', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def convert(script, monkeypatch, tmp_path):
    """Run the tool in ``tmp_path`` as its command line does."""
    monkeypatch.chdir(tmp_path)

    def convert(*args):
        argv = [str(SCRIPT), *map(str, args)]
        monkeypatch.setattr(sys, 'argv', argv)
        # A logger keeps the stdout it was made with; that of an earlier test
        # is closed.
        MMLogger.get_instance('convert')
        try:
            run_tool(script.main)
        finally:
            del MMLogger._instance_dict['convert']

    return convert


@pytest.fixture
def refusal(convert, capsys):
    """Run the tool, which must refuse; return its one line."""

    def refusal(*args):
        before = snapshot(Path())
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            convert(*args)
        assert stop.value.code == 1
        out, message = capsys.readouterr()
        assert message.startswith('convert_checkpoint.py: error: ')
        assert message.count('\n') == 1
        assert message.endswith('\n')
        assert 'Wrote' not in out
        assert snapshot(Path()) == before  # nothing written, nothing lost
        return message

    return refusal


def snapshot(folder):
    """Read every file below a folder."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for path in folder.rglob('*')
    }


def hollow(name):
    """A published state dict of true names and shapes, a few kB on disk."""
    return {
        name: torch.zeros(()).expand(shape)
        for name, shape in published_keys(name).items()
    }


def backbone_of(tensors):
    return {n: t for n, t in tensors.items() if not n.startswith(HEADS)}


def assert_same(tensors, expected):
    """Check names with their order, dtypes, and every bit."""
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name], tensor), name


@pytest.fixture(scope='module')
def t2():
    """The published T2; some tensors are of other dtypes than usual."""
    tensors = published_state_dict('t2')
    names = iter(tensors)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        name = next(names)
        tensors[name] = tensors[name].to(dtype)
    return tensors


@pytest.mark.slow
def test_round_trip_is_exact(convert, t2, capsys):
    torch.save(t2, 'published.pth')
    convert('published.pth', 'ours.pth')
    convert('ours.pth', 'new/folder/back.pth', '--to', 'published')

    ours = load_from_local('ours.pth')
    assert ours['meta'] == dict(
        mmmamba_version=mmmamba.__version__, arch='arch t2'
    )
    backbone = backbone_of(t2)
    assert_same(
        ours['state_dict'],
        {from_published(n): t for n, t in backbone.items()},
    )
    assert len(backbone) < len(t2)  # the heads are dropped
    assert_same(load_from_local('new/folder/back.pth'), backbone)
    assert sorted(snapshot(Path())) == sorted(
        [
            'new',
            'new/folder',
            'new/folder/back.pth',
            'ours.pth',
            'published.pth',
        ]
    )

    out = capsys.readouterr().out
    for part in (f'{len(t2) - len(backbone)} tensors', 'heads', 'ignored'):
        assert part in out
    wrote = f'Wrote {len(backbone)} tensors of arch t2, in the '
    assert wrote + 'mmmamba layout, to ours.pth\n' in out
    assert wrote + 'published layout, to new/folder/back.pth\n' in out


@pytest.mark.slow
def test_result_loads(convert, t2):
    torch.save(t2, 'published.pth')
    convert('published.pth', 'ours.pth')
    model = MobileMamba(
        't2', init_cfg=dict(type='Pretrained', checkpoint='ours.pth')
    )
    model.init_weights()
    name = 'blocks3.4.mixer.m.attn.global_op.global_atten.dt_projs_weight'
    loaded = model.state_dict()[from_published(name)]
    assert torch.equal(loaded, t2[name])


@pytest.mark.parametrize('to', ['mmmamba', 'published'])
@pytest.mark.slow
def test_a_layout_converts_to_itself(convert, t2, to):
    expected = backbone_of(t2)
    if to == 'mmmamba':
        expected = {from_published(n): t for n, t in expected.items()}
    torch.save(expected, 'source.pth')
    convert('source.pth', 'result.pth', '--to', to)
    result = load_from_local('result.pth')
    assert_same(result.get('state_dict', result), expected)


@pytest.mark.parametrize(
    'name, arch', [('retinanet_b1', 'arch b1/b2/b4'), ('s6', 'arch s6')]
)
@pytest.mark.slow
def test_archs_and_whole_models(convert, name, arch):
    tensors = hollow(name)
    torch.save(dict(state_dict=tensors, meta=dict(epoch=12)), 'source.pth')
    convert('source.pth', 'result.pth')
    result = load_from_local('result.pth')
    assert result['meta']['arch'] == arch
    if 'retinanet' in name:
        tensors = {
            n.removeprefix('backbone.'): t
            for n, t in tensors.items()
            if n.startswith('backbone.')
        }
    assert list(result['state_dict']) == [
        from_published(n) for n in backbone_of(tensors)
    ]


@pytest.mark.slow
def test_prefix(convert, t2):
    backbone = backbone_of(t2)
    student = {f'student.{n}': t * 0 for n, t in backbone.items()}
    teacher = {f'teacher.net.{n}': t for n, t in backbone.items()}
    torch.save({**student, **teacher}, 'source.pth')
    options = ('--prefix', 'teacher.net', '--to', 'published')
    convert('source.pth', 'result.pth', *options)
    assert_same(load_from_local('result.pth'), backbone)


def test_images_of_four_channels(convert):
    tensors = MobileMamba('t2', in_channels=4).state_dict()
    torch.save(tensors, 'source.pth')
    convert('source.pth', 'result.pth')
    assert_same(load_from_local('result.pth')['state_dict'], tensors)


def test_custom_arch(convert):
    arch = dict(base='t2', channels=(48, 64, 80), depths=(1, 1, 2))
    tensors = MobileMamba(arch).state_dict()
    published = {to_published(n): t for n, t in tensors.items()}
    torch.save(published, 'published.pth')
    convert('published.pth', 'ours.pth')
    result = load_from_local('ours.pth')
    assert_same(result['state_dict'], tensors)
    assert 'channels (48, 64, 80)' in result['meta']['arch']


# ---------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------


@pytest.mark.parametrize('same', ['a.pth', './a.pth', 'x/../a.pth', 'b.pth'])
def test_same_file_is_refused(refusal, tmp_path, same):
    torch.save(hollow('t2'), tmp_path / 'a.pth')
    (tmp_path / 'x').mkdir()
    os.symlink('a.pth', tmp_path / 'b.pth')
    assert 'same file' in refusal('a.pth', same)


def test_missing_file_is_refused(refusal):
    message = refusal('nowhere.pth', 'result.pth')
    assert 'nowhere.pth does not exist' in message


def without(name):
    return {n: t for n, t in hollow('t2').items() if n != name}


A_NAME = 'blocks1.0.ffn1.m.pw2.bn.running_var'
SOURCES = {
    'another network': (
        lambda: {'conv1.weight': torch.zeros(2), 'fc.bias': torch.zeros(2)},
        ['a.pth', 'no MobileMamba', 'conv1.weight, fc.bias'],
    ),
    'incomplete': (
        lambda: without(A_NAME),
        ['arch t2', 'incomplete', '1 missing', from_published(A_NAME)],
    ),
    'without its first weight': (
        lambda: without('patch_embed.0.c.weight'),
        ['arch t2', 'incomplete', '1 missing', 'stem.0.conv.weight'],
    ),
    'without a whole branch': (
        lambda: without('patch_embed.6.c.weight'),
        ['a.pth', 'part of a MobileMamba'],
    ),
    'of another shape': (
        lambda: {**hollow('t2'), A_NAME: torch.zeros(5)},
        ['arch t2', '1 of another shape', '(5,) instead of'],
    ),
    'with something else': (
        lambda: {**hollow('t2'), 'extra.weight': torch.zeros(1)},
        ['arch t2', '1 unexpected', 'extra.weight'],
    ),
    'heads only': (
        lambda: {n: t for n, t in hollow('t2').items() if n.startswith(HEADS)},
        ['a.pth', 'no MobileMamba'],
    ),
    'no tensors': (lambda: dict(epoch=3), ['a.pth', 'no tensors', 'epoch']),
    'a tensor': (lambda: torch.zeros(3), ['a.pth', 'a Tensor']),
    'code': (lambda: dict(extra=Path()), ['a.pth', 'refused']),
    'text': ('no checkpoint\nat all\n', ['a.pth', 'not a PyTorch checkpoint']),
    'empty': ('', ['a.pth', 'empty']),
}


@pytest.mark.parametrize('source', SOURCES)
def test_sources_that_are_refused(refusal, tmp_path, source):
    content, parts = SOURCES[source]
    if isinstance(content, str):
        (tmp_path / 'a.pth').write_text(content)
    else:
        torch.save(content(), tmp_path / 'a.pth')
    (tmp_path / 'result.pth').write_text('an older result')
    message = refusal('a.pth', 'result.pth')
    for part in parts:
        assert part in message


@pytest.mark.parametrize('dtype', ['float32', 'int8'])
def test_deployed_is_refused(refusal, dtype):
    """Its packed weights would pass for those of a narrow arch."""
    model = MobileMamba('t2').eval()
    model.switch_to_deploy(dtype)
    torch.save(dict(state_dict=model.state_dict()), 'a.pth')
    message = refusal('a.pth', 'result.pth', '--to', 'published')
    assert 'a.pth: this is a deployed MobileMamba' in message


def test_wrong_prefix_is_refused(refusal, tmp_path):
    torch.save(hollow('t2'), tmp_path / 'a.pth')
    message = refusal('a.pth', 'result.pth', '--prefix', 'backbone')
    for part in ('a.pth', "'backbone.'", 'patch_embed.0.c.weight'):
        assert part in message


@pytest.mark.parametrize('target', ['folder', 'file/result.pth'])
def test_target_that_cannot_be_written_is_refused(refusal, tmp_path, target):
    torch.save(hollow('t2'), tmp_path / 'a.pth')
    (tmp_path / 'folder').mkdir()
    (tmp_path / 'file').write_text('')
    assert target.split('/')[0] in refusal('a.pth', target)


def test_failed_write_leaves_nothing_behind(
    convert, script, monkeypatch, tmp_path
):
    """The disk fills up half-way."""
    torch.save(hollow('t2'), tmp_path / 'a.pth')
    (tmp_path / 'result.pth').write_text('an older result')
    before = snapshot(tmp_path)

    def save(content, path):
        Path(path).write_bytes(b'PK')
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(script.torch, 'save', save)
    with pytest.raises((OSError, SystemExit)):
        convert('a.pth', 'result.pth')
    assert snapshot(tmp_path) == before
