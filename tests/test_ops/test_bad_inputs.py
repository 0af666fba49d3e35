"""Every face of every op refuses what bad_inputs.py lists."""

import pytest
import torch
from test_ops.bad_inputs import CASES, FACES, GOOD, good
from test_ops.support import mapped

from mmmamba import ops
from mmmamba.ops import use_backend


def call(op: str, face: str, inputs: dict):
    """Call one face of an op with inputs in the order of its schema."""
    if face in ('torch', 'cpp'):
        with use_backend(face):
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


@pytest.mark.parametrize('face', FACES)
@pytest.mark.parametrize('op', GOOD)
def test_good_input(op, face, request):
    """What the cases change is taken as it is."""
    if face != 'torch':
        request.getfixturevalue('compiled')
    if op == 'block' and face in ('torch', 'cpp'):
        pytest.skip('there is the registered op alone')
    call(op, face, good(op))
