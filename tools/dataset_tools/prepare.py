"""Make a data set and a config of images that were annotated elsewhere.

Reads COCO (also Roboflow's and CVAT's), CVAT's XML, Pascal VOC, YOLO, labelme,
Label Studio, and label maps. Writes the layout of COCO, or of ADE20K for label
maps, with a config that is ready to train. docs/prepare.md shows the layouts.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmmamba.datasets.findings import listing
from mmmamba.datasets.formats import (
    FORMATS,
    Annotated,
    Source,
    read_annotated,
    split_samples,
    time_saved,
    write_dataset,
)
from mmmamba.utils.cli import UsageError, run_tool
from mmmamba.utils.starter_config import (
    ARCHS,
    BOX_METHODS,
    HEADER,
    MAP_METHODS,
    Plan,
    choose_size,
    write_config,
)

TOOLS = Path(__file__).resolve().parents[1]
SPLITS = ('train', 'val', 'test')
SSDLITE_SIZE = 320  # its anchors are in pixels of this size


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'source', type=Path, help='folder of the images and annotations'
    )
    parser.add_argument(
        'dst',
        type=Path,
        help='folder to write to, new or empty (but see --overwrite)',
    )
    parser.add_argument(
        '--format',
        choices=FORMATS,
        help='format of the annotations (default: found out by the files)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='class names in the order of their numbers, for YOLO labels and '
        'label maps that come without',
    )
    parser.add_argument(
        '--ignore',
        nargs='+',
        type=int,
        default=[],
        metavar='LABEL',
        help='label maps: numbers that belong to no class, as 255 mostly does',
    )
    parser.add_argument(
        '--difficult',
        choices=('keep', 'ignore', 'drop'),
        default='keep',
        help='Pascal VOC: objects marked difficult; "ignore" makes them count '
        'neither as found nor as missed, as in its own evaluation, though '
        'most detectors learn them as background '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--boxes',
        choices=('xywh', 'xyxy', 'normalized'),
        default='xywh',
        help='COCO: boxes that are not its own x, y, width, height, but '
        'corners, or fractions of the image (default: %(default)s)',
    )
    parser.add_argument(
        '--val-fraction',
        type=float,
        default=0.2,
        metavar='SHARE',
        help='share of the images for validation, where the source has no '
        'such split (default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the lot of --val-fraction (default: %(default)s)',
    )
    parser.add_argument(
        '--copy',
        action='store_true',
        help='copy the images; by default they are links to SOURCE',
    )
    parser.add_argument(
        '--max-size',
        type=int,
        metavar='PIXELS',
        help='write images whose longer side is above this smaller, which '
        'saves decoding time',
    )
    parser.add_argument(
        '--method',
        choices=[*BOX_METHODS, *MAP_METHODS],
        help='of the config (default: atss, for label maps fpn)',
    )
    parser.add_argument(
        '--arch',
        choices=ARCHS,
        default='t2',
        help='of the backbone (default: %(default)s)',
    )
    parser.add_argument(
        '--image-size',
        type=int,
        metavar='PIXELS',
        help='longer side of what the network sees (default: 320); for label '
        'maps the shorter side (default: that of the images, at most 360)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a DST that this tool made',
    )
    parser.add_argument(
        '--no-check',
        action='store_true',
        help='do not run check_dataset.py at the end',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_options(args)
    source = Source(args.source)
    found = read_annotated(
        source,
        args.format,
        args.classes,
        tuple(args.ignore),
        args.difficult,
        args.boxes,
    )
    keep_images(args.dst, found)
    method = choose_method(args, source, found)
    image_size = choose_size(found, method, args.image_size)
    what = split_samples(found, args.val_fraction, args.seed)

    # Under another name until it is whole: a part might pass for it.
    part = args.dst.with_name(f'.{args.dst.name}.part')
    work_dir = f'./work_dirs/{args.dst.name}'
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_dataset(found, part, args.copy, args.max_size)
        saved = time_saved(found, part) if args.max_size else None
        plan = write_config(
            part / 'config.py', found, method, args.arch, image_size, work_dir
        )
        Config.fromfile(part / 'config.py')  # it must load
        replace(part, args.dst)
    except OSError as error:
        raise UsageError(f'cannot write to DST: {error}') from None
    finally:
        shutil.rmtree(part, ignore_errors=True)

    report(found, what)
    describe(args, plan, method, image_size, saved)
    check = TOOLS / 'dataset_tools/check_dataset.py'
    if check.is_file() and not args.no_check:
        sys.stdout.flush()
        # Every image has been decoded above.
        command = [sys.executable, check, args.dst / 'config.py']
        command += ['--sample', '100']
        if subprocess.run(command).returncode:
            raise UsageError(
                f'{args.dst} is written, but cannot be trained on yet: '
                'check_dataset.py says above what is wrong'
            )
    print_commands(args, found, work_dir)


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be carried out, before anything is read."""
    args.dst = Path(os.path.abspath(args.dst))
    if not 0 < args.val_fraction < 1:
        raise UsageError(
            f'--val-fraction {args.val_fraction} must be between 0 and 1'
        )
    for name, least in (('max_size', 64), ('image_size', 96)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UsageError(
                f'--{name.replace("_", "-")} {value} must be at least {least}'
            )
    if args.dst.resolve().is_relative_to(args.source.resolve()):
        raise UsageError(
            f'DST {args.dst} is inside SOURCE: choose a folder elsewhere'
        )
    if args.source.resolve().is_relative_to(args.dst.resolve()):
        raise UsageError(f'SOURCE {args.source} is inside DST {args.dst}')
    if args.dst.exists() and not args.dst.is_dir():
        raise UsageError(f'DST {args.dst} is a file, not a folder')
    if args.dst.is_dir() and any(args.dst.iterdir()):
        others = not_ours(args.dst)
        if others:
            raise UsageError(
                f'DST {args.dst} is not empty and has what this tool did not '
                f'write ({others}): remove it, or choose another folder'
            )
        if not args.overwrite:
            raise UsageError(
                f'DST {args.dst} is not empty: --overwrite replaces it, or '
                'choose another folder'
            )


def not_ours(dst: Path) -> str:
    """What of a folder this tool did not write; nothing if it wrote all."""
    config = dst / 'config.py'
    if dst.is_symlink():
        return 'it is a link'
    if not config.is_file():
        return 'it has no config.py'
    if not config.read_text('utf-8', 'replace').startswith(HEADER):
        return str(config)
    written = {'config.py', 'annotations', 'images', *SPLITS}
    return listing(sorted({f.name for f in dst.iterdir()} - written))


def keep_images(dst: Path, found: Annotated) -> None:
    """Refuse to replace a folder that images are linked from."""
    for sample in found.samples:
        if sample.image.resolve().is_relative_to(dst.resolve()):
            raise UsageError(
                f'DST {dst} has images of SOURCE, such as {sample.image}: '
                'choose another folder'
            )


def replace(part: Path, dst: Path) -> None:
    """Move a folder to where another one may be."""
    old = dst.with_name(f'.{dst.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if dst.exists():
        dst.replace(old)
    part.replace(dst)
    shutil.rmtree(old, ignore_errors=True)


def choose_method(
    args: argparse.Namespace, source: Source, found: Annotated
) -> str:
    """The method that was asked for or the default."""
    methods = MAP_METHODS if found.read_map else BOX_METHODS
    method = args.method or next(iter(methods))
    kind = 'label maps' if found.read_map else 'boxes'
    if method not in methods:
        raise UsageError(
            f'--method {method} does not learn from {kind}: choose '
            f'{", ".join(methods)}'
        )
    if method == 'mask_rcnn':
        shapes = [i.segmentation for s in found.samples for i in s.instances]
        if not any(shapes):
            raise UsageError(
                '--method mask_rcnn learns outlines, but all objects have a '
                'box alone: annotate polygons, or choose --method atss'
            )
        for sample in found.samples:
            for instance in sample.instances:
                if not instance.segmentation:
                    found.notes.add(
                        'object without outline (its box is its mask)',
                        source.name(sample.image),
                    )
    if method == 'ssdlite' and args.image_size not in (None, SSDLITE_SIZE):
        raise UsageError(
            f'--image-size {args.image_size}: the anchors of ssdlite are for '
            f'{SSDLITE_SIZE} pixels; choose --method atss'
        )
    return method


def report(found: Annotated, what: str) -> None:
    """Print the images of each class and split, and what was left out."""
    console = Console()
    splits = [s for s in SPLITS if any(x.split == s for x in found.samples)]
    counts = {
        split: Counter(
            label
            for sample in found.samples
            if sample.split == split
            for label in sample.labels
        )
        for split in splits
    }
    table = Table('class', *splits, title=f'{found.format}: images with it')
    for name in found.classes:
        table.add_row(escape(name), *(str(counts[s][name]) for s in splits))
    table.add_section()
    totals = Counter(sample.split for sample in found.samples)
    table.add_row('all images', *(str(totals[split]) for split in splits))
    for column in table.columns[1:]:
        column.justify = 'right'
    console.print(table)
    print(f'{what}.')
    unseen = [name for name in found.classes if not counts['train'][name]]
    if unseen:
        print(f'No training image has: {", ".join(unseen)}.')
    if not found.notes:
        print('Nothing was left out.')
        return
    table = Table('left out or changed', 'times', 'for example')
    table.columns[1].justify = 'right'
    for reason, names in found.notes.items():
        table.add_row(escape(reason), str(len(names)), escape(names[0]))
    console.print(table)


def describe(
    args: argparse.Namespace,
    plan: Plan,
    method: str,
    image_size: tuple[int, int],
    saved: float | None,
) -> None:
    """Print what the config does."""
    if saved is not None:
        print(
            f'--max-size {args.max_size}: decoding the training images takes '
            f'{saved:.1f} s less an epoch.'
        )
    if any(path.is_symlink() for path in args.dst.rglob('*')):
        print(f'The images are links to {args.source}: keep it, or --copy.')
    size = '{} x {}'.format(*image_size)
    if method in MAP_METHODS:
        size = f'at least {image_size[1]}'
    print(
        f'{args.dst / "config.py"}: {method} on MobileMamba-{args.arch}, '
        f'images of {size} px, batches of {plan.batch_size}, '
        f'{plan.iterations} iterations ({plan.epochs} epochs), the first '
        f'{plan.warmup} with a growing learning rate.'
    )


def print_commands(
    args: argparse.Namespace, found: Annotated, work_dir: str
) -> None:
    """Print what to run next."""
    tools = Path(os.path.relpath(TOOLS))
    dst = Path(os.path.relpath(args.dst))
    if '..' in dst.parts:
        dst = args.dst
    config = shlex.quote(str(dst / 'config.py'))
    images = dst / ('images/validation' if found.read_map else 'val')
    best = f'{shlex.quote(work_dir)}/best_*.pth'
    print(
        '\nTrain, test, predict:\n'
        f'  python {tools / "train.py"} {config}\n'
        f'  python {tools / "test.py"} {config} {best}\n'
        f'  python {tools / "image_demo.py"} {shlex.quote(str(images))} '
        f'{config} {best}'
    )


if __name__ == '__main__':
    run_tool(main)
