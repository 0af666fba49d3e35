"""Draw the effective receptive field of backbones, side by side.

The gradient of the central location of a feature map (its channels summed)
with respect to the image, averaged over images: Luo et al., arXiv:1701.04128,
with the scaling and the area ratios of RepLKNet, arXiv:2203.06717. The picture
is log10(1 + contribution) over its maximum. A fraction t of it lies within a
centred square; listed are its side in pixels and its area over the image's.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from mmmamba.utils.analysis.erf import (
    effective_receptive_field,
    high_contribution_area,
    log_scale,
)
from mmmamba.utils.analysis.models import (
    NAME_HELP,
    FeatureMap,
    build_feature_map,
)
from mmmamba.utils.analysis.tables import write_csv
from mmmamba.utils.cli import (
    UsageError,
    output_file,
    picture_file,
    positive_int,
    run_tool,
    torch_device,
)

FRACTIONS = (0.2, 0.3, 0.5, 0.99)
SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')
# Of ImageNet, RGB, as all models here are trained with.
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: visualize_erf.py mobilemamba:b1 timm:resnet50 '
        '--checkpoints mobilemamba_b1.pth pretrained --stages 1,2,3 3,4,5 '
        '--input-size 256 --images data/coco/val2017',
    )
    parser.add_argument(
        'models', nargs='+', metavar='MODEL', help=f'each {NAME_HELP}'
    )
    parser.add_argument(
        '--stages',
        '--stage',
        type=stage_list,
        nargs='+',
        metavar='K,K',
        help='feature maps to draw, from 1, as their package counts them: '
        "ours are 1 to 3, timm's ResNets begin with the stem; one list for "
        'all models or one for each, in their order (default: the last)',
    )
    parser.add_argument(
        '--checkpoints',
        '--checkpoint',
        nargs='+',
        metavar='FILE',
        help="one for each model, in their order: a file with the model's "
        "weights, 'pretrained' for those timm or mmpretrain download, or "
        "'none' (default: none, the weights are random)",
    )
    parser.add_argument(
        '--images',
        type=Path,
        metavar='DIR',
        help='a folder of images or one image (default: Gaussian noise)',
    )
    parser.add_argument(
        '--num-images',
        type=positive_int,
        default=50,
        help='how many to average over, the first by name (default: 50)',
    )
    parser.add_argument(
        '--input-size',
        type=positive_int,
        metavar='PX',
        help='side of the images, the same for all models (default: of each '
        'model what its name says). In multiples of 128 the maps have even '
        'sizes and their central location lies in the middle of the image',
    )
    parser.add_argument(
        '--absolute',
        action='store_true',
        help='take the absolute gradient of the feature; by default, as in '
        'RepLKNet, the positive part of the gradient of its positive part',
    )
    parser.add_argument(
        '--linear',
        action='store_true',
        help='measure areas on the contributions themselves, not on their '
        'logarithm, on which RepLKNet measures them',
    )
    parser.add_argument(
        '--out',
        type=picture_file,
        default=Path('erf.png'),
        help='where the picture goes; the contributions, not scaled, go next '
        'to it as .npz (default: erf.png)',
    )
    parser.add_argument(
        '--csv', type=output_file, help='also write the table here'
    )
    parser.add_argument(
        '--device',
        type=torch_device,
        default='cuda:0' if torch.cuda.is_available() else 'cpu',
        help='default: the first GPU if there is one',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='of noise and random weights (default: 0)',
    )
    args = parser.parse_args()
    stages = args.stages or [[None]]
    if len(stages) not in (1, len(args.models)):
        parser.error(
            '--stages takes one list for all or one for each of the '
            f'{len(args.models)} models, got {len(stages)}'
        )
    args.stages = stages * (len(args.models) // len(stages))
    if args.checkpoints and len(args.checkpoints) != len(args.models):
        parser.error(
            f'--checkpoints takes one for each of the {len(args.models)} '
            f"models, got {len(args.checkpoints)}; 'none' leaves one out"
        )
    return args


def stage_list(text: str) -> list[int]:
    """The stages that an option names, from 1."""
    try:
        stages = [int(number) for number in text.split(',')]
    except ValueError:
        stages = [0]
    if min(stages) < 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no list of stages from 1 on, such as 1,2,3'
        )
    return stages


def list_images(path: Path, most: int) -> list[Path]:
    """The first image files of a folder, or the one file."""
    if path.is_file():
        return [path]
    files = sorted(p for p in path.rglob('*') if p.suffix.lower() in SUFFIXES)
    if not files:
        raise UsageError(f'--images {path}: there are no images')
    if len(files) < most:
        print(f'{path} has {len(files)} images: averaging over them')
    return files[:most]


def read_image(path: Path, height: int, width: int) -> Tensor:
    """Read, resize and crop the centre; ``(1, 3, H, W)``, normalized."""
    image = cv2.imread(str(path))
    if image is None:
        raise UsageError(f'{path} is no readable image')
    scale = max(height / image.shape[0], width / image.shape[1])
    size = [
        max(round(n * scale), m) for n, m in zip(image.shape, (height, width))
    ]
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    image = image[top : top + height, left : left + width, ::-1]
    image = (image.astype(np.float32) - MEAN) / STD
    return torch.from_numpy(image.transpose(2, 0, 1).copy())[None]


def make_images(
    files: list[Path] | None, shape: tuple[int, int], args, title: str
) -> Iterator[Tensor]:
    """Batches of one image, with a progress bar."""
    rng = torch.Generator().manual_seed(args.seed)
    steps = files or range(args.num_images)
    for step in track(steps, title):
        if files:
            image = read_image(step, *shape)
        else:
            image = torch.randn(1, 3, *shape, generator=rng)
        yield image.to(args.device)


def build(name: str, stage: int | None, checkpoint: str, args) -> FeatureMap:
    shape = (args.input_size,) * 2 if args.input_size else None
    file = None if checkpoint == 'none' else checkpoint
    torch.manual_seed(args.seed)
    return build_feature_map(name, stage, file, shape).to(args.device)


def measure(
    model: FeatureMap, weights: str, contributions: np.ndarray, linear: bool
) -> dict:
    """A row of the table."""
    row = {
        'model': model.name,
        'stage': model.stage or 'last',
        'weights': weights,
    }
    if not contributions.any():
        raise UsageError(
            f'{model.name}, stage {row["stage"]}: no gradient reaches the '
            'image; --absolute does without the positive part'
        )
    if not linear:
        contributions = log_scale(contributions)
    for fraction in FRACTIONS:
        side, ratio = high_contribution_area(contributions, fraction)
        row[f't = {fraction:.0%} px'] = side
        row[f't = {fraction:.0%} area'] = ratio
    return row


def report(rows: list[dict], linear: bool) -> None:
    scale = 'contributions' if linear else 'log10(1 + contributions)'
    table = Table(
        title='Effective receptive field',
        caption=f'squares that hold t of {scale}, and their share of the area',
    )
    for column in ('model', 'stage', 'weights'):
        table.add_column(column)
    for fraction in FRACTIONS:
        table.add_column(f't = {fraction:.0%}', justify='right')
    for row in rows:
        squares = (
            f'{row[f"t = {t:.0%} px"]} px, {row[f"t = {t:.0%} area"]:.1%}'
            for t in FRACTIONS
        )
        weights = Path(row['weights']).stem
        table.add_row(row['model'], str(row['stage']), weights, *squares)
    Console(width=140).print(table)


def draw(path: Path, fields: list[list[np.ndarray]], rows: list[dict]) -> None:
    """A line of pictures for each model, or one for all of a single stage."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    columns = max(map(len, fields))
    if columns == 1:
        fields = [[field for line in fields for field in line]]
        columns = len(fields[0])
    figure, axes = plt.subplots(
        len(fields),
        columns,
        figsize=(3 * columns, 3.5 * len(fields)),
        squeeze=False,
        layout='constrained',
    )
    for axis in axes.flat:
        axis.set_axis_off()
    used = (axes[i, j] for i, f in enumerate(fields) for j in range(len(f)))
    flat = (field for line in fields for field in line)
    for axis, field, row in zip(used, flat, rows):
        axis.imshow(log_scale(field), cmap='viridis', vmin=0, vmax=1)
        areas = ' / '.join(
            f'{100 * row[f"t = {t:.0%} area"]:.1f}' for t in FRACTIONS
        )
        weights = Path(row['weights']).stem
        axis.set_title(
            f'{row["model"]}\nstage {row["stage"]}, {weights}\n{areas} %',
            fontsize=8,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    args = parse_args()
    files = list_images(args.images, args.num_images) if args.images else None
    checkpoints = args.checkpoints or ['none'] * len(args.models)
    fields, rows = [], []
    for name, checkpoint, stages in zip(args.models, checkpoints, args.stages):
        weights = 'random' if checkpoint == 'none' else checkpoint
        fields.append([])
        for stage in stages:
            model = build(name, stage, checkpoint, args)
            title = f'{model.name}, stage {stage or "last"}'
            images = make_images(files, model.shape, args, title)
            field = effective_receptive_field(
                model, images, positive=not args.absolute
            )
            rows.append(measure(model, weights, field, args.linear))
            fields[-1].append(field)
    report(rows, args.linear)
    draw(args.out, fields, rows)
    raw = args.out.with_suffix('.npz')
    names = ['{model}, stage {stage}, {weights}'.format(**r) for r in rows]
    np.savez(raw, **dict(zip(names, sum(fields, []))))
    print(f'Drawn to {args.out}; contributions in {raw}')
    if args.csv:
        write_csv(args.csv, rows)
        print(f'Written to {args.csv}')


if __name__ == '__main__':
    run_tool(main)
