"""Convert a backbone checkpoint between the published layout and ours.

Reads any container (bare, state_dict, net, net_E, model), of a classifier or
of a whole detector or segmentor, and writes the backbone alone: for ours as
an mmengine checkpoint, for the published layout as a bare state dict.
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import torch

import mmmamba
from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import (
    CheckpointError,
    arch_name,
    backbone_state_dict,
    drop_heads,
    from_published,
    is_published,
    load_from_local,
    refuse_deployed,
    to_published,
    unwrap_state_dict,
)
from mmmamba.utils.cli import UsageError, run_tool
from mmmamba.utils.files import whole_or_nothing
from mmmamba.utils.whole_backbone import check_whole


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
    if Path(args.dst).is_dir():
        raise UsageError(f'DST {args.dst} is a directory')
    try:
        tensors, arch = read(args.src, args.prefix)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from None
    except CheckpointError as error:
        if args.src in str(error):
            raise
        raise CheckpointError(f'{args.src}: {error}') from None

    if args.to == 'published':
        result = OrderedDict((to_published(n), t) for n, t in tensors.items())
    else:
        meta = dict(mmmamba_version=mmmamba.__version__, arch=arch)
        result = dict(meta=meta, state_dict=tensors)
    try:
        with whole_or_nothing(Path(args.dst)) as temporary:
            torch.save(result, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch raises both
        raise UsageError(f'cannot write {args.dst}: {error}') from None
    print(
        f'Wrote {len(tensors)} tensors of {arch}, in the {args.to} layout, '
        f'to {args.dst}'
    )


def read(src: str, prefix: str | None) -> tuple[OrderedDict, str]:
    """The backbone's tensors by our names, and the name of its arch."""
    tensors = unwrap_state_dict(load_from_local(src))
    tensors = drop_heads(backbone_state_dict(tensors, prefix))
    refuse_deployed(tensors)
    if is_published(tensors):
        tensors = OrderedDict(
            (from_published(n), t) for n, t in tensors.items()
        )
    arch = arch_name(tensors, MobileMamba.arch_zoo)
    if not arch.startswith(('arch ', 'a custom arch')):
        raise CheckpointError(f'this is {arch}')
    if arch.startswith('arch '):
        check_whole(arch.removeprefix('arch ').split('/')[0], tensors)
    return tensors, arch


if __name__ == '__main__':
    run_tool(main)
