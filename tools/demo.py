"""Train a small detector on drawn shapes, evaluate it and show the result."""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from mmengine.runner import find_latest_checkpoint
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / 'configs/demo/atss_mobilemamba_mini_shapes.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/demo'),
        help='where checkpoints, logs and pictures go (default: '
        'work_dirs/demo)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    start = time.time()
    pictures = (args.work_dir / 'pictures').resolve()

    run(ROOT / 'tools/dataset_tools/make_shapes.py', 'data/shapes')
    train_start = time.time()
    train(args.work_dir)
    train_time = time.time() - train_start
    checkpoint = find_latest_checkpoint(args.work_dir)
    options = ('--work-dir', args.work_dir, '--show-dir', pictures)
    run(ROOT / 'tools/test.py', CONFIG, checkpoint, *options)

    # mmengine names a run's folder, log and metrics by its time stamp.
    test_run = max(p for p in args.work_dir.iterdir() if p.name[0].isdigit())
    metrics = json.loads((test_run / f'{test_run.name}.json').read_text())

    table = Table(title='A detector of drawn shapes, trained from scratch')
    table.add_column()
    table.add_column()
    table.add_row('AP', f'{metrics["coco/bbox_mAP"]:.3f}')
    table.add_row('AP50', f'{metrics["coco/bbox_mAP_50"]:.3f}')
    table.add_row('training', f'{train_time / 60:.1f} min')
    table.add_row('altogether', f'{(time.time() - start) / 60:.1f} min')
    table.add_row('checkpoint', checkpoint)
    table.add_row('log', str(test_run / f'{test_run.name}.log'))
    table.add_row('pictures', f'{pictures} (left true, right predicted)')
    Console(soft_wrap=True).print(table)


def train(work_dir: Path) -> None:
    """Train on batches of four, whatever there is to train on."""
    command = [ROOT / 'tools/train.py', CONFIG, '--work-dir', work_dir]
    if torch.cuda.is_available() or os.cpu_count() == 1:
        run(*command, '--cfg-options', 'train_dataloader.batch_size=4')
    else:
        # Two processes use two cores better than two threads of one do. As
        # dist_train.sh does it, but on any free port.
        launch = ['-m', 'torch.distributed.run', '--standalone']
        run(*launch, '--nproc_per_node=2', *command, '--launcher', 'pytorch')


def run(*arguments) -> None:
    """Run a tool with this Python; its output and its failure are ours."""
    result = subprocess.run([sys.executable, *map(str, arguments)])
    if result.returncode:
        sys.exit(result.returncode)


if __name__ == '__main__':
    main()
