"""Gather wheels for a machine without internet that has PyTorch.

Downloads what mmmamba's network, its tests and benchmarks need, with what that
needs, for another version of Python and another platform. PyTorch, NumPy,
Matplotlib and OpenCV are left out: they are large, and such machines have
them; name them as packages to have them too. No OpenMMLab is built: mmcv-lite
is pure Python.
"""

import argparse
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = ('onedl-mmengine', 'mmcv-lite', 'timm', 'pytest', 'ninja')
#: What the machine has, or what something else here stands in for.
LEFT_OUT = {
    *('torch', 'torchvision', 'triton', 'numpy', 'matplotlib'),
    *('opencv-python', 'opencv-python-headless', 'mmengine', 'pillow'),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'packages',
        nargs='*',
        default=PACKAGES,
        metavar='PACKAGE',
        help=f'what to gather, as pip takes it (default: '
        f'{" ".join(PACKAGES)})',
    )
    parser.add_argument(
        '--python',
        default='3.12',
        metavar='X.Y',
        help='the version of Python there (default: %(default)s)',
    )
    parser.add_argument(
        '--machine',
        default='x86_64',
        help='what uname -m prints there (default: %(default)s)',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('wheels'),
        help='a new folder (default: %(default)s)',
    )
    parser.add_argument(
        '--limit',
        type=float,
        default=60,
        metavar='MIB',
        help='what they may take together (default: %(default)g)',
    )
    args = parser.parse_args()
    if args.out.exists() and any(args.out.iterdir()):
        parser.error(f'--out {args.out} is not empty')
    return args


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    named = {canonicalize_name(Requirement(p).name) for p in args.packages}
    gathered: set[str] = set()
    waiting = list(args.packages)
    while waiting:
        package = waiting.pop(0)
        name = canonicalize_name(Requirement(package).name)
        if name in gathered or name in LEFT_OUT - named:
            continue
        gathered.add(name)
        print(package, flush=True)
        waiting += needs(download(package, args), args)
    size = sum(w.stat().st_size for w in args.out.iterdir()) / 2**20
    print(
        f'{len(gathered)} wheels of {size:.1f} MiB in {args.out}. There:\n'
        f'  python3 -m pip install --no-index --no-deps --target SITE '
        f'{args.out}/*.whl\n'
        '  export PYTHONPATH=SITE'
    )
    if size > args.limit:
        sys.exit(
            'carry_wheels.py: error: that is more than --limit '
            f'{args.limit:g} MiB; name fewer packages'
        )


def download(package: str, args: argparse.Namespace) -> Path:
    """Download one wheel for the other machine, without its needs."""
    before = set(args.out.iterdir())
    platforms = [f'manylinux_2_{n}_{args.machine}' for n in range(17, 40)]
    platforms += [f'manylinux{n}_{args.machine}' for n in (1, 2010, 2014)]
    options = [o for p in platforms for o in ('--platform', p)]
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--disable-pip-version-check', '--only-binary', ':all:']
    command += ['--python-version', args.python, '--implementation', 'cp']
    command += ['--dest', str(args.out), *options, package]
    if subprocess.run(command).returncode:
        sys.exit(
            f'carry_wheels.py: error: pip found no wheel of {package} for '
            f'Python {args.python} on {args.machine}'
        )
    (wheel,) = set(args.out.iterdir()) - before
    return wheel


def needs(wheel: Path, args: argparse.Namespace) -> list[str]:
    """What a wheel says that it needs on Linux, without extras."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(
            n for n in archive.namelist() if n.endswith('.dist-info/METADATA')
        )
        message = message_from_bytes(archive.read(metadata))
    environment = dict(
        python_version=args.python,
        python_full_version=f'{args.python}.0',
        platform_machine=args.machine,
        sys_platform='linux',
        platform_system='Linux',
        os_name='posix',
        implementation_name='cpython',
        platform_python_implementation='CPython',
        extra='',
    )
    found = map(Requirement, message.get_all('Requires-Dist') or [])
    return [
        str(r.name) + str(r.specifier)
        for r in found
        if r.marker is None or r.marker.evaluate(environment)
    ]


if __name__ == '__main__':
    main()
