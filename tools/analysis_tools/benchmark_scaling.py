"""How the time of an image grows with its size and falls with threads.

Also how many images per second several processes serve that share the cores.
Each contender has a process of its own, of as many cores as threads; all take
turns, and figures are medians. Models are deployed, weights random.
"""

import argparse
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmmamba.utils.analysis.exported import Worker
from mmmamba.utils.analysis.models import NAME_HELP
from mmmamba.utils.analysis.tables import write_csv
from mmmamba.utils.analysis.turns import take_turns
from mmmamba.utils.analysis.worker import usable_cores
from mmmamba.utils.cli import (
    UsageError,
    output_file,
    picture_file,
    positive_int,
    run_tool,
)

BENCHMARK = Path(__file__).with_name('benchmark.py')
#: A measurement takes at least this long, so that the clock does not matter.
SECONDS = 0.2
#: Until the threads of the contender before no longer wait actively.
PAUSE = 0.1


def parse_args() -> argparse.Namespace:
    cores = len(usable_cores())
    powers = [2**i for i in range(cores.bit_length()) if 2**i <= cores]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='example: benchmark_scaling.py mobilemamba:t2 mobilemamba:b1 '
        '--sizes 256 512 1024 --plot scaling.png',
    )
    parser.add_argument(
        'models',
        nargs='+',
        metavar='MODEL',
        help=f'each {NAME_HELP}, without a size',
    )
    parser.add_argument(
        '--sizes',
        type=positive_int,
        nargs='+',
        default=[192, 256, 384, 512, 768, 1024],
        metavar='PX',
        help='heights and widths of the images (default: 192 to 1024)',
    )
    parser.add_argument(
        '--threads',
        type=positive_int,
        nargs='+',
        default=powers,
        metavar='N',
        help='threads (default: the powers of 2 up to the number of cores)',
    )
    parser.add_argument(
        '--serve-size',
        type=positive_int,
        default=256,
        metavar='PX',
        help='size of the images that several processes serve (default: 256)',
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=11, help='rounds (default: 11)'
    )
    parser.add_argument(
        '--csv', type=output_file, help='also write the rows here'
    )
    parser.add_argument(
        '--plot', type=picture_file, help='also draw them here (a PNG, say)'
    )
    args = parser.parse_args()
    if max(args.threads) > cores:
        raise UsageError(
            f'--threads {max(args.threads)}: this process may use {cores} '
            'cores, and more threads than cores measure nothing'
        )
    return args


@contextmanager
def only_cores(cores: list[int]) -> Iterator[None]:
    """What is started inside runs on these cores, where that can be said."""
    if not hasattr(os, 'sched_setaffinity'):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass
class Contender:
    """Processes that run a model at the same time, with threads each."""

    model: str
    size: int
    threads: int
    processes: int
    workers: list[Worker] = field(default_factory=list)
    repeats: int = 1
    rates: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start the processes, each on cores of its own, and warm up."""
        cores = usable_cores()
        for i in range(self.processes):
            worker = Worker()
            with only_cores(cores[i * self.threads : (i + 1) * self.threads]):
                try:
                    worker.start(
                        *(BENCHMARK, f'{self.model}@{self.size}', '--serve'),
                        *('--fuse', '--channels-last'),
                        *('--threads', self.threads),
                    )
                except RuntimeError as error:
                    raise UsageError(f'{self.model}: {error}') from None
            self.workers.append(worker)
        self.run(3)
        self.repeats = max(1, int(SECONDS * self.run(3) / self.processes))

    def run(self, repeats: int) -> float:
        """Images per second of all processes together."""
        with ThreadPoolExecutor(self.processes) as pool:
            times = pool.map(lambda w: w.time(repeats), self.workers)
            return sum(1 / seconds for seconds in times)

    def measure(self) -> None:
        """Take a turn, as those of ``benchmark.py`` do."""
        time.sleep(PAUSE)
        self.run(1)
        self.rates.append(self.run(self.repeats))

    def row(self) -> dict:
        """What was found."""
        rate = float(np.median(self.rates))
        row = dict(
            model=self.model,
            size=self.size,
            processes=self.processes,
            threads=self.threads,
        )
        row['images/s'] = rate
        row['ns/pixel'] = 1e9 * self.processes / rate / self.size**2
        return row


def compare(contenders: list[Contender], rounds: int) -> list[dict]:
    """Let them take turns; the rows."""
    with ExitStack() as stack:
        for contender in track(contenders, 'starting'):
            contender.start()
            for worker in contender.workers:
                stack.callback(worker.stop)
        for contender in track(take_turns(contenders, rounds), 'measuring'):
            contender.measure()
    return [contender.row() for contender in contenders]


def report_scaling(rows: list[dict]) -> None:
    """Print the time per pixel, a column for each size."""
    table = Table(title='ns a pixel, batch 1')
    table.add_column('model')
    for column in ('threads', *dict.fromkeys(row['size'] for row in rows)):
        table.add_column(str(column), justify='right')
    for (model, threads), line in lines_of(rows):
        cells = (f'{row["ns/pixel"]:.1f}' for row in line)
        table.add_row(model, str(threads), *cells)
    Console(width=120).print(table)


def report_serving(rows: list[dict]) -> None:
    """Print the images per second of all processes together."""
    table = Table(title=f'{rows[0]["size"]} px, batch 1')
    for column in ('model', 'processes', 'threads', 'images/s'):
        left = column == 'model'
        table.add_column(column, justify='left' if left else 'right')
    for row in rows:
        cells = map(str, (row['processes'], row['threads']))
        table.add_row(row['model'], *cells, f'{row["images/s"]:.1f}')
    Console(width=120).print(table)


def lines_of(rows: list[dict]) -> Iterator[tuple[tuple[str, int], list[dict]]]:
    """The rows of each model and number of threads."""
    for key in dict.fromkeys((row['model'], row['threads']) for row in rows):
        yield (
            key,
            [row for row in rows if (row['model'], row['threads']) == key],
        )


def plot(path: Path, scaling: list[dict], serving: list[dict]) -> None:
    """Draw time per pixel over size, and images per second by processes."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 4.5), layout='constrained'
    )
    for (model, threads), line in lines_of(scaling):
        sizes = [row['size'] for row in line]
        left.plot(
            *(sizes, [row['ns/pixel'] for row in line], 'o-'),
            label=f'{model}, {threads} thread{"s" * (threads > 1)}',
        )
    left.set_xscale('log', base=2)
    left.set_xticks(sizes, sizes)
    left.set_ylim(0)
    left.set_xlabel('height and width (px)')
    left.set_ylabel('ns a pixel, batch 1')
    left.legend(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=2)
    names = [
        f'{row["model"].rpartition(":")[2]}\n'
        f'{row["processes"]} x {row["threads"]}'
        for row in serving
    ]
    right.bar(names, [row['images/s'] for row in serving])
    right.set_xlabel('processes x threads')
    right.set_ylabel(f'images per second, {serving[0]["size"]} px')
    for axis in (left, right):
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    args = parse_args()
    scaling = compare(
        [
            Contender(model, size, threads, 1)
            for model in args.models
            for threads in args.threads
            for size in args.sizes
        ],
        args.rounds,
    )
    report_scaling(scaling)

    most = max(args.threads)
    splits = [(most // n, n) for n in args.threads if most % n == 0]
    serving = compare(
        [
            Contender(model, args.serve_size, threads, processes)
            for model in args.models
            for processes, threads in splits
        ],
        args.rounds,
    )
    report_serving(serving)
    if args.csv:
        write_csv(args.csv, scaling + serving)
        print(f'Written to {args.csv}')
    if args.plot:
        plot(args.plot, scaling, serving)
        print(f'Drawn to {args.plot}')


if __name__ == '__main__':
    run_tool(main)
