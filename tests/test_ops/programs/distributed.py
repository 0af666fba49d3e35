"""Has a backbone compute gradients of two samples in two processes.

Usage: distributed.py STORE RANK
"""

import sys

import torch
import torch.distributed as dist
from test_ops.backbone_case import gradients, make_backbone, make_image
from torch.nn.parallel import DistributedDataParallel

from mmmamba.ops import available_backends

torch.set_num_threads(1)
path, rank = sys.argv[1], int(sys.argv[2])
dist.init_process_group(
    'gloo', init_method=f'file://{path}', rank=rank, world_size=2
)
assert available_backends()['cpp']
model = make_backbone()
x = make_image(2, 3, 64, 80)
expected = gradients(model, model(x))
parallel = DistributedDataParallel(model)
found = gradients(model, parallel(x[rank : rank + 1]))
for name, grad in expected.items():
    error = (found[name] - grad).abs().max() / grad.abs().max()
    assert error <= 1e-4, (name, error)
dist.destroy_process_group()
print('equal')
