"""Convert a backbone checkpoint between the published layout and ours.

Reads any container (bare, state_dict, net, net_E, model), of a classifier or
of a whole detector or segmentor, and writes the backbone alone: for ours as
an mmengine checkpoint, for the published layout as a bare state dict.
"""

import argparse
import os
from collections import OrderedDict
from pathlib import Path

import torch

import mmmamba
from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import (
    CheckpointError,
    arch_name,
    backbone_state_dict,
    check_fit,
    drop_heads,
    from_published,
    is_published,
    load_from_local,
    to_published,
    unwrap_state_dict,
)
from mmmamba.utils.cli import UsageError, run_tool


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint to read, of either layout')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--to',
        choices=['mmmamba', 'published'],
        default='mmmamba',
        help='layout to write (default: mmmamba)',
    )
    parser.add_argument(
        '--prefix',
        help="where the backbone sits in SRC (default: 'backbone.' if SRC is "
        'a whole model, else the top)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if Path(args.src).resolve() == Path(args.dst).resolve():
        raise UsageError('SRC and DST are the same file')
    try:
        checkpoint = load_from_local(args.src)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None

    tensors = backbone_state_dict(unwrap_state_dict(checkpoint), args.prefix)
    tensors = drop_heads(tensors)
    if is_published(tensors):
        tensors = {from_published(n): t for n, t in tensors.items()}
    arch = arch_name(tensors, MobileMamba.arch_zoo)
    if not arch.startswith(('arch ', 'a custom arch')):
        raise CheckpointError(f'{args.src} is {arch}')
    if arch.startswith('arch '):
        with torch.device('meta'):  # shapes are all that is needed
            check_fit(MobileMamba(arch[5:].split('/')[0]), tensors)

    if args.to == 'published':
        result = OrderedDict((to_published(n), t) for n, t in tensors.items())
    else:
        meta = dict(mmmamba_version=mmmamba.__version__, arch=arch)
        result = dict(meta=meta, state_dict=OrderedDict(tensors))
    save(result, Path(args.dst))
    print(
        f'Wrote {len(tensors)} tensors of {arch}, in the {args.to} layout, '
        f'to {args.dst}'
    )


def save(result: dict, path: Path) -> None:
    """Write a file that is either whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.tmp')
    torch.save(result, temporary)
    os.replace(temporary, path)


if __name__ == '__main__':
    run_tool(main)
