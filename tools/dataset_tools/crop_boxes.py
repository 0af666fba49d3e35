"""Cut the boxes of a COCO-format data set out as a classification data set.

Writes one folder of pictures a class, the layout of ImageNet, which
mmpretrain's ``CustomDataset`` and torchvision's ``ImageFolder`` read::

    OUT_DIR/
      <class name>/<image name>_<annotation id>.jpg ...
      crop_boxes.json      the options and the files; what --overwrite removes

A crop is a square around its box with some context. Near the border of the
image it is moved inside; where it is larger than the image, the image's
border pixels fill it up. A class without boxes gets an empty folder, so that
the classes of a training and of a validation set are numbered alike. The same
options give the same files.
"""

import argparse
import json
import os
import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

import cv2
import mmcv
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from mmmamba.datasets import (
    DatasetError,
    raise_errors,
    read_coco,
    right_coco,
)
from mmmamba.utils.cli import UsageError, run_tool

RECORD = 'crop_boxes.json'
#: What becomes of a box, in the order of the final table.
FATES = ('crowd', 'too small', 'over the maximum', 'written')


class Box(NamedTuple):
    """A box to cut out.

    Attributes:
        image (str): ``file_name`` of its image.
        corners (tuple): x1, y1, x2, y2, clipped to the image.
        target (str): Path of the crop, below OUT_DIR.
    """

    image: str
    corners: tuple[float, float, float, float]
    target: str


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Cut the boxes of a COCO-format data set out as a '
        'classification data set, one folder of pictures a class.'
    )
    parser.add_argument(
        'ann_file', type=Path, help='annotation file in COCO format'
    )
    parser.add_argument('img_dir', type=Path, help='folder of its images')
    parser.add_argument(
        'out_dir',
        type=Path,
        help='folder to write to, new or empty; training and validation '
        'boxes go to two',
    )
    parser.add_argument(
        '--context',
        type=float,
        default=0.1,
        metavar='SHARE',
        help="margin on each side, as a share of the box's longer side "
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--min-size',
        type=int,
        default=8,
        metavar='PIXELS',
        help='skip boxes whose shorter side, inside the image, is below this '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--max-per-class',
        type=int,
        metavar='N',
        help='most crops of a class, drawn by lot among its boxes (default: '
        'all)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='categories to cut out (default: all of the file)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of the lot of --max-per-class (default: %(default)s)',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace the crops an earlier run left in OUT_DIR; other files '
        'stay',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_options(args)
    content = read(args.ann_file, args.img_dir)
    names = select_classes(args, content['categories'])
    folders = class_folders(names.values())

    boxes, counts = collect_boxes(args, content, names, folders)
    choose_boxes(args, boxes, counts)
    chosen = [box for of_class in boxes.values() for box in of_class]
    if not chosen:
        print_table(counts)
        raise DatasetError(
            f'{args.ann_file} has no box to cut out; the table above says why'
        )
    for image in sorted({box.image for box in chosen}):
        if PurePath(image).is_absolute() or '..' in PurePath(image).parts:
            raise DatasetError(
                f'{args.ann_file} lists the image {image!r}, which is not '
                'below IMG_DIR: refused'
            )

    try:
        prepare_folder(args, folders.values(), chosen)
        write_crops(args, content['images'], chosen)
    except BaseException as error:
        remove_crops(args.out_dir)  # a part might pass for the whole
        if isinstance(error, OSError):
            raise UsageError(f'cannot write to OUT_DIR: {error}') from None
        raise
    print_table(counts)
    print(f'Wrote {len(chosen)} crops to {args.out_dir}')


def check_options(args: argparse.Namespace) -> None:
    """Refuse what cannot be carried out, before anything is read."""
    if not args.ann_file.is_file():
        raise UsageError(f'there is no annotation file {args.ann_file}')
    if not args.img_dir.is_dir():
        raise UsageError(f'there is no image folder {args.img_dir}')
    if not 0 <= args.context <= 10:
        raise UsageError(f'--context {args.context} must be within [0, 10]')
    if args.min_size < 1:
        raise UsageError(f'--min-size {args.min_size} must be at least 1')
    if args.max_per_class is not None and args.max_per_class < 1:
        raise UsageError(
            f'--max-per-class {args.max_per_class} must be at least 1'
        )
    if not args.out_dir.exists():
        return
    if not args.out_dir.is_dir():
        raise UsageError(f'OUT_DIR {args.out_dir} is a file, not a folder')
    if not any(args.out_dir.iterdir()):
        return
    if not (args.out_dir / RECORD).is_file():
        raise UsageError(
            f'{args.out_dir} holds files that this tool did not write (there '
            f'is no {RECORD}): choose another folder'
        )
    if not args.overwrite:
        raise UsageError(
            f'{args.out_dir} holds the crops of an earlier run: choose '
            'another folder, or pass --overwrite to replace them'
        )


def read(ann_file: Path, img_dir: Path) -> dict:
    """The annotations, made right as for training."""
    content, findings = right_coco(
        read_coco(ann_file), str(ann_file), str(img_dir)
    )
    raise_errors(findings)
    for finding in findings:
        if finding.severity == 'warning':
            print(f'warning: {finding.message}')
    return content


def select_classes(
    args: argparse.Namespace, categories: list[dict]
) -> dict[int, str]:
    """The names of the classes to cut out, by category id."""
    names = {c['id']: str(c['name']) for c in categories}
    unknown = set(args.classes or ()) - set(names.values())
    if unknown:
        raise UsageError(
            f'--classes {" ".join(sorted(unknown))}: {args.ann_file} has no '
            f'such category; it has {", ".join(names.values())}'
        )
    return {
        category_id: name
        for category_id, name in names.items()
        if not args.classes or name in args.classes
    }


def class_folders(names: Sequence[str]) -> dict[str, str]:
    """Name a folder for each class, which is nowhere but in OUT_DIR."""
    folders: dict[str, str] = {}
    for name in names:
        # Separators, control characters, and dots that hide a folder.
        folder = re.sub(r'[\x00-\x1f/\\:]|^\.+', '_', name) or '_'
        taken = [n for n, f in folders.items() if f == folder]
        if taken or name in folders:
            raise DatasetError(
                f'the categories {(taken or [name])[0]!r} and {name!r} would '
                f'share the folder {folder}: rename one of them in the file'
            )
        folders[name] = folder
    return folders


def collect_boxes(
    args: argparse.Namespace,
    content: dict,
    names: dict[int, str],
    folders: dict[str, str],
) -> tuple[dict[str, list[Box]], dict[str, Counter]]:
    """The usable boxes of each class, and what became of the others."""
    images = {image['id']: image for image in content['images']}
    boxes = {name: [] for name in names.values()}
    counts = {name: Counter() for name in names.values()}
    for annotation in content['annotations']:
        name = names.get(annotation['category_id'])
        if name is None:
            continue
        image = images[annotation['image_id']]
        x, y, width, height = annotation['bbox']
        left, right = max(x, 0), min(x + width, image['width'])
        top, bottom = max(y, 0), min(y + height, image['height'])
        if annotation['iscrowd']:
            counts[name]['crowd'] += 1
        elif min(right - left, bottom - top) < args.min_size:
            counts[name]['too small'] += 1
        else:
            stem = PurePath(image['file_name']).stem
            target = f'{folders[name]}/{stem}_{annotation["id"]}.jpg'
            corners = (left, top, right, bottom)
            boxes[name].append(Box(image['file_name'], corners, target))
    return boxes, counts


def choose_boxes(
    args: argparse.Namespace,
    boxes: dict[str, list[Box]],
    counts: dict[str, Counter],
) -> None:
    """Keep at most ``--max-per-class`` boxes of each class, in place."""
    for name, of_class in boxes.items():
        if args.max_per_class and len(of_class) > args.max_per_class:
            # By name: the lot of a class does not depend on the others.
            lot = random.Random(f'{args.seed} {name}')
            kept = lot.sample(of_class, args.max_per_class)
            counts[name]['over the maximum'] = len(of_class) - len(kept)
            boxes[name] = kept
        counts[name]['written'] = len(boxes[name])


def prepare_folder(
    args: argparse.Namespace, folders: Sequence[str], boxes: Sequence[Box]
) -> None:
    """Remove an earlier run's crops, write the record, make the folders."""
    remove_crops(args.out_dir)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    options = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(args).items()
    }
    record = dict(
        options=options,
        folders=list(folders),
        files=sorted(box.target for box in boxes),
    )
    (args.out_dir / RECORD).write_text(json.dumps(record, indent=1) + '\n')
    for folder in folders:
        (args.out_dir / folder).mkdir(exist_ok=True)


def remove_crops(out_dir: Path) -> None:
    """Remove what the record lists, and no other file."""
    path = out_dir / RECORD
    if not path.is_file():
        return
    try:
        record = json.loads(path.read_text())
        files = [PurePath(name) for name in record['files']]
        folders = [PurePath(name) for name in record['folders']]
    except (ValueError, TypeError, KeyError):
        raise UsageError(
            f'{path} is damaged: remove {out_dir} yourself, or choose another '
            'folder'
        ) from None
    for name in files + folders:
        # Files are made in these folders only, whatever the record says.
        if name.is_absolute() or '..' in name.parts:
            raise UsageError(f'{path} lists {name}, which is not below it')
    # os.path takes a name too long to exist for one that does not.
    for file in map(out_dir.joinpath, files):
        if os.path.isfile(file):
            file.unlink()
    for folder in map(out_dir.joinpath, folders):
        if os.path.isdir(folder) and not any(folder.iterdir()):
            folder.rmdir()
    path.unlink()


def write_crops(
    args: argparse.Namespace, images: list[dict], boxes: Sequence[Box]
) -> None:
    """Cut the boxes out; every image is read once."""
    by_image = defaultdict(list)
    for box in boxes:
        by_image[box.image].append(box)
    turned = {i['file_name'] for i in images if i.get('turned')}
    for name in track(sorted(by_image), 'Cutting boxes out'):
        path = args.img_dir / name
        # As it was annotated: with EXIF's turn or without.
        flag = 'color_ignore_orientation' if name in turned else 'color'
        image = mmcv.imread(path, flag)
        if image is None:
            raise DatasetError(f'{path} is damaged or no image')
        for box in by_image[name]:
            crop = crop_square(image, box.corners, args.context)
            write_image(args.out_dir / box.target, crop)


def crop_square(
    image: np.ndarray, corners: Sequence[float], context: float
) -> np.ndarray:
    """Cut a square around a box.

    Args:
        image (np.ndarray): ``(H, W, C)``.
        corners (Sequence[float]): x1, y1, x2, y2 of the box.
        context (float): Margin on each side, as a share of its longer side.

    Returns:
        np.ndarray: ``(S, S, C)``, S the longer side with both margins.
    """
    left, top, right, bottom = corners
    side = max(right - left, bottom - top) * (1 + 2 * context)
    side = max(1, round(side))
    x, x_pads = _place((left + right) / 2, side, image.shape[1])
    y, y_pads = _place((top + bottom) / 2, side, image.shape[0])
    crop = image[max(y, 0) : y + side, max(x, 0) : x + side]
    return cv2.copyMakeBorder(crop, *y_pads, *x_pads, cv2.BORDER_REPLICATE)


def _place(center: float, side: int, size: int) -> tuple[int, tuple[int, int]]:
    """Start of a span in an image of ``size``, and what lacks at both ends."""
    start = round(center - side / 2)
    if side <= size:
        start = min(max(start, 0), size - side)
    return start, (max(-start, 0), max(start + side - size, 0))


def write_image(path: Path, image: np.ndarray) -> None:
    """Encode and write; ``cv2.imwrite`` would hide a full disk."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 95]
    path.write_bytes(cv2.imencode('.jpg', image, options)[1].tobytes())


def print_table(counts: dict[str, Counter]) -> None:
    """Print how many boxes of each class came to what."""
    table = Table('class', *FATES)
    for column in table.columns[1:]:
        column.justify = 'right'
    for name, count in counts.items():
        table.add_row(escape(name), *(str(count[fate]) for fate in FATES))
    Console().print(table)


if __name__ == '__main__':
    run_tool(main)
