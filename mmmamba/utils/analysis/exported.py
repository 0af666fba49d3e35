"""Exported models among those that are compared."""

import os
import subprocess
import sys
from pathlib import Path

from mmmamba.utils.cli import UsageError

#: What a file's name begins with, and what it ends with.
RUNTIMES = {'ort': ('.onnx',), 'openvino': ('.xml', '.onnx')}
_WORKER = Path(__file__).with_name('exported_worker.py')


class ExportedFile:
    """A file that ONNX Runtime or OpenVINO runs.

    Args:
        name (str): ``ort:FILE`` or ``openvino:FILE``.

    Raises:
        UsageError: If there is no such file, or one of another format.
    """

    def __init__(self, name: str) -> None:
        runtime, _, file = name.partition(':')
        self.file, self.runtime = Path(file), runtime
        self.name = f'{runtime}:{self.file.name}'
        self.is_ours = b'mmmamba' in self._read()
        self._process: subprocess.Popen | None = None

    def _read(self) -> bytes:
        if not self.file.is_file():
            raise UsageError(f'there is no model {self.file}')
        if not self.file.name.endswith(RUNTIMES[self.runtime]):
            raise UsageError(f'{self.file} is not a file of {self.runtime}')
        return self.file.read_bytes()

    def start(self, batch_size: int, threads: int) -> None:
        """Start the process that runs it.

        Args:
            batch_size (int): Images at once.
            threads (int): Threads of the runtime.

        Raises:
            RuntimeError: If it does not run; says why.
        """
        self.stop()
        root = str(Path(__file__).parents[3])
        paths = [root, os.environ.get('PYTHONPATH', '')]
        self._process = subprocess.Popen(
            [
                *(sys.executable, str(_WORKER), self.runtime, str(self.file)),
                *(str(batch_size), str(threads)),
            ],
            env=os.environ
            | dict(PYTHONPATH=os.pathsep.join(filter(None, paths))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if self._answer() != 'ready':
            raise RuntimeError(self._reason())

    def time(self, repeats: int) -> float:
        """Mean seconds of a call."""
        assert self._process is not None and self._process.stdin is not None
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

    def _answer(self) -> str:
        assert self._process is not None and self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _reason(self) -> str:
        assert self._process is not None
        _, errors = self._process.communicate()
        return (errors.strip().splitlines() or ['it ended'])[-1]
