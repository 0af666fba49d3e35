"""Checkpoint files: reading them safely, and finding the weights in them.

A checkpoint is somebody else's file. It is read without running code from it
(``weights_only``), and what cannot be read is an error that says what the
file looks like.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import torch
from mmengine.dist import is_main_process
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.utils import digit_version
from torch import Tensor


class CheckpointError(RuntimeError):
    """A checkpoint that cannot serve; the message says why."""


def load_from_local(
    filename: str | Path, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """Read a checkpoint file without running code from it.

    Args:
        filename (str | Path): A local file.
        map_location (str | torch.device, optional): As in ``torch.load``.
            Defaults to ``'cpu'``.

    Returns:
        dict: What the file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it is empty, damaged, not a checkpoint, or holds
            objects that loading would have to run code for.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    with path.open('rb') as file:
        start = file.read(16)
    if not start:
        raise CheckpointError(f'{path} is empty (0 bytes), no checkpoint')
    # A zip archive (torch >= 1.6) or a bare pickle.
    if not start.startswith((b'PK', b'\x80')):
        raise CheckpointError(
            f'{path} is not a PyTorch checkpoint; it starts with {start!r}'
        )
    if start.startswith(b'PK'):
        _check_zip(path)
    try:
        checkpoint = _torch_load(path, map_location)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'{path} was refused: it holds more than tensors and plain '
            'values, and loading those could run code from the file. If you '
            'trust it, allow-list its classes by '
            'torch.serialization.add_safe_globals. PyTorch said: '
            f'{_refusal(error)}'
        ) from error
    except Exception as error:  # whatever a damaged file makes torch raise
        raise CheckpointError(
            f'{path} is truncated or damaged ({type(error).__name__}: '
            f'{error}). Download or copy it again'
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(
            f'{path} holds a {type(checkpoint).__name__}, '
            'not a dict of tensors'
        )
    return checkpoint


def _check_zip(path: Path) -> None:
    """Check the archive's directory and checksums, which torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            part = archive.testzip()
            damaged = part and f'wrong checksum of {part}'
    except Exception as error:  # whatever a damaged directory leads to
        damaged = f'its zip directory is missing or wrong ({error})'
    if damaged:
        raise CheckpointError(
            f'{path} is truncated or damaged: {damaged}. Download or copy it '
            'again'
        )


def _torch_load(path: Path, map_location) -> dict:
    if not HAS_SAFE_GLOBALS:
        return torch.load(path, map_location=map_location, weights_only=True)
    with torch.serialization.safe_globals(_SAFE_GLOBALS):
        return torch.load(path, map_location=map_location, weights_only=True)


def _refusal(error: Exception) -> str:
    """What torch refused, without its advice to load unsafely."""
    said = str(error)
    for before in ('WeightsUnpickler error:', 'from a trusted source.'):
        said = said.split(before)[-1]
    return ' '.join(said.split('Check the documentation')[0].split())


def _saved_method(owner: type, name: str):
    """The uses a runner's checkpoint makes of ``getattr``, and no others."""
    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(owner, name)
    if owner is OneCycleParamScheduler and name.startswith('_annealing_'):
        return getattr(owner, name)
    raise pickle.UnpicklingError(f'getattr of {name!r} on {owner!r}')


# Below 2.6 torch.load defaults to running code and cannot be told what a
# runner's checkpoint needs; there, resuming stays mmengine's own affair.
HAS_SAFE_GLOBALS = digit_version(torch.__version__) >= digit_version('2.6.0')
# NumPy 1.26 has a part of NumPy 2's name for it.
_IS_NUMPY_2 = digit_version(np.__version__) >= digit_version('2.0.0')
_NUMPY_CORE = getattr(np, '_core' if _IS_NUMPY_2 else 'core')
# What mmengine's runner saves beside tensors: logged scalars, schedulers.
_SAFE_GLOBALS = [
    HistoryBuffer,
    OneCycleParamScheduler,
    (_saved_method, 'builtins.getattr'),
    (
        _NUMPY_CORE.multiarray._reconstruct,
        'numpy._core.multiarray._reconstruct',
    ),
    (
        _NUMPY_CORE.multiarray._reconstruct,
        'numpy.core.multiarray._reconstruct',
    ),
    (_NUMPY_CORE.multiarray.scalar, 'numpy._core.multiarray.scalar'),
    (_NUMPY_CORE.multiarray.scalar, 'numpy.core.multiarray.scalar'),
    np.ndarray,
    np.dtype,
] + [type(np.dtype(t)) for t in '?bBhHiIlLqQefd']


def load_from_http(
    address: str, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """Download a checkpoint and read it as a local file.

    It is kept in PyTorch's cache, by its name alone, and read from there the
    next time.

    Args:
        address (str): An http(s) address.
        map_location (str | torch.device, optional): As in ``torch.load``.
            Defaults to ``'cpu'``.

    Returns:
        dict: What the file holds; see :func:`load_from_local`.

    Raises:
        CheckpointError: If it cannot be downloaded, and as
            :func:`load_from_local`.
    """
    name = Path(unquote(urlparse(address).path)).name
    path = Path(torch.hub.get_dir(), 'checkpoints', name)
    cached = path.is_file()
    if cached:
        print_log(f'{address} is in the cache: {path}', logger='current')
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                address, str(path), progress=is_main_process()
            )
        except (OSError, HTTPException) as error:
            raise CheckpointError(
                f'{address} cannot be downloaded ({error})'
            ) from error
    try:
        return load_from_local(path, map_location)
    except CheckpointError as error:
        if not cached:  # such as the page of a login
            path.unlink(missing_ok=True)
        raise CheckpointError(f'{address}: {error}') from error


# Moving averages and what they are of: the published code's, timm's, DeiT's.
AVERAGES = dict(net_E='net', state_dict_ema='state_dict', model_ema='model')
# Where weights lie, the preferred first; the last is DeepSpeed's.
CONTAINERS = (*AVERAGES, *AVERAGES.values(), 'module')
# What DistributedDataParallel and torch.compile put into names.
WRAPPERS = re.compile(r'^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.')


def unwrap_state_dict(checkpoint: Mapping) -> OrderedDict:
    """Find the weights in a checkpoint's container.

    Args:
        checkpoint (Mapping): A bare state dict, or one with the weights in
            one of :data:`CONTAINERS`, a moving average before others.

    Returns:
        OrderedDict: The tensors by name, without the prefixes of
        :data:`WRAPPERS`.

    Raises:
        CheckpointError: If there are no tensors.
    """
    for container in CONTAINERS:
        if isinstance(checkpoint.get(container), Mapping):
            checkpoint = checkpoint[container]
            break
    tensors = OrderedDict(
        (WRAPPERS.sub('', str(name)), value)
        for name, value in checkpoint.items()
        if isinstance(value, Tensor)
    )
    if not tensors:
        raise CheckpointError(
            'the checkpoint holds no tensors; its keys are '
            f'{listing(map(str, checkpoint))}'
        )
    return tensors


def backbone_state_dict(
    state_dict: Mapping, prefix: str | None = None
) -> OrderedDict:
    """Cut the backbone's tensors out of a state dict.

    Args:
        state_dict (Mapping): Tensors by name.
        prefix (str, optional): Where the backbone sits, for example
            ``'backbone.'``. Defaults to None: at the top, or under
            ``backbone.`` if the state dict is that of a whole model.

    Returns:
        OrderedDict: The tensors under ``prefix``, without it.

    Raises:
        CheckpointError: If there are none.
    """
    if prefix is None:
        whole_model = any(n.startswith('backbone.') for n in state_dict)
        prefix = 'backbone.' if whole_model else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    tensors = OrderedDict(
        (name[len(prefix) :], value)
        for name, value in state_dict.items()
        if name.startswith(prefix)
    )
    if not tensors:
        raise CheckpointError(
            f'the checkpoint has no tensors under {prefix!r}; its names are '
            f'{listing(state_dict)}'
        )
    return tensors


def listing(names: Iterable[str], most: int = 3) -> str:
    """Join names for a message, the first few and the number of others."""
    names = list(names)
    more = f', and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
