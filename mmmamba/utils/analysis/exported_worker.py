"""Times an exported model in a process of its own, on request.

ONNX Runtime and OpenVINO keep threads that wait actively; beside PyTorch in
one process both would look slow. Started by :class:`ExportedFile`, as a file.
"""

import sys
import time
from pathlib import Path


def main() -> None:
    """Answer each line, a number of calls, with the seconds of one."""
    kind, file, batch, threads = sys.argv[1:]
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
    print('ready', flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(repeats := int(line)):
            runtime(images)
        print((time.perf_counter() - start) / repeats, flush=True)


if __name__ == '__main__':
    main()
