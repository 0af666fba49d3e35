"""Build mmcv for the torch of this environment, and keep the wheel.

It shows how far the build is, goes on where an earlier one was interrupted,
and keeps the wheel in the user's cache, by the versions of torch and Python: a
second environment takes seconds. tools/setup_env.sh runs it; needs torch, pip,
setuptools and ninja.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

#: What setup_env.sh installs with the current stack.
PACKAGE = 'onedl-mmcv==2.3.6'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
#: What a compiler needs at most, for one of mmcv's files.
GIGABYTES_A_JOB = 2.5


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--package',
        default=PACKAGE,
        help='which mmcv; mmcv==2.1.0 is that of the classic stack (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--cache-dir',
        type=Path,
        default=CACHE / 'mmmamba/mmcv',
        help='where sources, objects and wheels are kept (default: '
        '%(default)s)',
    )
    parser.add_argument(
        '--jobs',
        type=int,
        default=int(os.environ.get('MAX_JOBS') or 0) or default_jobs(),
        help='compilers at once (default: MAX_JOBS, or as many as cores and '
        'memory bear, here %(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_compiler()
    folder = args.cache_dir / key(args.package)
    folder.mkdir(parents=True, exist_ok=True)
    wheel = next(folder.glob('*.whl'), None)
    if wheel is None:
        build(get_sources(args.package, folder), folder, args.jobs)
        wheel = next(folder.glob('*.whl'))
    print(wheel)


def key(package: str) -> str:
    """What a wheel belongs to."""
    kind = f'cuda{torch.version.cuda}-{gpus()}' if has_cuda() else 'cpu'
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    version = torch.__version__.partition('+')[0]
    name = package.replace('==', '-')
    return f'{name}-torch{version}-{kind}-{python}-{platform.machine()}'


def has_cuda() -> bool:
    """Whether mmcv will be built with its CUDA ops."""
    return torch.cuda.is_available() or os.getenv('FORCE_CUDA', '0') == '1'


def gpus() -> str:
    """The kinds of GPU that PyTorch will compile for."""
    listed = os.environ.get('TORCH_CUDA_ARCH_LIST')
    if listed:
        return re.sub(r'[^\w.+]+', '_', listed)
    count = torch.cuda.device_count()
    found = {torch.cuda.get_device_capability(i) for i in range(count)}
    return '_'.join(f'{x}.{y}' for x, y in sorted(found)) or 'all'


def check_compiler() -> None:
    """Refuse early what mmcv's setup.py would fail at."""
    if not (has_cuda() and torch.version.cuda):
        return
    from torch.utils import cpp_extension  # which warns without a GPU

    if cpp_extension.CUDA_HOME is None:
        sys.exit(
            'PyTorch sees a GPU, and the CUDA ops of mmcv are built by nvcc, '
            f'which is not here. Install the CUDA toolkit {torch.version.cuda}'
            ' and set CUDA_HOME, or do without the GPU, here and in all that '
            'follows: export CUDA_VISIBLE_DEVICES='
        )


def default_jobs() -> int:
    """As many compilers as the cores and the memory bear."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == 'linux' else 0
    cores = cores or os.cpu_count() or 1
    try:
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError):
        return cores
    return max(1, min(cores, int(memory / 1e9 / GIGABYTES_A_JOB)))


def get_sources(package: str, folder: Path) -> Path:
    """Fetch mmcv's sources, if they are not there."""
    sources = folder / package.replace('-', '_').replace('==', '-')
    if sources.is_dir():
        return sources
    subprocess.run(
        [
            *(sys.executable, '-m', 'pip', 'download', '--quiet'),
            *('--disable-pip-version-check', '--no-deps', '--no-binary'),
            *(':all:', '--no-build-isolation', '--dest', folder),
            package,
        ],
        check=True,
    )
    part = folder / 'part'
    shutil.unpack_archive(folder / f'{sources.name}.tar.gz', part)
    setup = part / sources.name / 'setup.py'
    if torch_version() >= (2, 14):  # its headers are of C++20
        text = setup.read_text()
        setup.write_text(text.replace('-std=c++17', '-std=c++20'))
    os.replace(part / sources.name, sources)
    part.rmdir()
    return sources


def torch_version() -> tuple[int, int]:
    """Major and minor version."""
    major, minor = torch.__version__.split('.')[:2]
    return int(major), int(minor)


def build(sources: Path, folder: Path, jobs: int) -> None:
    """Build the wheel; objects that are compiled already are kept."""
    log, new = folder / 'build.log', folder / 'new'
    shutil.rmtree(new, ignore_errors=True)  # of an interrupted build
    tell(f'{sources.name}: compiling with {jobs} jobs; log: {log}')
    process = subprocess.Popen(
        [sys.executable, 'setup.py', 'bdist_wheel', '--dist-dir', new],
        cwd=sources,
        env={
            **os.environ,
            'MMCV_WITH_OPS': '1',
            'MAX_JOBS': str(jobs),
            # Python's own flags ask for debug information, half of the time.
            'CFLAGS': os.environ.get('CFLAGS', '') + ' -g0',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )
    progress = Progress()
    try:
        with open(log, 'w') as target:
            for line in process.stdout:
                target.write(line)
                # As ninja counts: [files done/files to do]
                found = re.match(r'\[(\d+)/(\d+)\]', line)
                if found:
                    progress.show(int(found[1]), int(found[2]))
    finally:
        progress.end()
        process.terminate()
        code = process.wait()
    if code:
        tail = log.read_text(errors='replace').splitlines()[-30:]
        sys.exit('\n'.join([*tail, f'mmcv was not built; {log} has it all']))
    for wheel in new.glob('*.whl'):  # whole
        os.replace(wheel, folder / wheel.name)


def tell(text: str, end: str = '\n') -> None:
    """Say something; standard output is for the wheel's path."""
    print(text, end=end, file=sys.stderr, flush=True)


class Progress:
    """Files done, files to do, and the time that is left."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.shown = 0.0

    def show(self, done: int, count: int) -> None:
        """Show it in the same line, or a line a minute in a log."""
        now = time.monotonic()
        terminal = sys.stderr.isatty()
        if done < count and now - self.shown < (0.2 if terminal else 60):
            return
        self.shown = now
        left = (now - self.start) / done * (count - done)
        text = f'mmcv: {done} of {count} files, about {left / 60:.0f} min left'
        tell(text.ljust(60), end='\r' if terminal else '\n')

    def end(self) -> None:
        """Leave the line."""
        if sys.stderr.isatty():
            tell('')


if __name__ == '__main__':
    try:
        main()
    except KeyboardInterrupt:
        sys.exit('interrupted; the next build goes on from here')
