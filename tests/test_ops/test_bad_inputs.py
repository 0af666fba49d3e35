"""Every face of every op refuses what bad_inputs.py lists."""

import re

import pytest
import torch
from test_ops.bad_inputs import CASES, DEVICES, FACES, GOOD, OP, SHAPES, good
from test_ops.support import mapped, pretended_gpu

from mmmamba import ops
from mmmamba.ops import use_backend

# What the compiled ops for inference ask of sizes, and PyTorch's instead.
COMPILED_SIZES = re.compile(r'>=\d+| an odd| a(?= size)| of 1, 3, 5 or 7')


def call(op: str, face: str, inputs: dict):
    """Call one face of an op with inputs in the order of its schema."""
    if face in ('torch', 'cpp'):
        with use_backend(face):
            return getattr(ops, op)(**inputs)
    if face == 'gpu':
        with pretended_gpu(inputs) as inputs:
            return getattr(ops, op)(**inputs)
    if face == 'meta':
        inputs = mapped(lambda t: t.to('meta'), inputs)
    return getattr(torch.ops.mmmamba, op).default(*inputs.values())


@pytest.mark.parametrize(
    'bad, face',
    [
        pytest.param(bad, face, id=f'{bad}-{face}')
        for bad in CASES
        for face in bad.faces
    ],
)
def test_bad_input(bad, face, request):
    if face != 'torch':
        request.getfixturevalue('compiled')
    with pytest.raises(bad.error, match=bad.message):
        call(bad.op, face, bad.inputs())


@pytest.mark.usefixtures('compiled')
@pytest.mark.parametrize(
    'bad',
    [bad for bad in SHAPES + DEVICES if bad.faces != OP],
    ids=str,
)
def test_one_wording(bad):
    """Python and C++ say the same, but for the sizes that are compiled."""
    words = []
    for face in ('torch', 'op'):
        with pytest.raises(bad.error) as caught:
            call(bad.op, face, bad.inputs())
        text = str(caught.value).partition('\nException raised from')[0]
        words.append(COMPILED_SIZES.sub('', text))
    assert words[0] == words[1]


@pytest.mark.parametrize('face', FACES)
@pytest.mark.parametrize('op', GOOD)
def test_good_input(op, face, request):
    """What the cases change is taken as it is."""
    if face != 'torch':
        request.getfixturevalue('compiled')
    if op == 'block' and face not in OP:
        pytest.skip('there is the registered op alone')
    call(op, face, good(op))
