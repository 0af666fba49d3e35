"""Contenders of a benchmark that run in processes of their own."""

import contextlib
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch

from mmmamba.utils.cli import UsageError
from mmmamba.utils.onnx import trace

from .models import NamedModel

#: What a file's name begins with, and what it ends with.
RUNTIMES = {'ort': ('.onnx',), 'openvino': ('.xml', '.onnx')}
_WORKER = Path(__file__).with_name('worker.py')


class Worker:
    """A process that times a model on request: see ``worker.py``."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def start(self, *command: str | Path | int) -> None:
        """Start the process.

        Args:
            *command (str | Path | int): What Python is to run.

        Raises:
            RuntimeError: If it does not get ready; says why.
        """
        self.stop()
        root = str(Path(__file__).parents[3])
        paths = [root, os.environ.get('PYTHONPATH', '')]
        # Not a pipe, which could fill up.
        self._errors = tempfile.TemporaryFile('w+')  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            env=os.environ
            | dict(PYTHONPATH=os.pathsep.join(filter(None, paths))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        if self._answer() != 'ready':
            raise RuntimeError(self._reason())

    def time(self, repeats: int) -> float:
        """Mean seconds of a call.

        Raises:
            RuntimeError: If the process has ended; says why.
        """
        assert self._process is not None and self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended
            self._process.stdin.write(f'{repeats}\n')
            self._process.stdin.flush()
        answer = self._answer()
        if not answer:
            raise RuntimeError(self._reason())
        return float(answer)

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
            self._errors.close()

    def _answer(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _reason(self) -> str:
        assert self._process is not None
        self._process.wait()
        self._errors.seek(0)
        return (self._errors.read().strip().splitlines() or ['it ended'])[-1]


class ExportedFile:
    """A file that ONNX Runtime or OpenVINO runs.

    Args:
        name (str): ``ort:FILE`` or ``openvino:FILE``.

    Raises:
        UsageError: If there is no such file, or one of another format.
    """

    dtype = 'file'

    def __init__(self, name: str) -> None:
        runtime, _, file = name.partition(':')
        self._file, self.runtime = Path(file), runtime
        self.name = f'{runtime}:{self._file.name}'
        self.is_ours = b'mmmamba' in self._read()

    def _read(self) -> bytes:
        if not self._file.is_file():
            raise UsageError(f'there is no model {self._file}')
        if not self._file.name.endswith(RUNTIMES[self.runtime]):
            raise UsageError(
                f'{self._file} is not a file of {self.runtime}; our models '
                'are exported by tools/deployment/export.py'
            )
        return self._file.read_bytes()

    def file(self, batch_size: int) -> Path:
        """The file to run for batches of a size."""
        return self._file

    def start(self, worker: Worker, batch_size: int, threads: int) -> None:
        """Start a process that runs it.

        Args:
            worker (Worker): The process.
            batch_size (int): Images at once.
            threads (int): Threads of the runtime.

        Raises:
            RuntimeError: If it does not run; says why.
        """
        file = self.file(batch_size)
        worker.start(_WORKER, self.runtime, file, batch_size, threads)


class ExportedModel(ExportedFile):
    """A model of others that is exported for the benchmark.

    Args:
        runtime (str): ``'ort'`` or ``'openvino'``.
        model (NamedModel): The model, fused if it shall be.
        folder (Path): Where the files go, which runtimes share.
    """

    dtype = 'float32'
    is_ours = False

    def __init__(self, runtime: str, model: NamedModel, folder: Path) -> None:
        self.runtime, self.name = runtime, model.name
        self._model, self._folder = model, folder

    def file(self, batch_size: int) -> Path:
        """Export it for batches of this size, which is no slower than for any.

        Args:
            batch_size (int): Images at once.

        Returns:
            Path: The ONNX file.
        """
        name = self.name.replace(':', '_').replace('/', '_')
        file = self._folder / f'{name}_{batch_size}.onnx'
        if not file.exists():
            images = torch.rand(batch_size, 3, *self._model.shape)
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # of sizes that become fixed
                file.write_bytes(trace(self._model, images, opset_version=17))
        return file
