"""Golden outputs of the published model, and helpers of other tests.

Every golden weight is drawn from a generator seeded with the CRC-32 of its
published name, so a golden case stores no weights: fill a state dict that has
the published names, load it, run the model, compare.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

DATA = Path(__file__).parent / 'data'


def value(name, shape):
    """Return the array for the published parameter ``name``.

    float32 all but BatchNorm's ``num_batches_tracked``, which is 0; the Haar
    filters get their true values.
    """
    shape = tuple(int(s) for s in shape)
    leaf = name.rsplit('.', 1)[-1]
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if leaf in ('wt_filter', 'iwt_filter'):
        haar = np.asarray(
            [
                [[1, 1], [1, 1]],
                [[1, 1], [-1, -1]],
                [[1, -1], [1, -1]],
                [[1, -1], [-1, 1]],
            ],
            np.float32,
        )
        return np.tile(haar[:, None] / 2, (shape[0] // 4, 1, 1, 1))
    if leaf == 'num_batches_tracked':
        return np.zeros(shape, np.int64)
    if leaf == 'running_var':
        out = rng.uniform(0.5, 1.5, shape)
    elif leaf == 'running_mean':
        out = rng.normal(0, 0.1, shape)
    elif leaf == 'A_logs':
        out = rng.normal(0, 0.5, shape)
    elif leaf == 'Ds':
        out = rng.normal(0.5, 0.1, shape)
    elif leaf == 'dt_projs_bias':
        out = rng.uniform(-3, 0, shape)
    elif '_scale' in name and leaf == 'weight':
        out = rng.uniform(0.2, 0.8, shape)
    elif leaf == 'x_proj_weight':  # large, so that the scanned state matters
        out = rng.normal(0, 3 * shape[-1] ** -0.5, shape)
    elif len(shape) == 3:
        out = rng.normal(0, shape[-1] ** -0.5, shape)
    elif len(shape) >= 2:
        out = rng.normal(0, float(np.prod(shape[1:])) ** -0.5, shape)
    elif name.endswith('in_proj.bn.weight'):
        out = rng.uniform(1, 2, shape)
    elif name.endswith('out_norm.weight') or '.out_proj.bn.weight' in name:
        out = rng.uniform(0.5, 1.5, shape)
    elif leaf == 'weight':  # a norm's scale: small, so that sums stay O(1)
        out = rng.uniform(0.1, 0.5, shape)
    else:
        out = rng.normal(0, 0.1, shape)
    return np.asarray(out, np.float32).reshape(shape)


def state_dict(keys):
    """Return {name: array} for ``keys``, the content of a keys_*.json."""
    return {name: value(name, shape) for name, shape in keys.items()}


def image(seed, batch, height, width):
    """Return the (batch, 3, height, width) float32 input of a golden case."""
    rng = np.random.RandomState(seed)
    return rng.normal(0, 1, (batch, 3, height, width)).astype(np.float32)


def published_keys(name: str) -> dict[str, list[int]]:
    """Return the published names and shapes of a model, ``b1`` for one."""
    return json.loads((DATA / f'keys_{name}.json').read_text())


def published_state_dict(name: str) -> dict[str, Tensor]:
    """Return the deterministic weights of a model under published names."""
    arrays = state_dict(published_keys(name))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def load_golden(name: str) -> tuple[Tensor, dict[str, np.ndarray]]:
    """Return input and outputs of a golden case, ``b1_256x256`` for one."""
    with np.load(DATA / f'{name}.npz') as file:
        outputs = dict(file)
    seed, batch = int(outputs.pop('seed')), int(outputs.pop('batch', 1))
    height, width = map(int, re.search(r'_(\d+)x(\d+)', name).groups())
    return torch.from_numpy(image(seed, batch, height, width)), outputs


def relative_error(out, ref) -> float:
    """Return ``max|out - ref| / max|ref|``, in float64."""
    out, ref = (
        x.detach().double() if isinstance(x, Tensor) else torch.as_tensor(x)
        for x in (out, ref)
    )
    assert out.shape == ref.shape, f'{out.shape} != {ref.shape}'
    return float((out - ref).abs().max() / ref.abs().max())


@torch.no_grad()
def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Make everything matter that a fresh module leaves without effect.

    In place: norms get random parameters and statistics (most residual
    branches start at zero), scans random decays and an audible state.
    """
    rng = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, (_BatchNorm, nn.LayerNorm)):
            for tensor in norm.state_dict().values():
                if tensor.is_floating_point():
                    tensor.uniform_(0.5, 1.5, generator=rng)
    for name, parameter in module.named_parameters():
        leaf = name.rsplit('.', 1)[-1]
        if leaf in ('A_log', 'D'):
            parameter.normal_(0, 0.5, generator=rng)
        elif leaf == 'dt_proj_weight':
            parameter.uniform_(-1, 1, generator=rng)
        elif leaf == 'dt_proj_bias':
            parameter.uniform_(-3, 0, generator=rng)
        elif leaf == 'x_proj_weight':
            parameter.normal_(
                0, 3 * parameter.shape[-1] ** -0.5, generator=rng
            )
    return module
