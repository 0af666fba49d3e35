"""Prove and measure the CUDA path on this machine, in one command.

Builds the ops for the GPU that is here, runs their tests and the network's,
compute-sanitizer, and the benchmarks, the most valuable first. Each step is on
its own: what fails or takes too long stops nothing else. Needs PyTorch >= 2.6
with nvcc, and for the network mmengine and mmcv or mmcv-lite. The report is
OUT/report.md, with OUT/report.json beside it, and is there after each step.
"""

import argparse
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
from importlib.util import find_spec
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools/analysis_tools'


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
        status (str): ``passed``, or what happened.
        seconds (float): What it took.
        tables (dict): By title, rows of a table.
    """

    name: str
    command: list[str]
    minutes: float
    missing: str = ''
    environment: dict[str, str] = field(default_factory=dict)
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
        steps = [step for step in steps if step.name in args.steps]
    for number, step in enumerate(steps, 1):
        print(f'[{number}/{len(steps)}] {step.name} ...', end=' ', flush=True)
        run(step, args.out, end)
        print(f'{step.status} ({step.seconds:.0f} s)')
        write_report(args, steps)
    print(args.out / 'report.md')
    if any(step.status.startswith('failed') for step in steps):
        sys.exit(1)


# ---------------------------------------------------------------------------
# The steps
# ---------------------------------------------------------------------------


def cuda_steps(out: Path) -> list[Step]:
    """What runs on a GPU, the most valuable first."""
    major, minor = torch.cuda.get_device_capability()
    build = dict(FORCE_CUDA='1', TORCH_CUDA_ARCH_LIST=f'{major}.{minor}')
    sanitizer = shutil.which('compute-sanitizer')
    no_sanitizer = '' if sanitizer else 'compute-sanitizer is not on the PATH'
    short = ['tests/test_ops/test_cuda.py']
    short += ['-k', '33 or 9- or inference_layout']
    steps = [
        Step('build', python('setup.py', 'build_ext', '--inplace'), 15),
        pytest_step(out, 'ops', 'tests/test_ops/test_cuda.py'),
        pytest_step(out, 'network', 'tests/test_device', '-k', 'cuda'),
        csv_step(
            *(out, 'scan', 'benchmark_op.py', '--device', 'cuda'),
            *('--batch-size', '64', '--tables', 'targets', 'memory', 'shapes'),
        ),
        csv_step(
            *(out, 'networks', 'benchmark.py', '--device', 'cuda', '--fuse'),
            *('mobilemamba:t2@192', 'timm:efficientvit_m2@224'),
            *('mobilemamba:s6@224', 'timm:efficientvit_m5@224'),
            *('mobilemamba:b4@512', 'timm:efficientvit_m5@512'),
            *('--batch-sizes', '256', '1', '--channels-last', 'both'),
            *('--dtypes', 'float32', 'tf32', 'bfloat16'),
            *('--modes', 'cudagraph', '--rounds', '5'),
        ),
        csv_step(
            *(out, 'deployed', 'benchmark_op.py', '--device', 'cuda'),
            *('--batch-size', '256', '--dtype', 'bf16', '--rounds', '5'),
            *('--tables', 'deployed'),
        ),
        Step(
            'memcheck',
            sanitized('memcheck', *short),
            10,
            no_sanitizer,
            dict(PYTORCH_NO_CUDA_MEMORY_CACHING='1'),
        ),
        Step('racecheck', sanitized('racecheck', *short), 10, no_sanitizer),
        Step('initcheck', sanitized('initcheck', *short), 10, no_sanitizer),
        csv_step(
            *(out, 'compiled', 'benchmark.py', '--device', 'cuda', '--fuse'),
            *('mobilemamba:t2@192', 'mobilemamba:t4@192'),
            *('mobilemamba:b1@256', 'timm:repvit_m1_1@224'),
            *('timm:mobilenetv4_conv_medium@256', '--batch-sizes', '256', '1'),
            *('--dtypes', 'bfloat16', '--modes', 'eager', 'compiled'),
        ),
        pytest_step(out, 'detector', 'tests/test_device/test_detector.py'),
    ]
    steps[0].environment = build
    return steps


def cpu_steps(out: Path) -> list[Step]:
    """The same on the CPU, in small: the kernels are emulated."""
    emulated = 'tests/test_ops/test_cuda_kernel.py'
    return [
        Step('build', python('setup.py', 'build_ext', '--inplace'), 15),
        pytest_step(out, 'ops', emulated, '-k', 'nan or layout'),
        pytest_step(out, 'network', 'tests/test_device', '-k', 'cpu'),
        csv_step(
            *(out, 'scan', 'benchmark_op.py', '--rounds', '2'),
            *('--tables', 'targets', 'memory'),
        ),
        csv_step(
            *(out, 'networks', 'benchmark.py', 'mobilemamba:t2@64'),
            *('timm:efficientvit_m2@64', '--batch-sizes', '2'),
            *('--dtypes', 'float32', 'bfloat16', '--rounds', '2'),
        ),
        csv_step(
            *(out, 'deployed', 'benchmark_op.py', '--rounds', '2'),
            *('--tables', 'deployed'),
        ),
        pytest_step(out, 'detector', 'tests/test_device/test_detector.py'),
    ]


def python(*arguments: object) -> list[str]:
    return [sys.executable, *map(str, arguments)]


def pytest_step(out: Path, name: str, *arguments: str) -> Step:
    """Tests, of which the report has the numbers that they record."""
    options = ['-p', 'no:cacheprovider', f'--junitxml={out / name}.xml']
    return Step(name, python('-m', 'pytest', *arguments, *options), 10)


def csv_step(out: Path, name: str, tool: str, *arguments: str) -> Step:
    """A benchmark, of which the report has the tables."""
    missing = ''
    if any(a.startswith('timm:') for a in arguments) and not find_spec('timm'):
        missing = 'timm is not installed'
    table = ('--csv', out / f'{name}.csv')
    return Step(name, python(TOOLS / tool, *arguments, *table), 12, missing)


def sanitized(tool: str, *arguments: str) -> list[str]:
    """Tests under one of compute-sanitizer's tools."""
    sanitizer = ['compute-sanitizer', '--tool', tool, '--error-exitcode', '9']
    return sanitizer + python('-m', 'pytest', '-x', *arguments)


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
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    step.seconds = time.monotonic() - start
    read_results(step, out)


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
    """Each test that ran or failed, and the numbers that it recorded."""
    rows = []
    for case in ET.parse(path).getroot().iter('testcase'):
        if case.find('skipped') is not None:
            continue
        failure = case.find('failure')
        problem = case.find('error') if failure is None else failure
        recorded = [
            f'{p.get("name")} {p.get("value")}' for p in case.iter('property')
        ]
        result = 'passed'
        if problem is not None:
            result = (problem.get('message') or 'failed').splitlines()[0][:100]
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
    # Of two steps with networks, this one has the peers of the goals.
    tables = {step.name: step.tables for step in steps}
    scans, models = tables.get('scan', {}), tables.get('networks', {})
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

    def best(name: str, **wanted: str) -> float:
        """The most images per second of a model at batch 256."""
        wanted['batch'] = '256'
        found = [
            float(row['images/s'])
            for row in models.get('models', [])
            if name in row['model'].lower()
            and all(row[key] == value for key, value in wanted.items())
        ]
        return max(found)

    for ours, peer, size in (
        ('s6', 'efficientvit_m5', '224'),
        ('t2', 'efficientvit_m2', '224'),
        ('b4', 'efficientvit_m5', '512'),
    ):
        goal(
            f'{ours}, batch 256: 1.3 times the images per second of {peer} '
            f'at {size}',
            lambda ours=ours, peer=peer, size=size: (
                best(f'mobilemamba:{ours}') / best(f'{peer}@{size}')
            ),
            1.3,
            most=False,
        )
    for ours in ('t2', 's6', 'b4'):
        goal(
            f'{ours}, batch 256: bfloat16 twice as fast as float32',
            lambda ours=ours: (
                best(f'mobilemamba:{ours}', dtype='bfloat16')
                / best(f'mobilemamba:{ours}', dtype='float32')
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
    if device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        machine['GPU'] = (
            f'{properties.name}, sm_{properties.major}{properties.minor}, '
            f'{properties.total_memory / 2**30:.0f} GiB'
        )
        machine['CUDA'] = str(torch.version.cuda)
    return machine


if __name__ == '__main__':
    main()
