"""The side of a benchmark's process: it times a model on request.

ONNX Runtime and OpenVINO keep threads that wait actively; beside PyTorch in
one process both would look slow. Started as a file, it runs an exported model.
"""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path


def usable_cores() -> list[int]:
    """List the cores that this process may use.

    Returns:
        list[int]: Their numbers, in order.
    """
    if hasattr(os, 'sched_getaffinity'):  # not on macOS and Windows
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def keep_to_cores(threads: int) -> None:
    """Let this process use as many cores as it has threads.

    Args:
        threads (int): How many; the first ones of those it may use.
    """
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, usable_cores()[:threads])


def serve(time_calls: Callable[[int], float]) -> None:
    """Answer each line of the input, a number of calls, with their time.

    Args:
        time_calls (Callable): Gives the mean seconds of so many calls.
    """
    print('ready', flush=True)
    for line in sys.stdin:
        print(time_calls(int(line)), flush=True)


def main() -> None:
    """Serve an exported model."""
    kind, file, batch, threads = sys.argv[1:]
    keep_to_cores(int(threads))
    # Where PyTorch is installed, importing it would start its threads.
    sys.modules['torch'] = None  # type: ignore[assignment]
    import numpy as np

    from mmmamba.deploy.runtimes import RUNTIMES

    runtime = RUNTIMES[kind](Path(file), int(threads), 'cpu')
    sizes = runtime.input_shape
    shape = [int(batch), *sizes[1:]]
    if sizes[0] not in (None, int(batch)):
        sys.exit(f'{file} is for batches of {sizes[0]}')
    if None in shape:
        sys.exit(f'{file} takes images of any size: which to time?')
    images = np.random.default_rng(0).random(shape, np.float32)
    if runtime.input_is_uint8:
        images = (images * 255).astype(np.uint8)

    def time_calls(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            runtime(images)
        return (time.perf_counter() - start) / repeats

    serve(time_calls)


if __name__ == '__main__':
    main()
