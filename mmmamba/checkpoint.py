"""Checkpoints: safe reading, the published layout, and clear refusals.

A checkpoint is somebody else's file. It is read without running code from it
(``weights_only``), and what does not fit the model is an error that says what
the file looks like, never a warning lost in a log.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.runner import CheckpointLoader
from mmengine.utils import digit_version
from torch import Tensor, nn

# ---------------------------------------------------------------------------
# Names: published <-> ours. Rows apply from top to bottom, each to whole
# dot-separated parts of a name, and every row works in both directions.
# ---------------------------------------------------------------------------
_STEM = tuple((f'patch_embed.{2 * i}', f'stem.{i}') for i in range(4))
_TRANSITION = tuple(
    (f'blocks{s}.{published}', f'stages.{s - 1}.transition.{ours}')
    for s in (2, 3)
    for published, ours in (
        ('0.0.m', 'dwconv1'),
        ('0.1.m', 'ffn1'),
        ('1.conv1', 'merging.expand'),
        ('1.conv2', 'merging.dwconv'),
        ('1.se', 'merging.se'),
        ('1.conv3', 'merging.project'),
        ('2.0.m', 'dwconv2'),
        ('2.1.m', 'ffn2'),
    )
)
_BLOCK = (
    ('dw0.m', 'dwconv1'),
    ('ffn0.m', 'ffn1'),
    ('mixer.m.attn', 'mixer'),
    ('dw1.m', 'dwconv2'),
    ('ffn1.m', 'ffn2'),
)
_MIXER = (
    ('local_op.dwconv3x3', 'local_branch.parts.0.0.conv'),
    ('local_op.bn1', 'local_branch.parts.0.0.bn'),
    ('local_op.dwconv1x1', 'local_branch.parts.0.1.conv'),
    ('local_op.bn2', 'local_branch.parts.0.1.bn'),
    ('global_op.wt_filter', 'global_branch.wavelet.filter'),
    ('global_op.iwt_filter', 'global_branch.wavelet.inverse_filter'),
    ('global_op.wavelet_convs.0', 'global_branch.wavelet.conv'),
    ('global_op.wavelet_scale.0.weight', 'global_branch.wavelet.scale'),
    ('global_op.base_scale.weight', 'global_branch.base_scale'),
    ('global_op.global_atten.conv2d', 'global_branch.ssm.dwconv'),
    (
        'global_op.global_atten.dt_projs_weight',
        'global_branch.ssm.dt_proj_weight',
    ),
    ('global_op.global_atten.dt_projs_bias', 'global_branch.ssm.dt_proj_bias'),
    ('global_op.global_atten.A_logs', 'global_branch.ssm.A_log'),
    ('global_op.global_atten.Ds', 'global_branch.ssm.D'),
    ('global_op.global_atten', 'global_branch.ssm'),
    ('proj.1', 'proj'),
)
_CONV_BN = (('c', 'conv'),)
_CLS_HEAD = (
    ('head.bn', 'head.head.bn'),
    ('head.l', 'head.head.linear'),
    ('head_dist.bn', 'head.head_dist.bn'),
    ('head_dist.l', 'head.head_dist.linear'),
)
_TABLE = _STEM + _TRANSITION + _BLOCK + _MIXER + _CONV_BN

# Blocks are numbered from 0 in ours; published stages 2 and 3 count the three
# parts of the transition first.
_PUBLISHED_BLOCK = re.compile(r'^blocks([123])\.(\d+)\.')
_OUR_BLOCK = re.compile(r'^stages\.([012])\.blocks\.(\d+)\.')
_HEADS = ('head.', 'head_dist.')
# What only names of a backbone, of either layout, start with.
_PUBLISHED_TOP = ('patch_embed.', 'blocks1.')
_BACKBONE_TOP = (*_PUBLISHED_TOP, 'stem.', 'stages.')


class CheckpointError(RuntimeError):
    """A checkpoint that cannot serve; the message says why."""


def from_published(name: str) -> str:
    """Translate the published name of a backbone tensor.

    Args:
        name (str): For example ``blocks2.3.ffn0.m.pw1.c.weight``.

    Returns:
        str: Our name, ``stages.1.blocks.0.ffn1.pw1.conv.weight``.
    """
    for published, ours in _TABLE:
        name = _replace(name, published, ours)

    def block(match):
        stage, index = int(match[1]) - 1, int(match[2])
        return f'stages.{stage}.blocks.{index - 3 if stage else index}.'

    return _PUBLISHED_BLOCK.sub(block, name)


def to_published(name: str) -> str:
    """Translate our name of a backbone tensor; the inverse of the above.

    Args:
        name (str): For example ``stem.1.conv.weight``.

    Returns:
        str: The published name, ``patch_embed.2.c.weight``.
    """
    for published, ours in _TABLE:
        name = _replace(name, ours, published)

    def block(match):
        stage, index = int(match[1]), int(match[2])
        return f'blocks{stage + 1}.{index + 3 if stage else index}.'

    return _OUR_BLOCK.sub(block, name)


def _replace(name: str, old: str, new: str) -> str:
    return re.sub(rf'(?<![^.]){re.escape(old)}(?![^.])', new, name)


def is_published(names: Iterable[str]) -> bool:
    """Tell whether backbone tensors carry the published names.

    Args:
        names (Iterable[str]): Names of the tensors.

    Returns:
        bool: True if one of them starts as only published names do.
    """
    return any(str(n).startswith(_PUBLISHED_TOP) for n in names)


# ---------------------------------------------------------------------------
# Reading files
# ---------------------------------------------------------------------------


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
    if not _HAS_SAFE_GLOBALS:
        return torch.load(path, map_location=map_location, weights_only=True)
    with torch.serialization.safe_globals(_SAFE_GLOBALS):
        return torch.load(path, map_location=map_location, weights_only=True)


def _refusal(error: Exception) -> str:
    """What torch refused, without its advice to load unsafely."""
    said = str(error).split('WeightsUnpickler error:')[-1]
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
_HAS_SAFE_GLOBALS = digit_version(torch.__version__) >= digit_version('2.6.0')
_NUMPY_CORE = np._core if hasattr(np, '_core') else np.core
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


def _load_for_runner(
    filename: str | Path, map_location: str | torch.device | None = 'cpu'
) -> dict:
    """As :func:`load_from_local`, in the container mmengine's hooks expect."""
    checkpoint = load_from_local(filename, map_location)
    if 'state_dict' in checkpoint:
        return checkpoint
    if {'net', 'net_E'} & set(checkpoint) or is_published(checkpoint):
        return {'state_dict': unwrap_state_dict(checkpoint)}
    return checkpoint


if _HAS_SAFE_GLOBALS:
    # Every local checkpoint a runner or inferencer reads takes this way.
    CheckpointLoader.register_scheme(
        prefixes='', loader=_load_for_runner, force=True
    )


def unwrap_state_dict(checkpoint: Mapping) -> OrderedDict:
    """Find the weights in a checkpoint's container.

    Args:
        checkpoint (Mapping): A bare state dict, or one with the weights under
            ``net_E`` (EMA, preferred), ``net``, ``state_dict`` or ``model``.

    Returns:
        OrderedDict: The tensors by name, without a ``module.`` prefix.

    Raises:
        CheckpointError: If there are no tensors.
    """
    for container in ('net_E', 'net', 'state_dict', 'model'):
        if isinstance(checkpoint.get(container), Mapping):
            checkpoint = checkpoint[container]
            break
    tensors = OrderedDict(
        (re.sub(r'^module\.', '', str(name)), value)
        for name, value in checkpoint.items()
        if isinstance(value, Tensor)
    )
    if not tensors:
        raise CheckpointError(
            'the checkpoint holds no tensors; its keys are '
            f'{_listing(map(str, checkpoint))}'
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
            f'{_listing(state_dict)}'
        )
    return tensors


def drop_heads(tensors: Mapping) -> OrderedDict:
    """Leave out the classification heads, and say so in the log.

    Args:
        tensors (Mapping): Tensors of a published classifier or a backbone.

    Returns:
        OrderedDict: Those of the backbone.
    """
    kept = OrderedDict(
        (n, t) for n, t in tensors.items() if not n.startswith(_HEADS)
    )
    if len(kept) < len(tensors):
        print_log(
            'The classification heads of the checkpoint '
            f'({len(tensors) - len(kept)} tensors) are not part of the '
            'backbone: ignored',
            logger='current',
        )
    return kept


def load_pretrained(
    model: nn.Module, filename: str, prefix: str | None = None
) -> None:
    """Load a backbone from a checkpoint of either layout.

    Args:
        model (nn.Module): A :class:`mmmamba.backbones.MobileMamba`.
        filename (str): A local file or an http(s) address.
        prefix (str, optional): See :func:`backbone_state_dict`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read or is not of the model's arch.
    """
    print_log(f'Load the backbone from {filename}', logger='current')
    try:
        if re.match('https?://', str(filename)):
            checkpoint = _download(filename)
        else:
            checkpoint = load_from_local(filename)
        check_arch(model, checkpoint)
        state_dict = backbone_state_dict(unwrap_state_dict(checkpoint), prefix)
        model.load_state_dict(state_dict)
    except CheckpointError as error:
        if str(filename) in str(error):
            raise
        raise CheckpointError(f'{filename}: {error}') from None


def check_arch(model: nn.Module, checkpoint: Mapping) -> None:
    """Refuse a checkpoint whose meta names another arch than the model's.

    B1, B2 and B4 are one arch; their drop-path rates may differ.

    Args:
        model (nn.Module): A :class:`mmmamba.backbones.MobileMamba`.
        checkpoint (Mapping): Of ``publish_model.py`` or any other.

    Raises:
        CheckpointError: If the two differ; names both.
    """
    meta = checkpoint.get('meta')
    arch = meta.get('arch') if isinstance(meta, Mapping) else None
    arch = model.arch_zoo.get(arch, arch) if isinstance(arch, str) else arch
    if not isinstance(arch, Mapping):
        return  # the tensors tell
    if any(
        arch.get(name, value) != value
        for name, value in model.arch.items()
        if name != 'drop_path_rate'
    ):
        raise CheckpointError(
            f'the model is arch {model.arch_name}, but the checkpoint says it '
            f'is arch {_short(meta["arch"])}; set arch to match it'
        )


def _short(arch: str | Mapping) -> str:
    if isinstance(arch, str):
        return arch
    return f'channels {arch.get("channels")}, depths {arch.get("depths")}'


def _download(address: str) -> dict:
    """Read a checkpoint from the network as if it were a local file."""
    with TemporaryDirectory() as folder:
        path = Path(folder, 'checkpoint')
        torch.hub.download_url_to_file(address, path)
        return load_from_local(path)


# ---------------------------------------------------------------------------
# Fitting a state dict to a model
# ---------------------------------------------------------------------------


def adapt_state_dict(model: nn.Module, state_dict: dict, prefix: str) -> None:
    """Make a state dict fit a backbone, in place, or say why it cannot.

    Published names become ours and classification heads are dropped.

    Args:
        model (nn.Module): A :class:`mmmamba.backbones.MobileMamba`.
        state_dict (dict): Tensors by name, of the whole model that is loaded.
        prefix (str): Prefix of the backbone's names in it.

    Raises:
        CheckpointError: If tensors are missing, too many or of another shape.
    """
    given = {
        name[len(prefix) :]: state_dict.pop(name)
        for name in list(state_dict)
        if name.startswith(prefix)
    }
    given = drop_heads(given)
    check_form(model, given, prefix)
    if is_published(given):
        given = {from_published(name): v for name, v in given.items()}
    check_fit(model, given, prefix)
    state_dict.update({prefix + name: v for name, v in given.items()})


def adapt_classifier(state_dict: dict, prefix: str) -> None:
    """Move a published classifier's tensors to where ours are, in place.

    There the backbone's lie at the top, beside ``head`` and ``head_dist``;
    an ``ImageClassifier`` has a backbone and a head. So they do in the file
    of a backbone alone, of either layout. Others are left alone.

    Args:
        state_dict (dict): Tensors by name.
        prefix (str): Prefix of the classifier's names in it.
    """
    names = [n[len(prefix) :] for n in state_dict if n.startswith(prefix)]
    if not any(n.startswith(_BACKBONE_TOP) for n in names):
        return
    for name in names:
        ours = f'backbone.{name}'
        if name.startswith(_HEADS):
            for published, here in _CLS_HEAD:
                if name.startswith(f'{published}.'):
                    ours = here + name[len(published) :]
        state_dict[prefix + ours] = state_dict.pop(prefix + name)


def is_deployed(names: Iterable[str]) -> bool:
    """Tell whether tensors are those of a deployed backbone.

    Args:
        names (Iterable[str]): Names of the tensors.

    Returns:
        bool: True if the stem is convolutions without norms.
    """
    return 'stem.0.weight' in names


def check_form(model: nn.Module, given: Mapping, prefix: str = '') -> None:
    """Check that a backbone and tensors are both deployed, or both not.

    Args:
        model (nn.Module): A :class:`mmmamba.backbones.MobileMamba`.
        given (Mapping): Tensors of either layout, without prefix.
        prefix (str): Where they were found, for the message.

    Raises:
        CheckpointError: If only one of the two is.
    """
    where = f' under {prefix!r}' if prefix else ''
    if is_deployed(given) and not model.deploy:
        raise CheckpointError(
            f'the checkpoint{where} is of a deployed MobileMamba, whose norms '
            'are folded; build the backbone with deploy=True to load it'
        )
    trained = is_published(given) or 'stem.0.conv.weight' in given
    if trained and model.deploy:
        raise CheckpointError(
            f'the backbone is deployed, but the checkpoint{where} is not; '
            'load it into a backbone built without deploy=True and call '
            'switch_to_deploy() then'
        )


def check_fit(model: nn.Module, given: Mapping, prefix: str = '') -> None:
    """Check that tensors are exactly those of a backbone.

    Args:
        model (nn.Module): A :class:`mmmamba.backbones.MobileMamba`.
        given (Mapping): Tensors by our names, without prefix.
        prefix (str): Where they were found, for the message.

    Raises:
        CheckpointError: If tensors are missing, too many or of another shape.
    """
    expected = model.state_dict()
    # PyTorch itself supplies the batch counters that old files lack.
    missing = [
        n
        for n in expected
        if n not in given and not n.endswith('num_batches_tracked')
    ]
    unexpected = [n for n in given if n not in expected]
    reshaped = [
        f'{n} {tuple(given[n].shape)} instead of {tuple(v.shape)}'
        for n, v in expected.items()
        if n in given and given[n].shape != v.shape
    ]
    if not missing and not unexpected and not reshaped:
        return
    wanted = arch_name(expected, model.arch_zoo)
    found = arch_name(given, model.arch_zoo)
    where = f' under {prefix!r}' if prefix else ''
    if found == wanted:
        verdict = (
            f'the checkpoint{where} is {found}, as the model, but it '
            'is incomplete or made with other settings'
        )
    else:
        verdict = (
            f'the model is {wanted}, but the checkpoint{where} looks '
            f'like {found}'
        )
        if not found.startswith('no '):
            verdict += '; set arch to match it'
    details = [
        f'{len(names)} {what} ({_listing(names)})'
        for names, what in (
            (missing, 'missing'),
            (unexpected, 'unexpected'),
            (reshaped, 'of another shape'),
        )
        if names
    ]
    raise CheckpointError(f'{verdict}. Tensors: {"; ".join(details)}')


def check_complete(model: nn.Module, filename: str) -> None:
    """Refuse to test or draw with a checkpoint that is not this model's.

    mmengine warns and leaves what is missing at its random initialization.

    Args:
        model (nn.Module): A detector, segmentor or classifier; it is loaded.
        filename (str): A local file or an address.

    Raises:
        CheckpointError: If a tensor is missing or of another shape.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(filename), 'cpu')
    try:
        missing = model.load_state_dict(
            unwrap_state_dict(checkpoint), strict=False
        ).missing_keys
    except RuntimeError as error:  # shapes; CheckpointError is one
        details = ' '.join(str(error).split())[:400]
        raise CheckpointError(f'{filename}: {details}') from None
    if missing:
        raise CheckpointError(
            f'{filename} is not a checkpoint of this {type(model).__name__}: '
            f'{len(missing)} of its tensors are missing ({_listing(missing)})'
        )


def arch_name(state_dict: Mapping, arch_zoo: Mapping[str, Mapping]) -> str:
    """Say which arch a backbone's tensors look like.

    Args:
        state_dict (Mapping): Backbone tensors by our names.
        arch_zoo (Mapping[str, Mapping]): The known archs.

    Returns:
        str: Such as ``"arch t2"``, or a description of what is there.
    """
    last_convs = (
        'stem.3',
        'stages.1.transition.merging.project',
        'stages.2.transition.merging.project',
    )
    # The outputs of deployed weights come last, and else first.
    suffix, axis = ('', -1) if is_deployed(state_dict) else ('.conv', 0)
    weights = [state_dict.get(f'{n}{suffix}.weight') for n in last_convs]
    if any(weight is None for weight in weights):
        if not any(n.startswith(('stem.', 'stages.')) for n in state_dict):
            return f'no MobileMamba (it has {_listing(state_dict)})'
        return 'part of a MobileMamba'
    channels = tuple(weight.shape[axis] for weight in weights)
    blocks = {m.groups() for m in map(_OUR_BLOCK.match, state_dict) if m}
    depths = tuple(
        sum(stage == str(s) for stage, _ in blocks) for s in range(3)
    )
    names = [
        name
        for name, arch in arch_zoo.items()
        if (arch['channels'], arch['depths']) == (channels, depths)
    ]
    if names:
        return f'arch {"/".join(names)}'
    return f'a custom arch (channels {channels}, depths {depths})'


def _listing(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f', and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(names[:most]) + more
