"""What one sample holds never changes the outputs of another.

Batch norms in training mode mix samples by definition; all else must not, in
any mode, with any number of threads.
"""

from functools import cache

import pytest
import torch
from torch import Tensor

from mmmamba.backbones import MobileMamba
from mmmamba.ops import feed_forward, linear

# Wide enough for every kernel that large products take; 13 x 7 positions in
# stage 1 are no multiple of a tile.
ARCH = dict(base='t2', channels=(128, 256, 272), depths=(1, 1, 1))
HEIGHT, WIDTH = 207, 111
BAD = (float('nan'), float('inf'), 1e30)


@cache
def make_model(deployed: bool, dtype: torch.dtype) -> MobileMamba:
    torch.manual_seed(0)
    model = MobileMamba(ARCH).eval()
    for name, parameter in model.named_parameters():
        if name.endswith('bn.weight') and not parameter.any():
            # The last norms of residual branches start at 0.
            torch.nn.init.uniform_(parameter, 0.5, 1)
    if deployed:
        model.switch_to_deploy()
    return model.to(dtype)


def poisoned(x: Tensor, position: int, value: float) -> Tensor:
    """Put the value into some pixels of one sample."""
    x = x.clone()
    x[position, ..., 1::40] = value
    return x


def check_apart(run, x: Tensor, value: float) -> None:
    """Poison each sample in turn: the others' results stay, to the bit."""
    before = run(x)
    assert all(clean.isfinite().all() for clean in before)
    for position in range(len(x)):
        others = [i for i in range(len(x)) if i != position]
        after = run(poisoned(x, position, value))
        for clean, changed in zip(before, after, strict=True):
            assert torch.equal(clean[others], changed[others])
            assert not torch.equal(clean[position], changed[position])


def torch_mixes_rows() -> bool:
    """Whether PyTorch's products of bfloat16 do, as on CPUs with AMX.

    oneDNN 3.12 reads past the end of a row, and multiplies by zeros.
    """
    x, weight = torch.randn(2, 48, 272).bfloat16()
    x[1] = float('nan')
    return bool((x @ weight.T)[0].isnan().any())


@pytest.mark.parametrize('threads', [1, 2], indirect=True)
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('deployed', [False, True])
# Two threads get as many samples each, or one of them gets more.
@pytest.mark.parametrize('batch', [6, 5])
@pytest.mark.slow
@pytest.mark.usefixtures('op_backend')
@torch.inference_mode()
def test_backbone(batch, deployed, dtype, value, threads):
    if deployed and dtype == torch.bfloat16 and torch_mixes_rows():
        pytest.skip("PyTorch's own products of bfloat16 mix rows on this CPU")
    model = make_model(deployed, dtype)
    x = torch.randn(batch, 3, HEIGHT, WIDTH).to(dtype)
    check_apart(model, x, value)


@pytest.mark.parametrize('threads', [1, 2], indirect=True)
@pytest.mark.parametrize('value', BAD)
@pytest.mark.parametrize(
    'batch, rows',
    [(8, 9), (9, 36), (8, 49), (6, 91), (5, 91), (4, 196), (4, 333)],
)
@pytest.mark.usefixtures('op_backend')
@torch.inference_mode()
def test_matrix_products(batch, rows, value, threads):
    x = torch.randn(batch, rows, 40)
    weight, back = torch.randn(40, 283), torch.randn(283, 40)
    bias = torch.randn(283)
    check_apart(
        lambda x: (
            linear(x, weight, bias, relu=True),
            feed_forward(x, weight, bias, back, bias[:40], x),
        ),
        x,
        value,
    )
