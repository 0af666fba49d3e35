"""Time the ops over the shapes of the network, against baselines.

All contenders of a row take turns, round by round, so that their ratios hold
on a machine whose speed changes; each figure is the median of the rounds.
"""

import argparse
import contextlib
import csv
import statistics
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.benchmark import Timer

import mmmamba.deploy.layers
import mmmamba.deploy.network
from mmmamba.backbones import MobileMamba
from mmmamba.backbones.arch import PRETRAIN_SIZES
from mmmamba.layers.ssm import SSM
from mmmamba.ops import bidirectional_scan, describe_backends, use_backend
from mmmamba.ops import selective_scan as general_scan
from mmmamba.utils.analysis.cuda_graph import capture
from mmmamba.utils.cli import (
    UsageError,
    output_file,
    picture_file,
    positive_int,
    run_tool,
)

#: Arch and image size: those of pretraining, and larger ones.
SHAPES = (*PRETRAIN_SIZES.items(), ('b4', 768), ('b4', 1024))
LENGTHS = (16, 64, 256, 1024, 4096, 16384)
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--tables',
        nargs='+',
        choices=[
            *('shapes', 'targets', 'memory', 'backbone', 'length'),
            'deployed',
        ],
        default=['shapes', 'targets', 'memory', 'backbone'],
        help='what to measure: the shapes of all archs; the shape the targets '
        'are set for (D 320, L 1024), step-by-step reference included; the '
        'peak memory of forward and backward; a backbone with the scan and '
        'without (B4 at 512); time against L; the ops for inference of '
        'deployed backbones (default: all but the last two)',
    )
    parser.add_argument(
        '--batch-size',
        type=positive_int,
        default=1,
        help='images (default: 1)',
    )
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', help='default: cpu'
    )
    parser.add_argument(
        '--dtype', choices=DTYPES, default='fp32', help='default: fp32'
    )
    parser.add_argument(
        '--threads',
        type=positive_int,
        default=torch.get_num_threads(),
        help='threads on the CPU (default: as PyTorch chooses)',
    )
    parser.add_argument(
        '--rounds', type=positive_int, default=15, help='rounds (default: 15)'
    )
    parser.add_argument(
        '--csv', type=output_file, help='also write the rows here'
    )
    parser.add_argument(
        '--plot',
        type=picture_file,
        help='draw time against L here (a PNG, say)',
    )
    args = parser.parse_args()
    if args.plot and 'length' not in args.tables:
        args.tables.append('length')
    return args


class Scan:
    """Inputs of one layer's scan, and what computes it.

    Args:
        batch (int): Images.
        channels (int): Inner channels D.
        length (int): Positions L.
        rank (int): Rank of the step sizes R.
        device (str): Where.
        dtype (torch.dtype): Of the activations.
    """

    def __init__(
        self,
        batch: int,
        channels: int,
        length: int,
        rank: int,
        device: str,
        dtype: torch.dtype,
    ) -> None:
        rng = torch.Generator().manual_seed(0)

        def uniform(*shape: int, low: float = -1, high: float = 1) -> Tensor:
            x = torch.rand(shape, generator=rng) * (high - low) + low
            return x.to(device)

        self.inputs = [
            uniform(batch, channels, length).to(dtype),
            uniform(batch, 2, rank + 2, length).to(dtype),
            uniform(2, channels, rank, low=0, high=0.1),
            uniform(2, channels, low=0, high=0.1),
            uniform(2 * channels, 1, low=-1.5, high=-0.5),
            torch.ones(2 * channels, device=device),
        ]
        self.grad = uniform(batch, channels, length).to(dtype)
        # As large as the step sizes of both directions.
        self.elements = uniform(batch, 2 * channels, length).to(dtype)

    def fused(self) -> Tensor:
        """The op the backbone uses."""
        return bidirectional_scan(*self.inputs)

    def torch(self) -> Tensor:
        """The same without compiled code."""
        with use_backend('torch'):
            return bidirectional_scan(*self.inputs)

    def composed(self, scan: Callable = general_scan) -> Tensor:
        """Copies, projection, the general op and the merge."""
        x, projected, dt_weight, dt_bias, A, D = self.inputs
        xs = torch.cat([x, x.flip(-1)], 1)
        projected = torch.stack([projected[:, 0], projected[:, 1].flip(-1)], 1)
        dt, B, C = projected.split([dt_weight.shape[2], 1, 1], 2)
        delta = torch.einsum('bkrl,kdr->bkdl', dt, dt_weight.to(x.dtype))
        delta = delta.flatten(1, 2)
        ys = scan(xs, delta, A, B, C, D, dt_bias.flatten(), True)
        y, reversed_y = ys.chunk(2, 1)
        return y + reversed_y.flip(-1)

    def mamba_ssm(self) -> Tensor:
        """The same with the scan of the package ``mamba_ssm``."""
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

        def scan(u, delta, A, B, C, D, bias, softplus) -> Tensor:
            return selective_scan_fn(
                *(u, delta, A, B, C, D),
                delta_bias=bias,
                delta_softplus=softplus,
            )

        return self.composed(scan)

    def step_by_step(self) -> Tensor:
        """The definition, one position at a time."""
        x, projected, dt_weight, dt_bias, A, D = self.inputs
        y = torch.zeros_like(x)
        dt, B, C = projected.split([dt_weight.shape[2], 1, 1], 2)
        skip = D.view(2, -1)
        for k, order in enumerate(
            (range(x.shape[2]), range(x.shape[2] - 1, -1, -1))
        ):
            delta = torch.einsum('brl,dr->bdl', dt[:, k], dt_weight[k])
            delta = F.softplus(delta + dt_bias[k, :, None])
            rates = A.view(2, -1)[k]
            h = torch.zeros_like(x[:, :, 0])
            for t in order:
                step = delta[:, :, t]
                h = torch.exp(step * rates) * h + (
                    step * B[:, k, :, t] * x[:, :, t]
                )
                y[:, :, t] += C[:, k, :, t] * h + skip[k] * x[:, :, t]
        return y

    def softplus_and_exp(self) -> None:
        """The arithmetic that no implementation avoids."""
        F.softplus(self.elements)
        torch.exp(self.elements)

    def copy_forward(self) -> None:
        """The bytes that no forward avoids: inputs once, output once."""
        x, projected = self.inputs[:2]
        x.clone()
        projected.sum()

    def backward_of(self, forward: Callable) -> Callable:
        """A function that runs the backward of ``forward`` alone."""
        leaves = [t.detach().requires_grad_() for t in self.inputs]
        with mock.patch.object(self, 'inputs', leaves):
            y = forward()
        return lambda: torch.autograd.grad(
            y, leaves, self.grad, retain_graph=True
        )


def time_all(
    contenders: dict[str, Callable], rounds: int, threads: int
) -> dict[str, float]:
    """Time functions in turn.

    Args:
        contenders (dict[str, Callable]): The functions by name.
        rounds (int): How often each is timed.
        threads (int): Threads on the CPU.

    Returns:
        dict[str, float]: Median seconds of one call.
    """
    timers = {
        name: Timer('f()', globals=dict(f=f), num_threads=threads)
        for name, f in contenders.items()
    }
    # About 20 ms a measurement; the first call warms up.
    repeats = {}
    for name, timer in timers.items():
        timer.timeit(1)
        repeats[name] = max(1, int(0.02 / timer.timeit(1).mean))
    seconds = {name: [] for name in timers}
    for _ in range(rounds):
        for name, timer in timers.items():
            seconds[name].append(timer.timeit(repeats[name]).mean)
    return {name: statistics.median(s) for name, s in seconds.items()}


def scan_layers(arch: str, size: int) -> list[tuple[str, int, int, int]]:
    """The name, D, L and R of the scan of each stage."""
    layers = []
    side = size
    for _ in range(4):  # the stem
        side = (side + 1) // 2
    for i, stage in enumerate(MobileMamba(arch).stages):
        if i:
            side = (side + 1) // 2
        ssm = stage.blocks[0].mixer.global_branch.ssm
        name = f'{arch.upper()} {size} stage {i + 1}'
        layers.append((name, ssm.dwconv.in_channels, side**2, ssm.dt_rank))
    return layers


def milliseconds(seconds: float) -> str:
    return f'{1e3 * seconds:.3f}'


def times(a: float, b: float) -> str:
    return f'{a / b:.2f}x'


def make_scan(args: argparse.Namespace, *sizes: int) -> Scan:
    return Scan(args.batch_size, *sizes, args.device, DTYPES[args.dtype])


@torch.no_grad()
def time_forward(args, scan: Scan, *names: str) -> dict[str, float]:
    contenders = {name: getattr(scan, name) for name in names}
    return time_all(contenders, args.rounds, args.threads)


def time_backward(args, scan: Scan, *names: str) -> dict[str, float]:
    contenders = {n: scan.backward_of(getattr(scan, n)) for n in names}
    return time_all(contenders, args.rounds, args.threads)


def rows_that_fit(
    measure: Callable[..., list[dict]], items: list[tuple], title: str
) -> list[dict]:
    """The rows of each item, but of those that a GPU has no memory for."""
    rows = []
    for item in track(items, title):
        try:
            rows += measure(*item)
        except torch.cuda.OutOfMemoryError:
            print(f'{item[0]} does not run: no memory is left')
        if torch.cuda.is_available():  # what the contenders left
            torch.cuda.empty_cache()
    return rows


def measure_shapes(args: argparse.Namespace) -> list[dict]:
    """Every scan of every arch: each method, forward and backward."""
    layers = [row for shape in SHAPES for row in scan_layers(*shape)]
    return rows_that_fit(partial(measure_shape, args), layers, 'shapes')


def measure_shape(
    args: argparse.Namespace, name: str, channels: int, length: int, rank: int
) -> list[dict]:
    """The row of a scan."""
    scan = make_scan(args, channels, length, rank)
    ahead = time_forward(
        args, scan, 'fused', 'composed', 'torch', 'softplus_and_exp'
    )
    back = time_backward(args, scan, 'fused', 'composed', 'torch')
    row = {
        'layer': name,
        'D': channels,
        'L': length,
        'fused ms': milliseconds(ahead['fused']),
        'composed': times(ahead['composed'], ahead['fused']),
        'PyTorch': times(ahead['torch'], ahead['fused']),
        'fused / softplus+exp': times(
            ahead['fused'], ahead['softplus_and_exp']
        ),
        'backward ms': milliseconds(back['fused']),
        'backward / forward': times(back['fused'], ahead['fused']),
        'composed backward': times(back['composed'], back['fused']),
        'PyTorch backward': times(back['torch'], back['fused']),
    }
    return [row]


def measure_targets(args: argparse.Namespace) -> list[dict]:
    """D 320, L 1024: what the op is to be compared with."""
    scan = make_scan(args, 320, 1024, 10)
    trained = ['fused', 'composed', 'torch']
    if args.device != 'cpu' and find_spec('mamba_ssm'):
        trained.append('mamba_ssm')
    names = [*trained, 'step_by_step', 'softplus_and_exp']
    if args.device != 'cpu':
        names.append('copy_forward')
    ahead = time_forward(args, scan, *names)
    back = time_backward(args, scan, *trained)
    rows = []
    for name in names:
        rows.append(
            {
                'method': name.replace('_', ' '),
                'forward ms': milliseconds(ahead[name]),
                'of fused': times(ahead[name], ahead['fused']),
                'backward ms': milliseconds(back[name])
                if name in back
                else '-',
                'backward / forward': times(back[name], ahead[name])
                if name in back
                else '-',
            }
        )
    return rows


def peak_bytes(step: Callable, device: str) -> int:
    """The most memory that was taken at a time, above that of before."""
    step()  # what is loaded or planned once
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak
    before = _status('VmRSS')
    step()
    return _status('VmHWM') - before


def _status(field: str) -> int:
    """A figure of this process's memory, in bytes."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(field):
            return 1024 * int(line.split()[1])
    raise UsageError(f'this system does not report {field}')


def measure_memory(args: argparse.Namespace) -> list[dict]:
    """Peak memory of forward and backward, in units of the input."""
    # Large enough that the allocator gives memory back at once.
    batch = max(args.batch_size, 64)
    scan = Scan(batch, 320, 1024, 10, args.device, DTYPES[args.dtype])
    unit = scan.inputs[0].numel() * scan.inputs[0].element_size()
    rows = []
    for name in ('fused', 'composed', 'torch'):

        def step(name: str = name) -> None:
            scan.backward_of(getattr(scan, name))()

        peak = peak_bytes(step, args.device)
        rows.append(
            {
                'method': name,
                'batch': batch,
                'peak MiB': f'{peak / 2**20:.0f}',
                'in tensors (batch, D, L)': f'{peak / unit:.1f}',
            }
        )
    return rows


@torch.no_grad()
def measure_backbone(args: argparse.Namespace) -> list[dict]:
    """B4 at 512: with the scan, and with its input as its output."""
    model = MobileMamba('b4').eval().to(args.device, DTYPES[args.dtype])
    rows = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=layout)
        image = torch.rand(
            args.batch_size, 3, 512, 512, device=args.device
        ).to(DTYPES[args.dtype], memory_format=layout)

        def without_scan(model: MobileMamba = model, image=image) -> None:
            with mock.patch.object(SSM, 'scan', lambda _, x: x.flatten(2)):
                model(image)

        seconds = time_all(
            {'full': lambda m=model, x=image: m(x), 'identity': without_scan},
            args.rounds,
            args.threads,
        )
        rows.append(
            {
                'layout': str(layout).removeprefix('torch.'),
                'batch': args.batch_size,
                'B4 at 512 ms': milliseconds(seconds['full']),
                'without scan ms': milliseconds(seconds['identity']),
                'ratio': f'{seconds["full"] / seconds["identity"]:.3f}',
            }
        )
    return rows


def measure_length(args: argparse.Namespace) -> list[dict]:
    """Time against L, D 320."""
    rows = []
    for length in track(LENGTHS, 'length'):
        scan = make_scan(args, 320, length, 10)
        names = 'fused', 'composed', 'torch', 'softplus_and_exp'
        ahead = time_forward(args, scan, *names)
        back = time_backward(args, scan, 'fused')
        rows.append(
            {'L': length}
            | {f'{n} ms': milliseconds(ahead[n]) for n in names}
            | {'fused backward ms': milliseconds(back['fused'])}
        )
    return rows


#: The archs and sizes whose deployed ops are timed.
DEPLOYED = (('t2', 192), ('s6', 224), ('b4', 512))
#: Those ops, and the modules of a deployed network that call them.
DEPLOYED_OPS = ('depthwise_conv', 'mixer_conv', 'scan_gate', 'linear')
DEPLOYED_OPS += ('feed_forward', 'stem_conv')
CALLERS = (mmmamba.deploy.layers, mmmamba.deploy.network)


@torch.no_grad()
def record_calls(arch: str, size: int, args: argparse.Namespace) -> dict:
    """Run a deployed backbone; the calls of its ops, by op and shapes.

    Each is how often it happens and a function that repeats it.
    """
    model = MobileMamba(arch).eval()
    model.switch_to_deploy()
    model.to(args.device, DTYPES[args.dtype])
    image = torch.rand(args.batch_size, 3, size, size, device=args.device)
    calls: dict = {}

    def recorder(name: str, op: Callable) -> Callable:
        def call(*inputs, **options):
            key = name, *(t.shape for t in tensors_in(inputs))
            calls.setdefault(key, [0, partial(op, *inputs, **options)])
            calls[key][0] += 1
            return op(*inputs, **options)

        return call

    with contextlib.ExitStack() as stack:
        # In one op, a block or a stage would not be timed by its layers.
        never = mock.Mock(return_value=False)
        for name in DEPLOYED_OPS:
            for module in CALLERS:
                if hasattr(module, name):
                    call = recorder(name, getattr(module, name))
                    stack.enter_context(mock.patch.object(module, name, call))
        for module, name in (
            (mmmamba.deploy.layers, 'block_is_compiled'),
            (mmmamba.deploy.network, 'inference_op_serves'),
        ):
            stack.enter_context(mock.patch.object(module, name, never))
        model(image.to(DTYPES[args.dtype]))
    return calls


def tensors_in(values) -> list[Tensor]:
    """The tensors of arguments, those in lists as well."""
    return [t for t in tree_leaves(list(values)) if isinstance(t, Tensor)]


@contextlib.contextmanager
def without_compiled_ops():
    """Leave the ops for inference to PyTorch, and the scans as they are."""
    with contextlib.ExitStack() as stack:
        for name in DEPLOYED_OPS:
            module = sys.modules[f'mmmamba.ops.{name}']
            never = mock.Mock(return_value=False)
            stack.enter_context(
                mock.patch.object(module, 'inference_op_serves', never)
            )
        yield


def measure_deployed(args: argparse.Namespace) -> list[dict]:
    """Each op for inference of deployed backbones, against PyTorch's."""
    measure = partial(measure_deployed_network, args)
    return rows_that_fit(measure, list(DEPLOYED), 'deployed')


@torch.no_grad()
def measure_deployed_network(
    args: argparse.Namespace, arch: str, size: int
) -> list[dict]:
    """The rows of a network."""
    rows = []
    for (name, *shapes), (count, call) in record_calls(
        arch, size, args
    ).items():
        inputs = tensors_in((*call.args, *call.keywords.values()))
        data = sum(t.nbytes for t in [*inputs, call()])

        def in_pytorch(call: Callable = call) -> Tensor:
            with without_compiled_ops():
                return call()

        contenders = dict(compiled=call, pytorch=in_pytorch)
        if args.device != 'cpu':
            contenders = {k: capture(f) for k, f in contenders.items()}
        seconds = time_all(contenders, args.rounds, args.threads)
        rows.append(
            {
                'network': f'{arch.upper()} {size}',
                'op': name,
                'input': ' '.join(map(str, shapes[0])),
                'calls': count,
                'ms': milliseconds(seconds['compiled']),
                'PyTorch': times(seconds['pytorch'], seconds['compiled']),
                'GB/s': f'{data / seconds["compiled"] / 1e9:.0f}',
            }
        )
    return rows


def plot(rows: list[dict], args: argparse.Namespace) -> None:
    """Draw the table of time against L."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    labels = {
        'fused ms': 'fused',
        'fused backward ms': 'fused, backward',
        'composed ms': 'flips + general op + merge',
        'torch ms': 'PyTorch',
        'softplus_and_exp ms': 'softplus + exp alone',
    }
    figure, axes = plt.subplots(figsize=(6, 4), layout='constrained')
    for key, label in labels.items():
        axes.loglog(
            [row['L'] for row in rows],
            [float(row[key]) for row in rows],
            marker='o',
            linestyle='--' if 'exp' in label else '-',
            label=label,
        )
    axes.set_xlabel('positions L')
    axes.set_ylabel('median time (ms)')
    where = f'{args.threads} threads' if args.device == 'cpu' else args.device
    axes.set_title(
        f'Bidirectional scan, batch {args.batch_size}, D 320, {args.dtype}, '
        f'{where}'
    )
    axes.grid(alpha=0.3, which='both')
    axes.legend()
    figure.savefig(args.plot, dpi=120)


def report(title: str, rows: list[dict]) -> None:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify='right')
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console(width=160).print(table)


def write_csv(path: Path, tables: dict[str, list[dict]]) -> None:
    """One table after the other, each under its own header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        for name, rows in tables.items():
            writer = csv.DictWriter(file, ['table', *rows[0]])
            writer.writeheader()
            writer.writerows({'table': name} | row for row in rows)


def main() -> None:
    args = parse_args()
    if args.device != 'cpu' and not torch.cuda.is_available():
        raise UsageError(f'--device {args.device}: there is no CUDA GPU here')
    torch.set_num_threads(args.threads)
    device_type = torch.device(args.device).type
    print(
        f'{args.device}: {describe_backends()[device_type]}; batch '
        f'{args.batch_size}, {args.dtype}, {args.threads} threads, median of '
        f'{args.rounds} rounds'
    )
    measures = dict(
        shapes=measure_shapes,
        targets=measure_targets,
        memory=measure_memory,
        backbone=measure_backbone,
        length=measure_length,
        deployed=measure_deployed,
    )
    tables = {}
    for name in args.tables:
        try:
            rows = measures[name](args)
        except torch.cuda.OutOfMemoryError:
            print(f'{name} does not run: no memory is left')
            continue
        if not rows:
            continue
        tables[name] = rows
        report(measures[name].__doc__, rows)
        if args.csv:  # what there is so far, should the next one fail
            write_csv(args.csv, tables)
    if args.plot:
        plot(tables['length'], args)
        print(f'Drawn to {args.plot}')
    if args.csv:
        print(f'Written to {args.csv}')


if __name__ == '__main__':
    run_tool(main)
