"""Scans in two threads that get no memory for it: an error, and no result."""

import resource
from pathlib import Path

import torch

from mmmamba.ops import bidirectional_scan

torch.set_num_threads(2)
batch, channels, length = 2, 16, 2**18
x = torch.randn(batch, channels, length)
projected = torch.randn(batch, 2, 3, length)
parameters = (
    torch.randn(2, channels, 1),
    torch.zeros(2, channels),
    -torch.ones(2 * channels, 1),
)
bidirectional_scan(x[..., :9], projected[..., :9], *parameters)
pages = int(Path('/proc/self/statm').read_text().split()[0])
# Enough for the result, and not for what the threads need besides.
limit = pages * resource.getpagesize() + 40 * 2**20
_, most = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (limit, most))
try:
    y = bidirectional_scan(x, projected, *parameters)
except (MemoryError, RuntimeError) as error:
    print(type(error).__name__, error)
else:
    print('a result', y[0, 0, :3])
