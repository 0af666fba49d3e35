"""Throughput and latency of models, side by side.

All contenders (a model in one mode, dtype and layout) take turns, round by
round, so that their ratios hold on a machine whose speed changes; figures are
medians of the rounds with their quartiles. Weights are random.
"""

import argparse
import copy
import csv
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._inductor.config
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from mmmamba.ops import describe_backends
from mmmamba.utils.analysis import analyze_complexity
from mmmamba.utils.analysis.cuda_graph import capture
from mmmamba.utils.analysis.exported import RUNTIMES, ExportedFile
from mmmamba.utils.analysis.models import (
    NAME_HELP,
    PARTS,
    NamedModel,
    build_model,
    fuse_model,
)
from mmmamba.utils.cli import UsageError, run_tool

MODES = ('eager', 'compiled', 'cudagraph', 'compiled-cudagraph')
DTYPES = dict(
    float32=torch.float32,
    tf32=torch.float32,
    bfloat16=torch.bfloat16,
    float16=torch.float16,
)
#: A measurement takes at least this long, so that the clock does not matter.
SECONDS = 0.05


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: benchmark.py configs/cls/mobilemamba_t2.py '
        'timm:efficientvit_m2@224 --fuse --batch-sizes 1 16 '
        '--modes eager compiled --threads 2',
    )
    parser.add_argument(
        'models',
        nargs='+',
        metavar='MODEL',
        help=f'each {NAME_HELP}; or ort:FILE or openvino:FILE, an exported '
        'model (docs/export.md), which runs in a process of its own',
    )
    parser.add_argument(
        '--reference',
        metavar='MODEL',
        help='the model that ratios are to (default: the first)',
    )
    parser.add_argument(
        '--part',
        choices=PARTS,
        default='tensor',
        help='what is run: the whole model without post-processing (default), '
        'with it, where it has one (of random predictions), or the backbone',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help='fold batch norms and branches first, as far as they can be: '
        'switch_to_deploy, timm.utils.reparameterize_model, then each norm '
        'after a convolution',
    )
    parser.add_argument(
        '--batch-sizes',
        '--batch-size',
        type=int,
        nargs='+',
        default=[1],
        metavar='N',
        help='images (default: 1)',
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', help='default: cpu'
    )
    parser.add_argument(
        '--dtypes',
        '--dtype',
        nargs='+',
        choices=DTYPES,
        default=['float32'],
        metavar='DTYPE',
        help='of weights and images: float32, bfloat16, float16; on CUDA also '
        'tf32, which is float32 with '
        'TensorFloat-32 in convolutions and products (default: float32)',
    )
    parser.add_argument(
        '--modes',
        '--mode',
        nargs='+',
        choices=MODES,
        default=['eager'],
        metavar='MODE',
        help='eager; compiled, by torch.compile with frozen weights; on CUDA '
        'also cudagraph and compiled-cudagraph, either of them captured in a '
        'CUDA graph. With several, the fastest of each model is listed as its '
        'best (default: eager)',
    )
    parser.add_argument(
        '--channels-last',
        nargs='?',
        const='only',
        choices=['only', 'both'],
        help='weights and images in channels_last layout; both: in either '
        'layout, as with several modes',
    )
    parser.add_argument(
        '--threads',
        type=int,
        default=torch.get_num_threads(),
        help='threads on the CPU (default: as PyTorch chooses)',
    )
    parser.add_argument(
        '--rounds', type=int, default=20, help='rounds (default: 20)'
    )
    parser.add_argument(
        '--warmup',
        type=int,
        default=3,
        help='calls of each contender before the rounds, the compiling one '
        'not counted (default: 3)',
    )
    parser.add_argument('--csv', type=Path, help='also write the rows here')
    parser.add_argument(
        '--plot',
        type=Path,
        help="draw each model's best throughput against its FLOPs, or "
        'accuracy if given, here (a PNG, say)',
    )
    parser.add_argument(
        '--accuracy',
        type=float,
        nargs='+',
        metavar='TOP1',
        help='one for each model, in their order: a column and the axis of '
        'the plot',
    )
    parser.add_argument(
        '--profile',
        type=int,
        nargs='?',
        const=15,
        default=0,
        metavar='N',
        help='list the N operators that take most time in each contender '
        '(default: 15)',
    )
    parser.add_argument(
        '--by-shape',
        action='store_true',
        help='in the profile, list an operator for each shape of its inputs',
    )
    args = parser.parse_args()
    for option in ('rounds', 'warmup', 'threads'):
        if getattr(args, option) < 1:
            parser.error(f'--{option} must be at least 1')
    if min(args.batch_sizes) < 1:
        parser.error('--batch-sizes must be at least 1')
    if args.accuracy and len(args.accuracy) != len(args.models):
        parser.error(
            f'--accuracy takes a number for each of the {len(args.models)} '
            f'models, got {len(args.accuracy)}'
        )
    exported = [m for m in args.models if m.partition(':')[0] in RUNTIMES]
    if exported and (args.device != 'cpu' or args.plot and not args.accuracy):
        parser.error(
            f'{exported[0]} is timed on the CPU, and its FLOPs are not known: '
            'no --device cuda, and no --plot without --accuracy'
        )
    if args.device == 'cpu':
        if 'tf32' in args.dtypes:
            parser.error('--dtypes tf32 is of CUDA: add --device cuda')
        if any('cudagraph' in mode for mode in args.modes):
            parser.error('CUDA graphs are of CUDA: add --device cuda')
    return args


@dataclass
class Entry:
    """A model and what does not depend on how it is run."""

    model: NamedModel | ExportedFile
    params: int | None
    flops: float | None
    accuracy: float | None = None


@dataclass
class Contender:
    """A model in one mode, dtype and layout, on images of one batch size."""

    entry: Entry
    mode: str
    dtype: str
    call: Callable
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Model, mode and dtype."""
        return f'{self.entry.model.name}, {self.mode}, {self.dtype}'

    def time(self, repeats: int) -> float:
        """Mean seconds of a call."""
        if isinstance(self.entry.model, ExportedFile):
            return self.entry.model.time(repeats)
        set_tf32(self.dtype == 'tf32')
        if next(self.entry.model.parameters()).is_cuda:
            start, end = (torch.cuda.Event(True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            for _ in range(repeats):
                self.call()
            end.record()
            torch.cuda.synchronize()
            return start.elapsed_time(end) / 1e3 / repeats
        start = time.perf_counter()
        for _ in range(repeats):
            self.call()
        return (time.perf_counter() - start) / repeats


# ---------------------------------------------------------------------------
# Preparing
# ---------------------------------------------------------------------------


def build_entries(args: argparse.Namespace) -> list[Entry]:
    """Build, count and fuse the models."""
    entries = []
    for i, name in enumerate(track(args.models, 'building')):
        accuracy = args.accuracy[i] if args.accuracy else None
        if name.partition(':')[0] in RUNTIMES:
            entries.append(Entry(ExportedFile(name), None, None, accuracy))
            continue
        # Post-processing has nothing to count or fuse.
        part = 'tensor' if args.part == 'predict' else args.part
        model = build_model(name, part)
        # Before fusing: these figures are for comparison with published ones.
        params, flops = analyze_complexity(model, model.shape)
        total = flops.total()
        if args.fuse:
            fuse_model(model)
        model.part = args.part
        entries.append(Entry(model.to(args.device), params, total, accuracy))
    return entries


def make_contenders(
    entries: list[Entry], batch_size: int, args: argparse.Namespace
) -> list[Contender]:
    """Each model in each mode, dtype and layout, warmed up."""
    layouts = dict(only=[True], both=[False, True])
    contenders = []
    for dtype in args.dtypes:
        for entry in entries:
            if isinstance(entry.model, ExportedFile):
                if dtype == args.dtypes[0]:
                    start = partial(
                        entry.model.start, batch_size, args.threads
                    )
                    mode = entry.model.runtime
                    contenders.append(Contender(entry, mode, 'file', start))
                continue
            for channels_last in layouts.get(args.channels_last, [False]):
                layout = (
                    torch.channels_last
                    if channels_last
                    else torch.contiguous_format
                )
                model = copy.deepcopy(entry.model)
                model = model.to(DTYPES[dtype], memory_format=layout)
                images = torch.rand(
                    batch_size, 3, *model.shape, device=args.device
                ).to(DTYPES[dtype], memory_format=layout)
                suffix = ' channels_last' if channels_last else ''
                for mode in args.modes:
                    call = make_call(model, images, mode, bool(args.profile))
                    contenders.append(
                        Contender(entry, mode + suffix, dtype, call)
                    )
    return [c for c in track(contenders, 'warming up') if warm_up(c, args)]


def make_call(
    model: nn.Module, images: Tensor, mode: str, profile: bool
) -> Callable:
    """A function without arguments that runs the model once."""

    def forward(images: Tensor = images):
        return model(images)

    if 'compiled' in mode:
        # dynamo keeps what it compiles by code object: with one of its own,
        # a model does not pay for checks whether it is another one.
        name = f'forward_{id(model)}_{images.shape[0]}'
        forward.__code__ = forward.__code__.replace(co_name=name)
        # Not by options of torch.compile, which come too late for freezing.
        torch._inductor.config.freezing = True
        torch._inductor.config.cpp.enable_kernel_profile = profile
        forward = torch.compile(forward, dynamic=False)
    if 'cudagraph' in mode:
        return capture(lambda: forward(images))
    return lambda: forward(images)


def warm_up(contender: Contender, args: argparse.Namespace) -> bool:
    """Compile, warm up and find how many calls make a measurement.

    Returns:
        bool: Whether it runs at all; if not, the reason is printed.
    """
    try:
        if isinstance(contender.entry.model, ExportedFile):
            contender.call()  # starts its process
        contender.time(1)
        contender.time(args.warmup)
        contender.repeats = max(1, int(SECONDS / contender.time(1)))
    except Exception as error:  # of whatever model: the others go on
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print(f'{contender.name} does not run: {reason[0]}')
        return False
    return True


def set_tf32(on: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


# ---------------------------------------------------------------------------
# Measuring and reporting
# ---------------------------------------------------------------------------


def measure(contenders: list[Contender], args: argparse.Namespace) -> None:
    """Let all contenders take turns, every other round backwards."""
    for i in track(range(args.rounds), 'measuring'):
        for contender in contenders[:: -1 if i % 2 else 1]:
            contender.seconds.append(contender.time(contender.repeats))


def make_rows(
    contenders: list[Contender], reference: Entry, batch_size: int
) -> list[dict]:
    """The rows of a table: all contenders, then the best of each model."""
    groups = {}
    for contender in contenders:
        key = id(contender.entry), contender.dtype
        groups.setdefault(key, []).append(contender)
    best = {
        key: min(group, key=lambda c: np.median(c.seconds))
        for key, group in groups.items()
    }
    same_mode = {
        (c.mode, c.dtype): c for c in contenders if c.entry is reference
    }
    # What has one mode alone, or is the only one of it, is compared so.
    alone = next((c for c in contenders if c.entry is reference), None)
    rows = [
        make_row(
            c,
            c.mode,
            same_mode.get(
                (c.mode, c.dtype), alone if exported_in(c, alone) else None
            ),
            batch_size,
        )
        for c in contenders
    ]
    if len(contenders) > len(best):
        rows += [
            make_row(
                c,
                f'best: {c.mode}',
                best.get((id(reference), dtype)),
                batch_size,
            )
            for (_, dtype), c in best.items()
        ]
    return rows


def exported_in(*contenders: Contender | None) -> bool:
    """Tell whether one of them is an exported model, which has no mode."""
    return any(
        c is not None and isinstance(c.entry.model, ExportedFile)
        for c in contenders
    )


def make_row(
    contender: Contender,
    mode: str,
    reference: Contender | None,
    batch_size: int,
) -> dict:
    """A row, in units of the table, not rounded."""
    q1, median, q3 = np.percentile(contender.seconds, [25, 50, 75])
    row = {
        'model': contender.entry.model.name,
        'mode': mode,
        'dtype': contender.dtype,
        'batch': batch_size,
        'images/s': batch_size / median,
        'ms': 1e3 * median,
        'ms q1': 1e3 * q1,
        'ms q3': 1e3 * q3,
        'ratio': np.median(reference.seconds) / median if reference else None,
        'params (M)': millions(contender.entry.params),
        'MFLOPs': millions(contender.entry.flops),
    }
    if contender.entry.accuracy is not None:
        row['accuracy'] = contender.entry.accuracy
    return row


def millions(number: float | None) -> float | None:
    """In millions, if it is known."""
    return None if number is None else number / 1e6


def describe_machine(args: argparse.Namespace) -> dict[str, str]:
    """What the figures depend on besides the models."""
    machine = dict(cpu=cpu_name(), cores=str(os.cpu_count()))
    if args.device == 'cuda':
        machine['gpu'] = torch.cuda.get_device_name()
    machine |= dict(
        simd=torch.backends.cpu.get_cpu_capability(),
        threads=str(torch.get_num_threads()),
        torch=torch.__version__,
        scan=describe_backends()[args.device],
        fused=str(args.fuse),
        part=args.part,
    )
    return machine


def cpu_name() -> str:
    """The CPU's model, as Linux tells it."""
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def report(title: str, rows: list[dict], reference: Entry) -> None:
    formats = {
        'images/s': '.1f',
        'ms': '.2f',
        'ratio': '.2f',
        'params (M)': '.2f',
        'MFLOPs': '.0f',
    }
    table = Table(title=title, caption=f'ratio: to {reference.model.name}')
    for column in rows[0]:
        if column == 'ms q1':
            table.add_column('quartiles (ms)', justify='right')
        elif column not in ('ms q3', 'batch'):
            left = column in ('model', 'mode', 'dtype')
            table.add_column(column, justify='left' if left else 'right')
    for i, row in enumerate(rows):
        cells = []
        for column, value in row.items():
            if column == 'ms q1':
                value = f'{value:.2f} to {row["ms q3"]:.2f}'
            elif column in ('ms q3', 'batch'):
                continue
            elif value is None:
                value = '-'
            elif column in formats:
                value = format(value, formats[column])
            cells.append(str(value))
        following = rows[i + 1 : i + 2]
        ends = following and (
            following[0]['mode'].startswith('best')
            != row['mode'].startswith('best')
        )
        table.add_row(*cells, end_section=bool(ends))
    Console(width=160).print(table)


def write_csv(path: Path, rows: list[dict], machine: dict) -> None:
    """The rows, each with what the figures depend on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, [*rows[0], *machine])
        writer.writeheader()
        writer.writerows(row | machine for row in rows)


def plot(path: Path, rows: list[dict], entries: list[Entry]) -> None:
    """Draw the best of each model, a panel for each batch size and dtype."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    x = 'accuracy' if 'accuracy' in rows[0] else 'MFLOPs'
    ours = {e.model.name for e in entries if e.model.is_ours}
    panels = {}
    for row in rows:
        points = panels.setdefault((row['batch'], row['dtype']), {})
        fastest = points.setdefault(row['model'], row)
        if row['images/s'] > fastest['images/s']:
            points[row['model']] = row
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(5 * len(panels), 4),
        squeeze=False,
        layout='constrained',
    )
    for axis, ((batch, dtype), points) in zip(axes[0], panels.items()):
        for name, row in points.items():
            axis.scatter(
                row[x],
                row['images/s'],
                color='tab:red' if name in ours else 'tab:gray',
                marker='*' if name in ours else 'o',
            )
            axis.annotate(
                name.partition(':')[2] or name,
                (row[x], row['images/s']),
                xytext=(4, 4),
                textcoords='offset points',
                fontsize=8,
            )
        axis.set_title(f'batch {batch}, {dtype}')
        axis.set_xlabel('top-1 accuracy (%)' if x == 'accuracy' else x)
        axis.set_ylabel('images per second')
        axis.margins(0.2)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def profile(contender: Contender, batch_size: int, args) -> None:
    """List where the time of a call goes, by operator."""
    os.environ.setdefault('KINETO_LOG_LEVEL', '99')  # of its own affairs
    activities = [torch.profiler.ProfilerActivity.CPU]
    device = 'cpu'
    if args.device == 'cuda':
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        device = 'device' if torch.__version__ >= '2.4' else 'cuda'
    with torch.profiler.profile(
        activities=activities, record_shapes=args.by_shape
    ) as profiler:
        contender.time(calls := max(3, contender.repeats))
    events = profiler.key_averages(group_by_input_shape=args.by_shape)
    own_time = f'self_{device}_time_total'
    total = sum(getattr(e, own_time) for e in events)
    events = sorted(events, key=lambda e: -getattr(e, own_time))
    table = Table(title=f'{contender.name}, batch {batch_size}: own time')
    for column in ('operator', 'calls', 'ms', 'share'):
        left = column == 'operator'
        table.add_column(column, justify='left' if left else 'right')
    if args.by_shape:
        table.add_column('inputs')
    for event in events[: args.profile]:
        spent = getattr(event, own_time)
        cells = [
            event.key,
            f'{event.count / calls:g}',
            f'{spent / calls / 1e3:.3f}',
            f'{spent / total:.1%}',
        ]
        if args.by_shape:
            cells.append(' '.join(str(s) for s in event.input_shapes if s))
        table.add_row(*cells)
    Console(width=160).print(table)


@torch.no_grad()
def main() -> None:
    args = parse_args()
    if args.device != 'cpu' and not torch.cuda.is_available():
        raise UsageError(f'--device {args.device}: there is no CUDA GPU here')
    torch.set_num_threads(args.threads)
    machine = describe_machine(args)
    print(', '.join(f'{key}: {value}' for key, value in machine.items()))

    if args.reference and args.reference not in args.models:
        raise UsageError(
            f'--reference {args.reference} is none of the models: '
            f'{", ".join(args.models)}'
        )
    entries = build_entries(args)
    reference = entries[args.models.index(args.reference or args.models[0])]
    all_rows = []
    for batch_size in args.batch_sizes:
        contenders = make_contenders(entries, batch_size, args)
        if not contenders:
            raise UsageError('none of the models runs like this')
        measure(contenders, args)
        for entry in entries:
            if isinstance(entry.model, ExportedFile):
                entry.model.stop()
        rows = make_rows(contenders, reference, batch_size)
        report(f'{args.device}, batch {batch_size}', rows, reference)
        all_rows += rows
        if args.csv:  # what is there if a later batch takes too long
            write_csv(args.csv, all_rows, machine)
        if args.profile:
            for contender in contenders:
                if not isinstance(contender.entry.model, ExportedFile):
                    profile(contender, batch_size, args)
    if args.csv:
        print(f'Written to {args.csv}')
    if args.plot:
        plot(args.plot, all_rows, entries)
        print(f'Drawn to {args.plot}')


if __name__ == '__main__':
    run_tool(main)
