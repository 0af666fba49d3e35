"""Builds what is compiled; all else is in pyproject.toml.

Three libraries have the same kernels: ``_torchX_Y_ops.so`` for PyTorch X.Y,
``_ort_ops.so`` for ONNX Runtime, and ``_openvino_ops.so`` where openvino is
installed. None is a module of Python, so that they serve every Python, and
those for several versions of PyTorch lie side by side in one wheel
(tools/dev/build_wheel.py).

The switches are those of mmcv: ``MMMAMBA_WITH_OPS=0`` builds nothing,
``FORCE_CUDA=1`` builds the CUDA ops where no GPU is seen, and torch reads
``MAX_JOBS`` and ``TORCH_CUDA_ARCH_LIST``. Without a compiler, or if a build
fails, the install goes on without that library, which mmmamba can do without,
or without CUDA. ``MMMAMBA_WITH_OPS=1`` makes that an error.
"""

import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.modified import newer_group

try:
    import torch
    from torch.utils import cpp_extension
except ImportError:
    torch = None

CSRC = 'mmmamba/ops/csrc'
HEADERS = glob(f'{CSRC}/**/*.h*', recursive=True)
CUDA_HEADERS = glob(f'{CSRC}/**/*.cuh', recursive=True)
# No debug information, which would be most of a library.
FLAGS = ['-O3', '-g0']
# Of what is free of torch; nothing of it is for other libraries.
FREE_FLAGS = [*FLAGS, '-std=c++17', '-fvisibility=hidden']
CUDA_LIBRARIES = ['cudart', 'c10_cuda', 'torch_cuda']
SLOWER = ', with the slower ops in PyTorch'


def without(library: str, reason: str, rest: str = '') -> None:
    """Say that a library is not built, and why; an error if it had to be."""
    if os.getenv('MMMAMBA_WITH_OPS') == '1':
        sys.exit(
            f'mmmamba cannot be installed with {library}: {reason}. Unset '
            'MMMAMBA_WITH_OPS=1 to install it without.'
        )
    warnings.warn(
        f'mmmamba is installed without {library}: {reason}. It works all the '
        f'same{rest}.',
        stacklevel=2,
    )


def has_cuda(extension: Extension) -> bool:
    """Whether nvcc compiles a part of it."""
    return any(source.endswith('.cu') for source in extension.sources)


def leave_cuda_out(extension: Extension) -> None:
    """Make of torch's CUDAExtension a CppExtension."""
    for names in (extension.sources, extension.libraries):
        names[:] = [
            name
            for name in names
            if not name.endswith('.cu') and name not in CUDA_LIBRARIES
        ]


class BuildExtension(cpp_extension.BuildExtension if torch else build_ext):
    """Builds what can be built."""

    def get_ext_filename(self, name: str) -> str:
        """A library's file has no Python in its name."""
        return f'{name.replace(".", os.sep)}.so'

    def get_export_symbols(self, extension: Extension) -> list[str]:
        """Nothing of Python's."""
        return extension.export_symbols

    def build_extensions(self) -> None:
        """Compile the kernels once, then the libraries with them."""
        self.failed = []
        try:
            kernels = self.compile_kernels()
            for extension in self.extensions:
                extension.extra_objects += kernels
            self.build_with_or_without_cuda()
        except Exception as error:  # no compiler, for example
            without('its compiled ops', f'the build failed ({error})', SLOWER)
            self.failed = self.extensions
        # Nothing of these to copy into an editable install.
        self.extensions = [e for e in self.extensions if e not in self.failed]

    def build_with_or_without_cuda(self) -> None:
        """Build the libraries; nvcc may not suit PyTorch or the compiler."""
        try:
            super().build_extensions()
        except Exception as error:
            with_cuda = [e for e in self.extensions if has_cuda(e)]
            if not with_cuda:
                raise
            without('its CUDA ops', f'their build failed ({error})', SLOWER)
            for extension in with_cuda:
                leave_cuda_out(extension)
            super().build_extensions()

    def build_extension(self, extension: Extension) -> None:
        """Build a library, or say that it is not built."""
        if '_torch' not in extension.name:
            # Without PyTorch's own flags: an older one has another C++ ABI.
            extension.extra_compile_args = FREE_FLAGS[:]
        try:
            super().build_extension(extension)
        except Exception as error:
            if has_cuda(extension):
                raise
            rest = SLOWER if '_torch' in extension.name else ''
            without(extension.name, f'the build failed ({error})', rest)
            self.failed.append(extension)

    def compile_kernels(self) -> list[str]:
        """Compile what all libraries share; the objects."""
        # The same for every Python and PyTorch.
        folder = f'build/kernels.{self.plat_name}'

        def compile_file(source: str) -> str:
            (target,) = self.compiler.object_filenames(
                [source], output_dir=folder
            )
            if newer_group([source, *HEADERS], target):
                self.compiler.compile(
                    [source], folder, extra_postargs=FREE_FLAGS
                )
            return target

        jobs = int(os.getenv('MAX_JOBS') or os.cpu_count() or 1)
        with ThreadPoolExecutor(jobs) as pool:
            sources = sorted(glob(f'{CSRC}/common/cpu/*.cpp'))
            return list(pool.map(compile_file, sources))


class Wheel(bdist_wheel):
    """A wheel for a platform and every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI and platform."""
        return 'py3', 'none', super().get_tag()[2]


def pytorch_ops() -> list[Extension]:
    """The ops for PyTorch, if it is there."""
    if torch is None:
        without(
            'its compiled ops',
            'PyTorch is not there to build it against; install it, then '
            'mmmamba with pip install --no-build-isolation',
            SLOWER,
        )
        return []
    sources = glob(f'{CSRC}/pytorch/*.cpp') + glob(f'{CSRC}/pytorch/cpu/*.cpp')
    version = tuple(map(int, torch.__version__.split('.')[:2]))
    options = dict(cxx=FLAGS[:], nvcc=['-O3'])
    if version < (2, 10) and sys.platform == 'linux':
        # What at::parallel_for is compiled to (csrc/pytorch/cpu/launch.h); not
        # linked, so that PyTorch's own runtime, which is loaded, serves it.
        options['cxx'].append('-fopenmp')
    kind = cpp_extension.CppExtension
    if torch.cuda.is_available() or os.getenv('FORCE_CUDA', '0') == '1':
        if torch.version.cuda is None:
            without('its CUDA ops', 'this PyTorch is without CUDA', SLOWER)
        elif cpp_extension.CUDA_HOME is None:
            without(
                'its CUDA ops',
                'no CUDA toolkit (nvcc) was found, so set CUDA_HOME to where '
                'it is',
                SLOWER,
            )
        else:
            kind = cpp_extension.CUDAExtension
            sources += glob(f'{CSRC}/pytorch/cuda/*.cu')
    extension = kind(
        'mmmamba._torch{}_{}_ops'.format(*version),
        sorted(sources),
        depends=HEADERS + CUDA_HEADERS,
        extra_compile_args=options,
    )
    if 'torch_python' in extension.libraries:
        extension.libraries.remove('torch_python')
    return [extension]


def onnxruntime_ops() -> list[Extension]:
    """The ops for ONNX Runtime, which need nothing of it."""
    return [
        Extension(
            'mmmamba._ort_ops',
            [f'{CSRC}/onnxruntime/custom_ops.cpp'],
            depends=HEADERS,
            extra_compile_args=FREE_FLAGS[:],
            language='c++',
        )
    ]


def openvino_ops() -> list[Extension]:
    """The ops for OpenVINO, if it is there."""
    spec = find_spec('openvino')
    if spec is None or spec.origin is None:  # a folder of this name
        return []
    package = Path(spec.origin).parent
    # Loaded already wherever OpenVINO loads the extension.
    libraries = [
        str(library)
        for name in ('libopenvino.*', 'libtbb.*')
        for library in (package / 'libs').glob(name)
        if library.suffix != '.pc'
    ]
    return [
        Extension(
            'mmmamba._openvino_ops',
            [f'{CSRC}/openvino/extension.cpp'],
            depends=HEADERS,
            include_dirs=[str(package / 'include')],
            extra_objects=libraries,
            extra_compile_args=FREE_FLAGS[:],
            language='c++',
        )
    ]


if os.getenv('MMMAMBA_WITH_OPS', '1') == '0':
    setup()
else:
    setup(
        ext_modules=[*pytorch_ops(), *onnxruntime_ops(), *openvino_ops()],
        cmdclass={'build_ext': BuildExtension, 'bdist_wheel': Wheel},
    )
