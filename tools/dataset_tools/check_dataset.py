"""Check the data sets of a config: what is in them, and what is wrong."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mmengine.config import Config
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mmmamba.datasets import Report, inspect_datasets
from mmmamba.datasets.config import unwrapped
from mmmamba.datasets.loaded import Summary
from mmmamba.utils.cli import (
    add_cfg_options,
    load_config,
    output_file,
    positive_int,
    run_tool,
)

SPLITS = ('train', 'val', 'test')
COLOURS = dict(error='bold red', warning='yellow', info='cyan')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='The exit status is 1 if training would fail, lose everything '
        'or learn wrong labels, else 0.',
    )
    parser.add_argument('config', help='train config file path')
    parser.add_argument(
        '--json',
        type=output_file,
        metavar='FILE',
        help='write findings and counts to this file, too',
    )
    parser.add_argument(
        '--show-dir',
        type=Path,
        metavar='DIR',
        help='draw samples of each split as the network sees them, with '
        'their boxes, masks or labels, and histograms of classes and sizes',
    )
    parser.add_argument(
        '--sample',
        type=positive_int,
        metavar='N',
        help='open N images and N label maps of each data set only (default: '
        'all)',
    )
    parser.add_argument(
        '--work-dir',
        help='directory that remembers which images decoded (default: that '
        'of the training)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    report = inspect_datasets(cfg, SPLITS, args.sample, args.sample)
    console = Console(soft_wrap=True)
    for split, summary in report.splits.items():
        console.print(split_table(split, summary))
    console.print(findings_table(report))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(as_json(report), indent=2))
    if args.show_dir and report.splits:
        draw(cfg, report, args.show_dir)
        console.print(f'Pictures are in {args.show_dir}')
    if any(f.severity == 'error' for f in report.findings):
        sys.exit(1)


def draw(cfg: Config, report: Report, folder: Path) -> None:
    """Draw the splits that loaded."""
    from mmmamba.utils.analysis.dataset_pictures import (
        draw_histograms,
        draw_samples,
    )

    folder.mkdir(parents=True, exist_ok=True)
    draw_histograms(report.splits, folder / 'histograms.png')
    broken = {f.split for f in report.findings if f.severity == 'error'}
    for split in report.splits.keys() - broken:
        dataset = unwrapped(cfg[f'{split}_dataloader'].dataset)
        steps = [step['type'] for step in dataset.get('pipeline', ())]
        if 'LoadAnnotations' in steps:
            draw_samples(cfg, dataset, folder / f'{split}.png')


def split_table(split: str, summary: Summary) -> Table:
    """What one split has, as loaded."""
    table = Table('', split)
    table.add_row('images listed', str(summary.images))
    table.add_row('images used', str(summary.used_images))
    table.add_row('images without objects', str(summary.empty_images))
    unit = 'pixels' if summary.map_paths else 'objects'
    table.add_row(f'{unit} used', f'{summary.objects:,}')
    for name, count in summary.classes.items():
        table.add_row(f'  {escape(name)}', f'{count:,}')
    table.add_row('image sizes', extent(summary.image_sizes))
    if summary.box_sizes:
        table.add_row('box sizes', extent(summary.box_sizes))
    return table


def extent(sizes: Sequence[tuple[float, float]]) -> str:
    """The smallest, median and largest width and height."""
    if not sizes:
        return ''
    low, middle, high = np.percentile(np.asarray(sizes), (0, 50, 100), axis=0)
    return ', '.join(
        f'{name} {size[0]:.0f}x{size[1]:.0f}'
        for name, size in (('from', low), ('median', middle), ('to', high))
    )


def findings_table(report: Report) -> Table | str:
    """All findings, the worst first."""
    if not report.findings:
        return 'Nothing was found that is wrong.'
    table = Table('', 'split', 'kind', 'count', 'what to do', show_lines=True)
    for f in report.findings:
        severity = f'[{COLOURS[f.severity]}]{f.severity}[/]'
        row = (f.split, f.kind, str(f.count), escape(f.message))
        table.add_row(severity, *row)
    return table


def as_json(report: Report) -> dict:
    """The report as numbers, texts and lists."""
    return dict(
        findings=[asdict(finding) for finding in report.findings],
        splits={
            split: dict(
                images=s.images,
                images_used=s.used_images,
                images_without_objects=s.empty_images,
                annotations_used=s.objects,
                classes=s.classes,
            )
            for split, s in report.splits.items()
        },
    )


if __name__ == '__main__':
    run_tool(main)
