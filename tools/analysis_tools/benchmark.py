"""Throughput and latency of models, side by side.

All contenders (a model in one mode, dtype and layout, or in another runtime)
take turns, round by round, so that their ratios hold on a machine whose speed
changes; figures are medians of the rounds with their quartiles. Weights are
random.
"""

import argparse
import contextlib
import copy
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch._inductor.config
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from mmmamba import deploy
from mmmamba.backbones import MobileMamba
from mmmamba.ops import describe_backends
from mmmamba.utils.analysis import analyze_complexity
from mmmamba.utils.analysis.cuda_graph import capture
from mmmamba.utils.analysis.exported import (
    RUNTIMES,
    ExportedFile,
    ExportedModel,
    Worker,
)
from mmmamba.utils.analysis.models import (
    NAME_HELP,
    PARTS,
    NamedModel,
    build_model,
    fuse_model,
)
from mmmamba.utils.analysis.tables import write_csv
from mmmamba.utils.analysis.turns import take_turns
from mmmamba.utils.analysis.worker import keep_to_cores, serve
from mmmamba.utils.cli import (
    UsageError,
    output_file,
    picture_file,
    positive_int,
    run_tool,
)

MODES = ('eager', 'compiled', 'cudagraph', 'compiled-cudagraph')
DTYPES = dict(
    float32=torch.float32,
    tf32=torch.float32,
    bfloat16=torch.bfloat16,
    float16=torch.float16,
    int8=torch.float32,  # of all but the products
)
#: Whose models are exported for other runtimes.
EXPORTABLE = ('timm:', 'mmpretrain:')
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
        help=f'each {NAME_HELP}; or ort:MODEL or openvino:MODEL, which runs '
        'in ONNX Runtime or OpenVINO, in a process of its own: an exported '
        'file (docs/export.md), or a model of timm or mmpretrain, which is '
        'exported first (ort:timm:efficientvit_m2@224)',
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
        type=positive_int,
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
        'TensorFloat-32 in convolutions and products (default: float32). With '
        '--fuse on a CPU, bfloat16 and int8 are what the products of a '
        'MobileMamba are deployed in; no other model has int8',
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
        type=positive_int,
        default=torch.get_num_threads(),
        help='threads on the CPU (default: as PyTorch chooses)',
    )
    parser.add_argument(
        '--processes',
        action='store_true',
        help='run each contender of PyTorch, too, in a process of its own; '
        'each process keeps to as many cores as it has threads',
    )
    # How such a process is told that it is one.
    parser.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument(
        '--rounds', type=positive_int, default=20, help='rounds (default: 20)'
    )
    parser.add_argument(
        '--warmup',
        type=positive_int,
        default=3,
        help='calls of each contender before the rounds, the compiling one '
        'not counted (default: 3)',
    )
    parser.add_argument(
        '--csv', type=output_file, help='also write the rows here'
    )
    parser.add_argument(
        '--plot',
        type=picture_file,
        help="draw each model's best throughput against its FLOPs, or its "
        'accuracy, if given, against its time, here (a PNG, say)',
    )
    parser.add_argument(
        '--accuracy',
        type=float,
        nargs='+',
        metavar='TOP1',
        help='one for each model, in their order, one that comes in several '
        'runtimes counted once: a column and the axis of the plot',
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
    networks = list(dict.fromkeys(map(network_of, args.models)))
    if args.accuracy and len(args.accuracy) != len(networks):
        parser.error(
            f'--accuracy takes a number for each of the {len(networks)} '
            f'models, got {len(args.accuracy)}'
        )
    args.accuracy = dict(zip(networks, args.accuracy or []))
    exported = [m for m in args.models if network_of(m) != m]
    if exported and args.device != 'cpu':
        parser.error(f'{exported[0]} is timed on the CPU: no --device cuda')
    files = [m for m in exported if not network_of(m).startswith(EXPORTABLE)]
    if files and args.plot and not args.accuracy:
        parser.error(
            f'the FLOPs of {files[0]} are not known: no --plot without '
            '--accuracy'
        )
    if args.processes and (args.device != 'cpu' or args.profile):
        parser.error(
            '--processes goes with neither --device cuda nor --profile'
        )
    if 'int8' in args.dtypes and (args.device != 'cpu' or not args.fuse):
        parser.error('--dtypes int8 needs --fuse, and the CPU')
    if args.device == 'cpu':
        if 'tf32' in args.dtypes:
            parser.error('--dtypes tf32 is of CUDA: add --device cuda')
        if any('cudagraph' in mode for mode in args.modes):
            parser.error('CUDA graphs are of CUDA: add --device cuda')
    return args


def network_of(name: str) -> str:
    """A model's name without the runtime, if it has one that is known."""
    runtime, _, network = name.partition(':')
    return network if runtime in RUNTIMES else name


@dataclass
class Entry:
    """A model and what does not depend on how it is run."""

    argument: str
    model: NamedModel | ExportedFile
    params: int | None = None
    flops: float | None = None
    accuracy: float | None = None

    @property
    def network(self) -> str:
        """What it is, in whatever runtime."""
        return network_of(self.argument)


@dataclass
class Contender:
    """A model in one mode, dtype and layout, on images of one batch size."""

    entry: Entry
    mode: str
    dtype: str
    call: Callable
    worker: Worker | None = None
    repeats: int = 1
    seconds: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Model, mode and dtype."""
        return f'{self.entry.model.name}, {self.mode}, {self.dtype}'

    def time(self, repeats: int) -> float:
        """Mean seconds of a call."""
        if self.worker is not None:
            return self.worker.time(repeats)
        assert isinstance(self.entry.model, NamedModel)
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


def build_entries(args: argparse.Namespace, folder: Path) -> list[Entry]:
    """Build, count and fuse the models; those to export go into a folder."""
    entries: list[Entry] = []
    built: dict[str, Entry] = {}
    for name in track(args.models, 'building', disable=args.serve):
        network = network_of(name)
        accuracy = args.accuracy.get(network)
        if network != name and not network.startswith(EXPORTABLE):
            entries.append(Entry(name, ExportedFile(name), accuracy=accuracy))
            continue
        if network not in built:
            built[network] = build_entry(network, args)
        entry = replace(built[network], argument=name, accuracy=accuracy)
        if network != name:
            runtime = name.partition(':')[0]
            entry.model = ExportedModel(runtime, entry.model, folder)
        entries.append(entry)
    return entries


def build_entry(name: str, args: argparse.Namespace) -> Entry:
    """Build a model of PyTorch."""
    # Post-processing has nothing to count or fuse.
    part = 'tensor' if args.part == 'predict' else args.part
    model = build_model(name, part)
    # Before fusing: these figures are for comparison with published ones.
    params, counted = analyze_complexity(model, model.shape)
    flops = counted.total()
    if args.fuse:
        fuse_model(model)
    model.part = args.part
    return Entry(name, model.to(args.device), params, flops)


def make_contenders(
    entries: list[Entry], batch_size: int, args: argparse.Namespace
) -> list[Contender]:
    """Each model in each mode, dtype and layout, warmed up."""
    layouts = dict(only=[True], both=[False, True])
    contenders = []
    for dtype in args.dtypes:
        for entry in entries:
            model = entry.model
            if isinstance(model, ExportedFile):
                if dtype == args.dtypes[0]:
                    worker = Worker()
                    start = partial(
                        model.start, worker, batch_size, args.threads
                    )
                    contenders.append(
                        Contender(
                            entry, model.runtime, model.dtype, start, worker
                        )
                    )
                continue
            if dtype == 'int8' and not has_mobilemamba(model):
                continue
            for channels_last in layouts.get(args.channels_last, [False]):
                suffix = ' channels_last' if channels_last else ''
                for mode in args.modes:
                    make = serve_in_process if args.processes else make_here
                    name = f'{model.name}, {mode + suffix}, {dtype}'
                    try:
                        call, worker = make(
                            entry, mode, dtype, channels_last, batch_size, args
                        )
                    except torch.cuda.OutOfMemoryError:
                        print(f'{name} does not run: no memory is left')
                        continue
                    contenders.append(
                        Contender(entry, mode + suffix, dtype, call, worker)
                    )
    return [
        c
        for c in track(contenders, 'warming up', disable=args.serve)
        if warm_up(c, args)
    ]


def has_mobilemamba(model: nn.Module) -> bool:
    """Whether a MobileMamba is a part of the model."""
    return any(isinstance(m, MobileMamba) for m in model.modules())


def serve_in_process(
    entry: Entry,
    mode: str,
    dtype: str,
    channels_last: bool,
    batch_size: int,
    args: argparse.Namespace,
) -> tuple[Callable, Worker]:
    """A contender in another process: what starts it, and the process."""
    worker = Worker()
    options = ['--mode', mode, '--dtype', dtype, '--part', args.part]
    options += ['--fuse'] * args.fuse + ['--channels-last'] * channels_last
    options += ['--batch-size', batch_size, '--threads', args.threads]
    command = [Path(__file__), entry.argument, *options, '--serve']
    return partial(worker.start, *command), worker


def make_here(
    entry: Entry,
    mode: str,
    dtype: str,
    channels_last: bool,
    batch_size: int,
    args: argparse.Namespace,
) -> tuple[Callable, None]:
    """A contender in this process: what runs it."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = copy.deepcopy(entry.model)
    torch_dtype = DTYPES[dtype]
    packs = args.fuse and args.device == 'cpu' and dtype in deploy.DTYPES
    if packs and has_mobilemamba(model):
        deploy.deploy_model(model, dtype)
        torch_dtype = torch.float32
    model = model.to(torch_dtype, memory_format=layout)
    images = torch.rand(batch_size, 3, *model.shape, device=args.device)
    images = images.to(torch_dtype, memory_format=layout)
    return make_call(model, images, mode, bool(args.profile)), None


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
        if contender.worker is not None:
            contender.call()  # starts the process
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
    """Let all contenders take turns."""
    turns = take_turns(contenders, args.rounds)
    for contender in track(turns, 'measuring'):
        if contender.worker is not None:
            # Threads of the one before may still wait actively, and what this
            # one needs has left the caches.
            time.sleep(SECONDS)
            contender.time(1)
        contender.seconds.append(contender.time(contender.repeats))


def make_rows(
    contenders: list[Contender], reference: Entry, batch_size: int
) -> list[dict]:
    """The rows of a table: all contenders, then the best of each model."""
    groups = {}
    for contender in contenders:
        key = contender.entry.network, contender.dtype
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
                best.get((reference.network, dtype)),
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


def plot(path: Path, rows: list[dict], entries: list[Entry]) -> None:
    """Draw the best of each model, a panel for each batch size and dtype.

    Throughput over FLOPs, or accuracy over the time of an image.
    """
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    by_accuracy = 'accuracy' in rows[0]
    ours = {e.model.name for e in entries if e.model.is_ours}
    panels: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        points = panels.setdefault((row['batch'], row['dtype']), {})
        fastest = points.setdefault(row['model'], row)
        if row['images/s'] > fastest['images/s']:
            points[row['model']] = row
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(6 * len(panels), 5),
        squeeze=False,
        layout='constrained',
    )
    for axis, ((batch, dtype), points) in zip(axes[0], panels.items()):
        lines: dict[bool, list] = {True: [], False: []}
        for name, row in points.items():
            x, y = row['MFLOPs'], row['images/s']
            if by_accuracy:
                x, y = row['ms'] / batch, row['accuracy']
            lines[name in ours].append((x, y))
            axis.annotate(
                name.rpartition(':')[2],
                (x, y),
                xytext=(4, 3),
                textcoords='offset points',
                fontsize=7,
            )
        axis.plot(*zip(*lines[False]), 'o', color='tab:gray')
        style = '*-' if by_accuracy else '*'
        axis.plot(*zip(*sorted(lines[True])), style, color='tab:red')
        axis.set_title(f'batch {batch}, {dtype}')
        if by_accuracy:
            axis.set_xscale('log')
            for which in (
                axis.xaxis.set_major_formatter,
                axis.xaxis.set_minor_formatter,
            ):
                which('{x:g}')
            axis.set_xlabel('ms an image')
            axis.set_ylabel('top-1 accuracy (%)')
        else:
            axis.set_xlabel('MFLOPs')
            axis.set_ylabel('images per second')
        axis.margins(0.15)
        axis.grid(alpha=0.3, which='both')
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
    if args.serve:
        serve_contender(args)
        return
    machine = describe_machine(args)
    print(', '.join(f'{key}: {value}' for key, value in machine.items()))

    if args.reference and args.reference not in args.models:
        raise UsageError(
            f'--reference {args.reference} is none of the models: '
            f'{", ".join(args.models)}'
        )
    with tempfile.TemporaryDirectory() as folder:
        entries = build_entries(args, Path(folder))
        rows = compare(entries, args, machine)
    if args.csv:
        print(f'Written to {args.csv}')
    if args.plot:
        plot(args.plot, rows, entries)
        print(f'Drawn to {args.plot}')


def serve_contender(args: argparse.Namespace) -> None:
    """Be the process of the one contender that the options describe."""
    keep_to_cores(args.threads)
    with contextlib.redirect_stdout(sys.stderr):  # of whatever builds it
        entries = build_entries(args, Path())
        contenders = make_contenders(entries, args.batch_sizes[0], args)
    if contenders:
        serve(contenders[0].time)


def compare(
    entries: list[Entry], args: argparse.Namespace, machine: dict
) -> list[dict]:
    """Measure and report for each batch size; the rows of all."""
    reference = entries[args.models.index(args.reference or args.models[0])]
    all_rows: list[dict] = []
    for batch_size in args.batch_sizes:
        contenders = make_contenders(entries, batch_size, args)
        if not contenders:
            raise UsageError('none of the models runs like this')
        measure(contenders, args)
        for contender in contenders:
            if contender.worker is not None:
                contender.worker.stop()
        rows = make_rows(contenders, reference, batch_size)
        report(f'{args.device}, batch {batch_size}', rows, reference)
        all_rows += rows
        if args.csv:  # what is there if a later batch takes too long
            write_csv(args.csv, [row | machine for row in all_rows])
        if args.profile:
            for contender in contenders:
                if contender.worker is None:
                    profile(contender, batch_size, args)
    return all_rows


if __name__ == '__main__':
    run_tool(main)
