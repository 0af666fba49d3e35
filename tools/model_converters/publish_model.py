"""Strip a training checkpoint down to what others need: weights and facts.

Kept are the weights, without a distillation teacher, and a few facts in
``meta``: ``arch``, ``resolution`` (of the pretraining, if known), ``weights``
(``'ema'`` or ``'raw'``), ``epoch``, ``iter``, ``dataset_meta`` and
``mmmamba_version``. Optimizer, schedules, logs, random states, the other set
of weights and the training config are left out. The name of the file ends in
the first eight digits of its SHA-256, as OpenMMLab's files do.
"""

import argparse
import ast
import hashlib
import io
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mmmamba
from mmmamba.backbones.arch import ARCH_ZOO, base_name, resolve_arch
from mmmamba.checkpoint import (
    CheckpointError,
    arch_name,
    backbone_state_dict,
    from_published,
    is_published,
    load_from_local,
    refuse_deployed,
    unwrap_state_dict,
)
from mmmamba.checkpoint.files import AVERAGES
from mmmamba.datasets.config import type_name
from mmmamba.utils.cli import UsageError, positive_int, run_tool
from mmmamba.utils.files import whole_or_nothing
from mmmamba.utils.whole_backbone import check_whole

WEIGHTS = ('ema', 'raw')  # in the order of preference


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Strip a training checkpoint down to its weights and a '
        'few facts about them.'
    )
    parser.add_argument('in_file', type=Path, help='checkpoint to read')
    parser.add_argument(
        'out_file',
        type=Path,
        help='checkpoint to write; "-", the first eight digits of its SHA-256 '
        'and ".pth" are added to the name',
    )
    parser.add_argument(
        '--weights',
        choices=WEIGHTS,
        help='the moving average (EMAHook) or the raw weights (default: the '
        'moving average where there is one)',
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help='write the backbone alone, its names without "backbone."',
    )
    parser.add_argument(
        '--arch',
        choices=list(ARCH_ZOO),
        help='arch to record (default: that of the training config, else what '
        'the tensors look like)',
    )
    parser.add_argument(
        '--resolution',
        type=positive_int,
        metavar='PIXELS',
        help='resolution to record (default: the crop in the training '
        "config's pipelines)",
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if args.out_file.is_dir():
        raise UsageError(f'OUT_FILE {args.out_file} is a directory')
    try:
        checkpoint = load_from_local(args.in_file)
        result = publish(checkpoint, args)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    except CheckpointError as error:
        if str(args.in_file) in str(error):
            raise
        raise CheckpointError(f'{args.in_file}: {error}') from None
    try:
        path = save(result, args.out_file)
    except OSError as error:
        raise UsageError(f'cannot write {args.out_file}: {error}') from None
    facts = (
        f'{name}: {value}'
        for name, value in result['meta'].items()
        if name != 'dataset_meta'
    )
    print(f'Wrote {len(result["state_dict"])} tensors to {path}')
    print(', '.join(facts))


def publish(checkpoint: Mapping, args: argparse.Namespace) -> dict:
    """Choose the weights and gather the facts.

    Args:
        checkpoint (Mapping): What the file holds.
        args (Namespace): The options.

    Returns:
        dict: ``meta`` and ``state_dict``.

    Raises:
        CheckpointError: If the weights asked for are not there, or those of
            the backbone are not a whole MobileMamba of the recorded arch.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    config = read_config(meta.get('cfg'))

    weights, tensors = choose_weights(checkpoint, meta, args.weights)
    tensors = OrderedDict(
        # A copy of its own: a view would take its whole storage along.
        (name, tensor.detach().clone(memory_format=torch.contiguous_format))
        for name, tensor in tensors.items()
        if not name.startswith('teacher.')
    )
    backbone = backbone_state_dict(tensors)
    refuse_deployed(backbone)
    if is_published(backbone):
        backbone = OrderedDict(
            (from_published(name), tensor)
            for name, tensor in backbone.items()
            if not name.startswith(('head.', 'head_dist.'))
        )

    facts = dict(
        arch=find_arch(backbone, meta, config, args.arch),
        resolution=args.resolution
        or find_resolution(config)
        or plain(meta.get('resolution')),
        weights=weights,
        epoch=plain(meta.get('epoch')),
        iter=plain(meta.get('iter')),
        dataset_meta=None
        if args.backbone_only
        else plain(meta.get('dataset_meta')),
        mmmamba_version=mmmamba.__version__,
    )
    return dict(
        meta={name: v for name, v in facts.items() if v is not None},
        state_dict=backbone if args.backbone_only else tensors,
    )


def choose_weights(
    checkpoint: Mapping, meta: Mapping, wanted: str | None
) -> tuple[str, Mapping[str, Tensor]]:
    """Which weights are taken, and their tensors by name."""
    found = {}
    averages = [
        name for name in AVERAGES if isinstance(checkpoint.get(name), Mapping)
    ]
    if averages:
        for name, key in zip(WEIGHTS, (averages[0], AVERAGES[averages[0]])):
            if isinstance(checkpoint.get(key), Mapping):
                found[name] = unwrap_state_dict({key: checkpoint[key]})
    elif isinstance(checkpoint.get('ema_state_dict'), Mapping):
        # EMAHook swaps the two in a checkpoint, and adds its step count.
        found['ema'] = unwrap_state_dict(checkpoint)
        raw = {
            name.removeprefix('module.'): value
            for name, value in checkpoint['ema_state_dict'].items()
            if name.startswith('module.')
        }
        if not set(raw) <= set(found['ema']):
            raise CheckpointError(
                'its ema_state_dict has tensors that its state_dict lacks'
            )
        found['raw'] = {**found['ema'], **raw}
    else:
        published = meta.get('weights')  # by an earlier run of this tool
        name = published if published in WEIGHTS else 'raw'
        found[name] = unwrap_state_dict(checkpoint)

    if wanted is None:
        wanted = next(name for name in WEIGHTS if name in found)
    if wanted not in found:
        raise CheckpointError(
            f'there are no {wanted} weights in it, only {" ".join(found)} '
            'ones: leave --weights out'
        )
    return wanted, found[wanted]


# ---------------------------------------------------------------------------
# Facts
# ---------------------------------------------------------------------------


def find_arch(
    backbone: Mapping[str, Tensor],
    meta: Mapping,
    config: Mapping,
    given: str | None,
) -> str | dict | None:
    """The arch to record: a name, all settings of a custom one, or None.

    The names b1, b2 and b4 share a network, so the tensors alone cannot tell.
    """
    looks = arch_name(backbone, ARCH_ZOO)
    if not looks.startswith(('arch ', 'a custom arch')):
        raise CheckpointError(f'this is {looks}')
    arch, source = given, '--arch'
    if arch is None:
        arch, source = config_arch(config), 'its config'
    if arch is None:
        arch, source = meta.get('arch'), 'its meta'
        if not isinstance(arch, dict) and arch not in list(ARCH_ZOO):
            arch = None  # absent, or another tool's wording
    if arch is None:
        if not looks.startswith('arch '):
            print('The arch is not recorded: a custom one, and no config')
            return None
        names = looks.removeprefix('arch ').split('/')
        arch, source = names[0], 'its shapes'
        if len(names) > 1:
            print(
                f'{", ".join(names)} are one network, recorded as {arch}; '
                '--arch names another'
            )
    try:
        settings = resolve_arch(arch)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f'{source}: {error}; pass --arch') from None
    try:
        check_whole(settings, backbone)
    except CheckpointError as error:
        raise CheckpointError(
            f'{source} says arch {arch}, but: {error}'
        ) from None
    # The drop-path rate is of the training, not of the network.
    name, rate = base_name(arch), settings['drop_path_rate']
    named = settings == {**ARCH_ZOO[name], 'drop_path_rate': rate}
    return name if named else settings


def config_arch(config: Mapping) -> str | dict | None:
    """The backbone's arch in a training config, None if it is not there."""
    model = config.get('model')
    backbone = model.get('backbone') if isinstance(model, dict) else None
    if not isinstance(backbone, dict):
        return None
    if type_name(backbone) != 'MobileMamba':
        return None
    return backbone.get('arch', 'b1')


def find_resolution(config: Mapping) -> int | tuple[int, int] | None:
    """The side of the images a classifier saw, or their height and width."""
    for loader, transform, key in (
        ('test_dataloader', 'CenterCrop', 'crop_size'),
        ('val_dataloader', 'CenterCrop', 'crop_size'),
        ('train_dataloader', 'RandomResizedCrop', 'scale'),
    ):
        for node in walk(config.get(loader)):
            if type_name(node) != transform:
                continue
            size = node.get(key)
            pair = size if isinstance(size, (list, tuple)) else (size, size)
            if len(pair) != 2 or not all(isinstance(n, int) for n in pair):
                continue
            if transform == 'CenterCrop':  # width first
                pair = pair[::-1]
            return pair[0] if pair[0] == pair[1] else tuple(pair)
    return None


def walk(node) -> Iterator[dict]:
    """Every dict at or below a node of a config."""
    if isinstance(node, dict):
        yield node
        node = node.values()
    if not isinstance(node, str) and hasattr(node, '__iter__'):
        for child in node:
            yield from walk(child)


def read_config(text) -> dict:
    """Read the text of a config without running it.

    Args:
        text (Any): What a runner stores of its config: assignments of
            literals and ``dict(...)``.

    Returns:
        dict: The settings; whatever is no such literal becomes None. Empty if
        ``text`` is not a config's.
    """
    if not isinstance(text, str):
        return {}
    try:
        return {
            statement.targets[0].id: literal(statement.value)
            for statement in ast.parse(text).body
            if isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def literal(node: ast.expr):
    """The value of an expression; None for all but literals and dicts."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [literal(value) for value in node.elts]
        return tuple(values) if isinstance(node, ast.Tuple) else values
    if isinstance(node, ast.Dict):
        return {
            key.value: literal(value)
            for key, value in zip(node.keys, node.values)
            if isinstance(key, ast.Constant)
        }
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == 'dict'
    ):
        return {pair.arg: literal(pair.value) for pair in node.keywords}
    return None


def plain(value):
    """A copy of plain values only; anything else becomes None."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, (list, set)):
        return list(map(plain, value))
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    return None


def save(result: dict, path: Path) -> Path:
    """Write the file under its name with the hash; returns the path."""
    # Through memory: in a file, torch would store the file's name too, and
    # with it the hash would depend on the name.
    buffer = io.BytesIO()
    torch.save(result, buffer)
    data = buffer.getvalue()
    digits = hashlib.sha256(data).hexdigest()[:8]
    path = path.with_name(f'{path.name.removesuffix(".pth")}-{digits}.pth')
    with whole_or_nothing(path) as temporary:
        temporary.write_bytes(data)
    return path


if __name__ == '__main__':
    run_tool(main)
