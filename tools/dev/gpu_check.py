"""Prove and measure the CUDA path on this machine, in one command.

Builds the ops for the GPU that is here, runs their tests and the network's,
compute-sanitizer, and the benchmarks, the most valuable first. Each step is on
its own: what fails or takes too long stops nothing else, but nothing runs
without the ops. Needs PyTorch >= 2.6 with nvcc, pytest, mmengine, and mmcv or
mmcv-lite. The report is OUT/report.md, with OUT/report.json beside it, and is
there after each step.
"""

import argparse
import contextlib
import csv
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools/analysis_tools'
PEER = 'timm:efficientvit'
NETWORK_TESTS = 'tests/test_device/test_network.py'
#: Tests that a sanitizer, some hundred times slower, has time for.
SHORT = (
    '33 or 36- or 9- or 260 or 1023 or 4097 or 37-dtype1 or kernels or '
    '(layout and (wider or apart)) or (scan_gate and 272-dtype2) or switches'
)
#: Without the ops that are meant, mmmamba takes those in PyTorch.
HAS_OPS = (
    'from mmmamba.ops import available_backends as found; '
    'assert found()[{!r}], "the build gave no such ops"'
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--device',
        choices=['cuda', 'cpu'],
        default='cuda',
        help='cpu runs the same steps on the twins of the CPU, in small '
        '(default: cuda)',
    )
    parser.add_argument(
        '--minutes',
        type=float,
        default=60,
        help='when to stop, at the latest (default: 60)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/gpu_check'),
        help='default: %(default)s',
    )
    parser.add_argument(
        '--steps',
        nargs='+',
        metavar='NAME',
        help='only these steps, by the names that the report has',
    )
    args = parser.parse_args()
    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda: there is no CUDA GPU here')
    return args


@dataclass
class Step:
    """A command, and what it measured.

    Attributes:
        name (str): Its name.
        command (list[str]): What runs, in a process of its own.
        minutes (float): What it may take, at most.
        missing (str): Why it cannot run here; empty if it can.
        environment (dict): On top of ours.
        needed (bool): Whether nothing can be learnt when it fails.
        status (str): ``passed``, or what happened.
        seconds (float): What it took.
        tables (dict): By title, rows of a table.
    """

    name: str
    command: list[str]
    minutes: float
    missing: str = ''
    environment: dict[str, str] = field(default_factory=dict)
    needed: bool = False
    status: str = 'not run: no time was left'
    seconds: float = 0
    tables: dict[str, list[dict]] = field(default_factory=dict)


def main() -> None:
    args = parse_args()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * args.minutes
    steps = (cuda_steps if args.device == 'cuda' else cpu_steps)(args.out)
    if args.steps:
        known = [step.name for step in steps]
        unknown = set(args.steps) - set(known)
        if unknown:
            sys.exit(f'--steps {unknown.pop()} is none of {", ".join(known)}')
        steps = [s for s in steps if s.needed or s.name in args.steps]
    for number, step in enumerate(steps, 1):
        print(f'[{number}/{len(steps)}] {step.name} ...', end=' ', flush=True)
        run(step, args.out, end)
        print(f'{step.status} ({step.seconds:.0f} s)')
        if step.needed and step.status != 'passed':
            for later in steps[number:]:
                later.missing = f'{step.name} has not passed'
        write_report(args, steps)
    print(args.out / 'report.md')
    if any(step.status.startswith('failed') for step in steps):
        sys.exit(1)


# ---------------------------------------------------------------------------
# The steps
# ---------------------------------------------------------------------------


def cuda_steps(out: Path) -> list[Step]:
    """What runs on a GPU, the most valuable first."""
    count = torch.cuda.device_count()
    kinds = {torch.cuda.get_device_capability(i) for i in range(count)}
    architectures = ';'.join(f'{x}.{y}' for x, y in sorted(kinds))
    return [
        build_step(
            '--force', FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=architectures
        ),
        Step('built', python('-c', HAS_OPS.format('cuda')), 1, needed=True),
        pytest_step(out, 'ops', 'tests/test_ops/test_cuda.py'),
        pytest_step(out, 'network', NETWORK_TESTS, '-k', 'cuda'),
        csv_step(
            *(out, 'scan', 'benchmark_op.py', '--device', 'cuda'),
            *('--batch-size', '64', '--tables', 'targets', 'memory', 'shapes'),
        ),
        # A pair each, since all contenders lie on the GPU together.
        *(
            csv_step(
                *(out, name, 'benchmark.py', '--device', 'cuda', '--fuse'),
                *(ours, peer, '--batch-sizes', '256', '1'),
                *('--channels-last', 'both', '--modes', 'cudagraph'),
                *('--dtypes', 'float32', 'tf32', 'bfloat16', '--rounds', '5'),
            )
            for name, ours, peer in (
                ('networks_s6', 'mobilemamba:s6@224', f'{PEER}_m5@224'),
                ('networks_t2', 'mobilemamba:t2@192', f'{PEER}_m2@224'),
                ('networks_b4', 'mobilemamba:b4@512', f'{PEER}_m5@512'),
                ('networks_t4', 'mobilemamba:t4@192', f'{PEER}_m4@224'),
                ('networks_b1', 'mobilemamba:b1@256', 'timm:repvit_m1_1@224'),
            )
        ),
        csv_step(
            *(out, 'deployed', 'benchmark_op.py', '--device', 'cuda'),
            *('--batch-size', '256', '--dtype', 'bf16', '--rounds', '5'),
            *('--tables', 'deployed'),
        ),
        *(
            csv_step(
                *(out, f'scan_{batch}', 'benchmark_op.py', '--device', 'cuda'),
                *('--batch-size', batch, '--rounds', '5'),
                *('--tables', 'shapes'),
            )
            for batch in ('1', '256')
        ),
        sanitizer_step(out, 'memcheck'),
        sanitizer_step(out, 'racecheck'),
        sanitizer_step(out, 'initcheck'),
        csv_step(
            *(out, 'compiled', 'benchmark.py', '--device', 'cuda', '--fuse'),
            *('mobilemamba:t2@192', 'mobilemamba:t4@192'),
            *('mobilemamba:b1@256', 'timm:repvit_m1_1@224'),
            *('timm:mobilenetv4_conv_medium@256', '--batch-sizes', '256', '1'),
            *('--dtypes', 'bfloat16', '--modes', 'eager', 'compiled'),
        ),
        detector_step(out),
    ]


def cpu_steps(out: Path) -> list[Step]:
    """The same on the CPU, in small: the kernels are emulated."""
    emulated = 'tests/test_ops/test_cuda_kernel.py'
    return [
        build_step(),
        Step('built', python('-c', HAS_OPS.format('cpp')), 1, needed=True),
        pytest_step(out, 'ops', emulated, '-k', 'nan or layout'),
        pytest_step(out, 'network', NETWORK_TESTS, '-k', 'cpu'),
        csv_step(
            *(out, 'scan', 'benchmark_op.py', '--rounds', '2'),
            *('--tables', 'targets', 'memory'),
        ),
        csv_step(
            *(out, 'networks_t2', 'benchmark.py', 'mobilemamba:t2@64'),
            *(f'{PEER}_m2@64', '--batch-sizes', '2'),
            *('--dtypes', 'float32', 'bfloat16', '--rounds', '2'),
        ),
        csv_step(
            *(out, 'deployed', 'benchmark_op.py', '--rounds', '2'),
            *('--tables', 'deployed'),
        ),
        csv_step(
            *(out, 'compiled', 'benchmark.py', 'mobilemamba:t2@64', '--fuse'),
            *('--modes', 'eager', 'compiled', '--rounds', '2'),
        ),
        detector_step(out),
    ]


def python(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def build_step(*options: str, **environment: str) -> Step:
    """The build, which fails if it does not give all ops.

    Without it there may be those of an earlier build, of other sources.
    """
    return Step(
        'build',
        python('setup.py', 'build_ext', '--inplace', *options),
        15,
        environment={'MMMAMBA_WITH_OPS': '1', **environment},
        needed=True,
    )


def pytest_step(out: Path, name: str, *arguments: str) -> Step:
    """Tests, of which the report has the numbers that they record."""
    # Verbose, so that the log has the name of a test that hangs.
    options = ['-v', '-p', 'no:cacheprovider', f'--junitxml={out / name}.xml']
    command = python('-m', 'pytest', *arguments, *options)
    return Step(name, command, 10, missing('pytest'))


def detector_step(out: Path) -> Step:
    """A detector, which needs more than the rest."""
    tests = 'tests/test_device/test_detector.py'
    step = pytest_step(out, 'detector', tests)
    step.missing = step.missing or missing('mmdet') or missing('mmcv._ext')
    return step


def csv_step(out: Path, name: str, tool: str, *arguments: str) -> Step:
    """A benchmark, of which the report has the tables; peers if timm is."""
    if missing('timm'):
        arguments = tuple(a for a in arguments if not a.startswith('timm:'))
    table = ('--csv', out / f'{name}.csv')
    return Step(name, python(TOOLS / tool, *arguments, *table), 12)


def sanitizer_step(out: Path, tool: str) -> Step:
    """Short tests under one of compute-sanitizer's tools.

    They have each kind of kernel: scans of one team, of several that share
    memory (more than 128 positions), in chunks (more than 2048), and of
    positions read by fours (lengths that are multiples of 4).
    """
    step = pytest_step(out, tool, 'tests/test_ops/test_cuda.py', '-k', SHORT)
    from torch.utils.cpp_extension import CUDA_HOME  # warns without a GPU

    paths = [os.environ.get('PATH', ''), f'{CUDA_HOME}/bin']
    found = shutil.which('compute-sanitizer', path=os.pathsep.join(paths))
    options = ['--tool', tool, '--error-exitcode', '9']
    step.command = [str(found), *options, *step.command]
    # Memory that PyTorch keeps counts as allocated, and as written.
    step.environment = dict(PYTORCH_NO_CUDA_MEMORY_CACHING='1')
    if not found:
        step.missing = 'there is no compute-sanitizer'
    return step


def missing(module: str) -> str:
    """Why a step cannot run, where a module is not installed."""
    try:
        found = find_spec(module)
    except ModuleNotFoundError:  # what it is in
        found = None
    return '' if found else f'{module} is not installed'


# ---------------------------------------------------------------------------
# Running them
# ---------------------------------------------------------------------------


def run(step: Step, out: Path, end: float) -> None:
    """Run a step within its time and ours; its output goes to a file."""
    if step.missing:
        step.status = f'not run: {step.missing}'
        return
    left = min(60 * step.minutes, end - time.monotonic())
    if left < 1:
        return
    start = time.monotonic()
    log = out / f'{step.name}.log'
    for suffix in ('csv', 'xml'):  # of an earlier run
        (out / f'{step.name}.{suffix}').unlink(missing_ok=True)
    with log.open('w') as file:
        process = subprocess.Popen(
            step.command,
            cwd=ROOT,
            env={**os.environ, **python_path(), **step.environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(left)
            step.status = 'passed' if code == 0 else f'failed, see {log.name}'
        except subprocess.TimeoutExpired:
            step.status = f'out of time, see {log.name}'
            if left == 60 * step.minutes:  # not because ours is over
                step.status = f'failed: {step.status}'
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    step.seconds = time.monotonic() - start
    try:
        read_results(step, out)
    except (ET.ParseError, ValueError, IndexError) as error:  # cut off
        step.tables = {'results': [{'cannot be read': str(error)}]}
    if step.status == 'passed':
        step.status = second_look(step, log)


def second_look(step: Step, log: Path) -> str:
    """The status of what ended well: tests may have been skipped."""
    tests = step.tables.get('tests')
    if tests and all(row['result'].startswith('skipped') for row in tests):
        return 'failed: all tests were skipped'
    if ' does not run: ' in log.read_text(errors='replace'):
        return f'passed in part, see {log.name}'
    return 'passed'


def python_path() -> dict[str, str]:
    """Where mmmamba is, which need not be installed."""
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return {'PYTHONPATH': os.pathsep.join(filter(None, paths))}


def read_results(step: Step, out: Path) -> None:
    """The tables of a step, of what it wrote before it ended."""
    results = out / f'{step.name}.csv'
    if results.is_file():
        step.tables = read_csv(results)
    tests = out / f'{step.name}.xml'
    if tests.is_file():
        step.tables = {'tests': read_tests(tests)}


def read_csv(path: Path) -> dict[str, list[dict]]:
    """Tables one after the other, each under its own header."""
    tables: dict[str, list[dict]] = {}
    header: list[str] = []
    with path.open(newline='') as file:
        for row in csv.reader(file):
            if not header or row[0] == header[0]:
                header = row
                continue
            values = dict(zip(header, map(rounded, row)))
            tables.setdefault(values.pop('table', 'models'), []).append(values)
    return tables


def rounded(text: str) -> str:
    """Four digits of a long fraction."""
    try:
        return f'{float(text):.4g}' if len(text) > 8 else text
    except ValueError:
        return text


def read_tests(path: Path) -> list[dict]:
    """Each test, how it ended, and the numbers that it recorded."""
    rows = []
    for case in ET.parse(path).getroot().iter('testcase'):
        skipped = case.find('skipped')
        failure = case.find('failure')
        problem = case.find('error') if failure is None else failure
        recorded = [
            f'{p.get("name")} {p.get("value")}' for p in case.iter('property')
        ]
        result = 'passed'
        if problem is not None:
            result = (problem.get('message') or 'failed').splitlines()[0][:100]
        elif skipped is not None:
            result = f'skipped: {skipped.get("message")}'
        rows.append(
            {
                'test': case.get('name'),
                'result': result,
                'recorded': ', '.join(recorded),
            }
        )
    return rows


# ---------------------------------------------------------------------------
# The report
# ---------------------------------------------------------------------------


def goals(steps: list[Step]) -> list[dict]:
    """What was aimed at, and what was measured."""
    scans = next((s.tables for s in steps if s.name == 'scan'), {})
    # Other steps with networks have other contenders and modes.
    models = [
        row
        for step in steps
        if step.name.startswith('networks_')
        for row in step.tables.get('models', [])
    ]
    scan = {row['method']: row for row in scans.get('targets', [])}
    memory = {row['method']: row for row in scans.get('memory', [])}
    rows = []

    def goal(text: str, value: Callable[[], float], bound: float, most: bool):
        """A line; of what was not measured it says so."""
        try:
            number = value()
        except (KeyError, ValueError, ZeroDivisionError):
            return rows.append({'goal': text, 'measured': '-', 'met': '-'})
        met = number <= bound if most else number >= bound
        measured = f'{number:.2f}'
        return rows.append(
            {'goal': text, 'measured': measured, 'met': 'yes' if met else 'no'}
        )

    def ahead(name: str) -> float:
        return float(scan[name]['forward ms'])

    goal(
        'scan, forward: at most 3 copies of its bytes',
        lambda: ahead('fused') / ahead('copy forward'),
        3,
        most=True,
    )
    goal(
        'scan, forward: 5 times as fast as its parts',
        lambda: ahead('composed') / ahead('fused'),
        5,
        most=False,
    )
    goal(
        'scan, backward: at most 4 copies of the bytes of its forward',
        lambda: float(scan['fused']['backward ms']) / ahead('copy forward'),
        4,
        most=True,
    )
    goal(
        'scan, training: no more memory than its parts',
        lambda: (
            float(memory['fused']['peak MiB'])
            / float(memory['composed']['peak MiB'])
        ),
        1,
        most=True,
    )

    def best(name: str, dtype: str) -> float:
        """The most images per second of a model at batch 256."""
        return max(
            float(row['images/s'])
            for row in models
            if name in row['model'].lower()
            and (row['dtype'], row['batch']) == (dtype, '256')
        )

    def fastest_of_both(*names: str) -> str:
        """The shortest dtype that all of them ran in."""
        for dtype in ('bfloat16', 'tf32'):
            ran = {r['model'].lower() for r in models if r['dtype'] == dtype}
            if all(any(name in model for model in ran) for name in names):
                return dtype
        return 'float32'

    for ours, peer, size in (
        ('s6', 'efficientvit_m5', '224'),
        ('t2', 'efficientvit_m2', '224'),
        ('b4', 'efficientvit_m5', '512'),
    ):
        names = f'mobilemamba:{ours}', f'{peer}@{size}'
        dtype = fastest_of_both(*names)
        goal(
            f'{ours}, batch 256: 1.3 times the images per second of {peer} '
            f'at {size}, in {dtype}',
            lambda names=names, dtype=dtype: (
                best(names[0], dtype) / best(names[1], dtype)
            ),
            1.3,
            most=False,
        )
    for ours in ('t2', 's6', 'b4'):
        goal(
            f'{ours}, batch 256: bfloat16 twice as fast as float32',
            lambda ours=ours: (
                best(f'mobilemamba:{ours}', 'bfloat16')
                / best(f'mobilemamba:{ours}', 'float32')
            ),
            2,
            most=False,
        )
    return rows


def write_report(args: argparse.Namespace, steps: list[Step]) -> None:
    """The report so far, for people and for programs."""
    machine = describe_machine(args.device)
    met = goals(steps) if args.device == 'cuda' else []
    content = {
        'machine': machine,
        'goals': met,
        'steps': [asdict(step) for step in steps],
    }
    (args.out / 'report.json').write_text(json.dumps(content, indent=1))
    lines = [f'# GPU check, {args.device}', '']
    lines += [f'* {name}: {value}' for name, value in machine.items()]
    overview = [
        {'step': s.name, 'status': s.status, 'seconds': f'{s.seconds:.0f}'}
        for s in steps
    ]
    lines += ['', *markdown(overview)]
    if met:
        lines += ['', '## Goals', '', *markdown(met)]
    for step in steps:
        for title, rows in step.tables.items():
            shared, rows = without_shared(rows)
            lines += ['', f'## {step.name}: {title}', '']
            if shared:
                lines += [f'All: {shared}.', '']
            lines += markdown(rows)
    (args.out / 'report.md').write_text('\n'.join(lines) + '\n')


def without_shared(rows: list[dict]) -> tuple[str, list[dict]]:
    """What all rows of a table agree on, and the rows without that."""
    if len(rows) < 2:
        return '', rows
    shared = {
        name: value
        for name, value in rows[0].items()
        if value and all(row.get(name) == value for row in rows)
    }
    words = ', '.join(f'{name} {value}' for name, value in shared.items())
    return words, [
        {name: value for name, value in row.items() if name not in shared}
        for row in rows
    ]


def markdown(rows: list[dict]) -> list[str]:
    """A table."""
    if not rows:
        return ['nothing']

    def line(cells) -> str:
        texts = (str(cell).replace('|', '\\|') for cell in cells)
        return f'| {" | ".join(texts)} |'

    header = list(rows[0])
    return [
        line(header),
        line(['---'] * len(header)),
        *(line(row.get(name, '') for name in header) for row in rows),
    ]


def describe_machine(device: str) -> dict[str, str]:
    """What the figures depend on."""
    machine = {
        'date': time.strftime('%F'),
        'torch': torch.__version__,
        'Python': platform.python_version(),
        'machine': f'{platform.machine()}, {os.cpu_count()} cores',
    }
    packages = ('mmengine', 'mmcv', 'mmcv-lite', 'mmdet')
    for package in (*packages, *(f'onedl-{p}' for p in packages), 'timm'):
        with contextlib.suppress(metadata.PackageNotFoundError):
            machine[package] = metadata.version(package)
    machine['commit'] = said_by('git', 'rev-parse', '--short', 'HEAD')
    if device == 'cuda':
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            machine[f'GPU {i}'] = (
                f'{properties.name}, sm_{properties.major}{properties.minor}, '
                f'{properties.total_memory / 2**30:.0f} GiB'
            )
        machine['CUDA'] = str(torch.version.cuda)
        machine['cuDNN'] = str(torch.backends.cudnn.version())
        machine['driver'] = said_by(
            *('nvidia-smi', '--query-gpu=driver_version', '--format=csv'),
            '--id=0',
        )
    return machine


def said_by(*command: str) -> str:
    """The last line that a command prints, if it is there."""
    try:
        output = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'
    return output.strip().splitlines()[-1]


if __name__ == '__main__':
    main()
