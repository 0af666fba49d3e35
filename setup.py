"""Builds the extension mmmamba._ext; all else is in pyproject.toml.

The switches are those of mmcv: ``MMMAMBA_WITH_OPS=0`` builds no extension,
``FORCE_CUDA=1`` builds the CUDA ops where no GPU is seen, and torch reads
``MAX_JOBS`` and ``TORCH_CUDA_ARCH_LIST``. Without a compiler, or if the build
fails, the install goes on without the extension, which mmmamba can do without.
"""

import os
import sys
import warnings
from glob import glob

from setuptools import setup

CSRC = 'mmmamba/ops/csrc'


def without_extension(reason: str) -> None:
    """Say that the ops are not built, and why."""
    warnings.warn(
        f'mmmamba is installed without its compiled ops: {reason}. '
        'It works all the same, with the slower ops in PyTorch.',
        stacklevel=2,
    )


def extension() -> dict:
    """The arguments of setup() that build the extension, or none."""
    if os.getenv('MMMAMBA_WITH_OPS', '1') == '0':
        return {}
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError:
        without_extension(
            'PyTorch is not there to build them against; install it, then '
            'mmmamba with pip install --no-build-isolation'
        )
        return {}

    class BuildExtension(cpp_extension.BuildExtension):
        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:  # no compiler, or one that fails
                without_extension(f'the build failed ({error})')
                # Nothing to copy into an editable install, then.
                self.extensions.clear()

    sources = glob(f'{CSRC}/common/cpu/*.cpp') + glob(f'{CSRC}/pytorch/*.cpp')
    sources += glob(f'{CSRC}/pytorch/cpu/*.cpp')
    # No debug information, which would be most of the library. OpenMP is what
    # at::parallel_for is compiled to; not linked, so that PyTorch's own
    # runtime, which is loaded already, serves it.
    options = dict(cxx=['-O3', '-g0'], nvcc=['-O3'])
    if sys.platform == 'linux':
        options['cxx'].append('-fopenmp')
    kind = cpp_extension.CppExtension
    if torch.cuda.is_available() or os.getenv('FORCE_CUDA', '0') == '1':
        if cpp_extension.CUDA_HOME is not None:
            kind = cpp_extension.CUDAExtension
            sources += glob(f'{CSRC}/pytorch/cuda/*.cu')
        else:
            warnings.warn(
                'mmmamba is installed without its CUDA ops: no CUDA toolkit '
                '(nvcc) was found. Set CUDA_HOME to where it is.',
                stacklevel=1,
            )
    return dict(
        ext_modules=[
            kind('mmmamba._ext', sorted(sources), extra_compile_args=options)
        ],
        cmdclass={'build_ext': BuildExtension},
    )


setup(**extension())
