"""Fitting a checkpoint to a model, and clear refusals.

What does not fit is an error that says what the checkpoint looks like, never
a warning lost in a log.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from torch import nn

from .files import (
    CheckpointError,
    backbone_state_dict,
    listing,
    load_from_http,
    load_from_local,
    unwrap_state_dict,
)
from .names import (
    BACKBONE_TOP,
    CLS_HEAD,
    HEADS,
    OUR_BLOCK,
    from_published,
    is_published,
)

if TYPE_CHECKING:
    from mmmamba.backbones import MobileMamba


def load_pretrained(
    model: 'MobileMamba', filename: str, prefix: str | None = None
) -> None:
    """Load a backbone from a checkpoint of either layout.

    Args:
        model (MobileMamba): The backbone.
        filename (str): A local file or an http(s) address.
        prefix (str, optional): See :func:`backbone_state_dict`.

    Raises:
        FileNotFoundError: If there is no such file.
        CheckpointError: If it cannot be read or is not of the model's arch.
    """
    print_log(f'Load the backbone from {filename}', logger='current')
    try:
        if re.match('https?://', str(filename)):
            checkpoint = load_from_http(filename)
        else:
            checkpoint = load_from_local(filename)
        check_arch(model, checkpoint)
        state_dict = backbone_state_dict(unwrap_state_dict(checkpoint), prefix)
        model.load_state_dict(state_dict)
    except CheckpointError as error:
        if str(filename) in str(error):
            raise
        raise CheckpointError(f'{filename}: {error}') from None


def adapt_state_dict(
    model: 'MobileMamba', state_dict: dict, prefix: str
) -> None:
    """Make a state dict fit a backbone, in place, or say why it cannot.

    Published names become ours and classification heads are dropped.

    Args:
        model (MobileMamba): The backbone.
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
    if not any(n.startswith(BACKBONE_TOP) for n in names):
        return
    for name in names:
        ours = f'backbone.{name}'
        if name.startswith(HEADS):
            for published, here in CLS_HEAD:
                if name.startswith(f'{published}.'):
                    ours = here + name[len(published) :]
        state_dict[prefix + ours] = state_dict.pop(prefix + name)


def drop_heads(tensors: Mapping) -> OrderedDict:
    """Leave out the classification heads, and say so in the log.

    Args:
        tensors (Mapping): Tensors of a published classifier or a backbone.

    Returns:
        OrderedDict: Those of the backbone.
    """
    kept = OrderedDict(
        (n, t) for n, t in tensors.items() if not n.startswith(HEADS)
    )
    if len(kept) < len(tensors):
        print_log(
            'The classification heads of the checkpoint '
            f'({len(tensors) - len(kept)} tensors) are not part of the '
            'backbone: ignored',
            logger='current',
        )
    return kept


def is_deployed(names: Iterable[str]) -> bool:
    """Tell whether tensors are those of a deployed backbone.

    Args:
        names (Iterable[str]): Names of the tensors.

    Returns:
        bool: True if the stem is convolutions without norms.
    """
    return 'stem.0.weight' in names


def refuse_deployed(names: Iterable[str]) -> None:
    """Refuse a deployed backbone where the trained one is needed.

    Args:
        names (Iterable[str]): Names of its tensors.

    Raises:
        CheckpointError: If it is one.
    """
    if is_deployed(names):
        raise CheckpointError(
            'this is a deployed MobileMamba, whose norms are folded: give the '
            'checkpoint that it was made of'
        )


def check_arch(model: 'MobileMamba', checkpoint: Mapping) -> None:
    """Refuse a checkpoint whose meta names another arch than the model's.

    B1, B2 and B4 are one arch; their drop-path rates may differ.

    Args:
        model (MobileMamba): The backbone.
        checkpoint (Mapping): Of ``publish_model.py`` or any other.

    Raises:
        CheckpointError: If the two differ; names both.
    """
    meta = checkpoint.get('meta')
    named = meta.get('arch') if isinstance(meta, Mapping) else None
    arch = model.arch_zoo.get(named) if isinstance(named, str) else named
    if not isinstance(arch, Mapping):
        return  # the tensors tell
    if any(
        arch.get(name, value) != value
        for name, value in model.arch.items()
        if name != 'drop_path_rate'
    ):
        raise CheckpointError(
            f'the model is arch {model.arch_name}, but the checkpoint says it '
            f'is arch {_short(named)}; set arch to match it'
        )


def check_form(model: 'MobileMamba', given: Mapping, prefix: str = '') -> None:
    """Check that a backbone and tensors are both deployed, or both not.

    Args:
        model (MobileMamba): The backbone.
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
    if model.deploy and is_deployed(given):
        theirs, ours = (
            _deploy_dtype(state) for state in (given, model.state_dict())
        )
        if theirs != ours:
            raise CheckpointError(
                f'the checkpoint{where} is deployed in {theirs}, and the '
                f'backbone in {ours}; build the backbone with '
                f'deploy={theirs!r} to load it'
            )


def _deploy_dtype(state: Mapping) -> str:
    """What the 1x1 convolutions of a deployed backbone multiply."""
    dtypes = {t.dtype for t in state.values() if hasattr(t, 'dtype')}
    if torch.int8 in dtypes:
        return 'int8'
    return 'bfloat16' if torch.int16 in dtypes else 'float32'


def check_fit(model: 'MobileMamba', given: Mapping, prefix: str = '') -> None:
    """Check that tensors are exactly those of a backbone.

    Args:
        model (MobileMamba): The backbone.
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
    if not given:
        raise CheckpointError(
            f'the model is {wanted}, and the checkpoint has nothing{where}; '
            'that of a backbone alone is named by '
            'model.backbone.init_cfg.checkpoint, not by load_from'
        )
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
        f'{len(names)} {what} ({listing(names)})'
        for names, what in (
            (missing, 'missing'),
            (unexpected, 'unexpected'),
            (reshaped, 'of another shape'),
        )
        if names
    ]
    raise CheckpointError(f'{verdict}. Tensors: {"; ".join(details)}')


def check_complete(
    model: nn.Module, filename: str, classes: Sequence[str] | None = None
) -> dict:
    """Load a checkpoint to test or draw with; refuse one of another model.

    mmengine warns and leaves what is missing at its random initialization.

    Args:
        model (nn.Module): A detector, segmentor or classifier; it is loaded.
        filename (str): A local file or an address.
        classes (Sequence[str], optional): Those of the data of a test, in
            the order of their labels. Defaults to None.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: If a tensor is missing or of another shape, if
            the checkpoint has a second head that the model lacks, or if
            the model was trained with ``classes`` in another order.
    """
    checkpoint = CheckpointLoader.load_checkpoint(str(filename), 'cpu')
    try:
        missing, unexpected = model.load_state_dict(
            unwrap_state_dict(checkpoint), strict=False
        )
    except RuntimeError as error:  # shapes; CheckpointError is one
        details = ' '.join(str(error).split())[:400]
        raise CheckpointError(f'{filename}: {details}') from None
    if missing:
        raise CheckpointError(
            f'{filename} is not a checkpoint of this {type(model).__name__}: '
            f'{len(missing)} of its tensors are missing ({listing(missing)})'
        )
    if any('head_dist.' in name for name in unexpected):
        raise CheckpointError(
            f'{filename} has two heads, as distillation trains them, and the '
            'config has one, whose scores alone are less accurate; add '
            '--cfg-options model.head.distillation=True'
        )
    if classes:
        check_classes(checkpoint, filename, list(classes))
    return checkpoint


def check_classes(
    checkpoint: Mapping, filename: str, classes: list[str]
) -> None:
    """Compare the classes that a model was trained with with those of data.

    Args:
        checkpoint (Mapping): Its checkpoint; one without classes is taken.
        filename (str): Where that is from.
        classes (list[str]): Those of the data, in the order of their labels.

    Raises:
        CheckpointError: If they are the same in another order.
    """
    meta = checkpoint.get('meta') or {}
    known = (meta.get('dataset_meta') or {}).get('classes')
    known = list(known or meta.get('CLASSES') or classes)
    if known == classes:
        return
    pairs = zip(known, classes)
    label = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if label is None:
        what = f'has {len(known)} classes, and the data {len(classes)}'
    else:
        what = (
            f'was trained with the class {known[label]!r} as label {label}, '
            f'which is {classes[label]!r} in the data'
        )
    if sorted(known) == sorted(classes):
        raise CheckpointError(
            f'{filename} {what}: set metainfo.classes of the data to '
            'the order of the training'
        )
    print_log(
        f'{filename} {what}; labels are compared by their numbers',
        logger='current',
        level=logging.WARNING,
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
    names = [f'{conv}{suffix}.weight' for conv in last_convs]
    if not all(name in state_dict for name in names):
        if not any(n.startswith(('stem.', 'stages.')) for n in state_dict):
            return (
                f'no MobileMamba (it has {listing(state_dict) or "nothing"})'
            )
        return 'part of a MobileMamba'
    channels = tuple(state_dict[name].shape[axis] for name in names)
    blocks = {m.groups() for m in map(OUR_BLOCK.match, state_dict) if m}
    depths = tuple(
        sum(stage == str(s) for stage, _ in blocks) for s in range(3)
    )
    archs = [
        name
        for name, arch in arch_zoo.items()
        if (arch['channels'], arch['depths']) == (channels, depths)
    ]
    if archs:
        return f'arch {"/".join(archs)}'
    return f'a custom arch (channels {channels}, depths {depths})'


def _short(arch: str | Mapping | None) -> str:
    if isinstance(arch, Mapping):
        return f'channels {arch.get("channels")}, depths {arch.get("depths")}'
    return str(arch)
