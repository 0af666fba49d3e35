"""Backbones and their tensors for the tests of checkpoints."""

from collections import OrderedDict
from functools import cache

import pytest
import torch
from golden import DATA, published_keys

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import to_published
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


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call
