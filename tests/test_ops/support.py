"""What the tests of the ops share: comparing, layouts, programs."""

import contextlib
import math
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import mmmamba
from mmmamba import ops
from mmmamba.ops import backend

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PROGRAMS = Path(__file__).parent / 'programs'
PACKAGE = Path(mmmamba.__file__).parent


# ---------------------------------------------------------------------------
# Comparing
# ---------------------------------------------------------------------------


def with_gradients(function, inputs: dict, dtype: torch.dtype) -> dict:
    """Run an op; its output ``y`` and the gradient of every tensor.

    The output's gradient is random, rounded to ``dtype``, so that neither a
    position nor a channel is like another.
    """
    inputs = {
        name: value.detach().requires_grad_()
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }
    y = function(**inputs)
    rng = torch.Generator().manual_seed(1)
    grad = torch.randn(y.shape, generator=rng, dtype=torch.float64)
    y.backward(grad.to(dtype).to(y.dtype))
    grads = {
        name: value.grad
        for name, value in inputs.items()
        if isinstance(value, Tensor)
    }
    return {'y': y.detach(), **grads}


def mapped(function, value):
    """Apply a function to every tensor of a dict's or a list's values."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: mapped(function, v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [mapped(function, v) for v in value]
    return value


@contextlib.contextmanager
def pretended_gpu(inputs) -> Iterator:
    """The inputs as a GPU's, without data, and ops as compiled for it.

    The ops' Python runs as on a GPU, and their checks in C++.
    """

    def move(t: Tensor) -> Tensor:
        return torch.empty_strided(
            t.shape, t.stride(), dtype=t.dtype, device='cuda'
        )

    with mock.patch.dict(backend._compiled, cuda='cuda'):
        with FakeTensorMode(shape_env=ShapeEnv()):
            inputs = mapped(move, inputs)
        yield inputs


def doubled(inputs: dict) -> dict:
    """The same values in float64."""
    return mapped(Tensor.double, inputs)


def worst_error(out: Tensor, ref: Tensor) -> float:
    """Relative error of the worst sequence, since their scales differ."""
    assert out.shape == ref.shape
    error = (out.double() - ref).abs().amax(-1) / ref.abs().amax(-1)
    return float(error.max())


def run_ops(calls: list[tuple]) -> list:
    """Run ops by name, and their gradients where a dtype of them is given."""
    results = []
    for name, inputs, dtype in calls:
        op = getattr(ops, name)
        results.append(
            op(**inputs)
            if dtype is None
            else with_gradients(op, inputs, dtype)
        )
    return results


class Guarded:
    """Memory for outputs, between guards; every number must be written."""

    GUARD = 64  # numbers on either side of an output that must not change

    def __init__(self):
        self.memory = []

    def empty(self, *shape: int, dtype: torch.dtype, like=None) -> Tensor:
        """Of this shape, with the order of axes of `like`."""
        size = math.prod(shape)
        memory = torch.full((size + 2 * self.GUARD,), 1234.0, dtype=dtype)
        inside = memory[self.GUARD : self.GUARD + size]
        inside.fill_(-4321.0)
        self.memory.append(memory)
        strides = torch.empty(shape).stride()
        if like is not None:
            strides = torch.empty_like(like).stride()
        return inside.as_strided(shape, strides)

    def check(self) -> None:
        for memory in self.memory:
            assert (memory[: self.GUARD] == 1234.0).all()
            assert (memory[-self.GUARD :] == 1234.0).all()
            assert not (memory == -4321.0).any()


# ---------------------------------------------------------------------------
# Layouts: the same values, stored otherwise
# ---------------------------------------------------------------------------


def strided(t: Tensor) -> Tensor:
    """With a stride of 2 on the last axis."""
    return torch.stack([t, torch.full_like(t, math.nan)], -1)[..., 0]


def permuted(t: Tensor) -> Tensor:
    """With the axes in reverse order."""
    axes = tuple(reversed(range(t.dim())))
    return t.permute(axes).contiguous().permute(axes)


def opcheck(op, arguments: tuple, **options) -> dict:
    """PyTorch's own check of an op, where it has one."""
    if not hasattr(torch.library, 'opcheck'):
        pytest.skip('opcheck: PyTorch has it since 2.4')
    return torch.library.opcheck(op, arguments, **options)


# ---------------------------------------------------------------------------
# The compiled library, and programs in processes of their own
# ---------------------------------------------------------------------------


def library() -> Path | None:
    """The compiled ops that serve here, or would, were they asked for."""
    path = PACKAGE / library_name(torch.__version__)
    return path if path.is_file() else None


def library_name(version: str) -> str:
    """The file of the ops that are compiled for a version of PyTorch."""
    return f'_torch{"_".join(version.split(".")[:2])}_ops.so'


def find_compiler(target: str | None = None) -> list[str]:
    """The compiler that setup.py would use; skips a test where there is none.

    Args:
        target: The architecture that the test is for, if it is for one.
    """
    if target is not None and platform.machine() != target:
        pytest.skip(f'this is {platform.machine()}, not {target}')
    command = os.environ.get('CXX', 'c++').split()
    if shutil.which(command[0]) is None:
        pytest.skip(f'no C++ compiler ({command[0]})')
    return command


def copy_ops(folder: Path) -> Path:
    """Copy the Python files of the ops, so that another library fits beside.

    Returns:
        Path: The package, which holds the ops alone and nothing compiled.
    """
    package = folder / 'mmmamba'
    for file in (PACKAGE / 'ops').rglob('*.py'):
        copied = package / file.relative_to(PACKAGE)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied)
    (package / '__init__.py').touch()
    return package


def start_program(name: str, *args, **env: str) -> subprocess.Popen:
    """Start programs/NAME.py on the mmmamba that is tested here."""
    paths = [str(PACKAGE.parent), str(TESTS)]
    return subprocess.Popen(
        [sys.executable, PROGRAMS / f'{name}.py', *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join(paths),
            **env,
        },
    )


def finish_program(process: subprocess.Popen) -> str:
    """Wait for a program that must succeed; what it printed."""
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, (out[-200:], err[-1000:])
    return out


def run_program(name: str, *args, **env: str) -> str:
    """Run programs/NAME.py; what it printed."""
    return finish_program(start_program(name, *args, **env))
