"""Gradients of two processes, channels last; run by test_training_hooks.py.

Prints the largest error over the maximum, of three steps, with and without
``find_unused_parameters``.
"""

import copy

import torch
import torch.distributed as dist
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

import mmmamba  # noqa: F401  registers the wrapper

torch.set_num_threads(1)
dist.init_process_group('gloo')
rank = dist.get_rank()
torch.manual_seed(0)
trained = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2)
)
images = torch.randn(3, 2, 2, 3, 9, 11)  # steps, processes, batch


def loss(model, x):
    return model(x).square().mean()


worst = 0.0
for unused in (False, True):
    model = MODEL_WRAPPERS.build(
        dict(
            type='ChannelsLastDataParallel',
            module=copy.deepcopy(trained),
            broadcast_buffers=False,
            find_unused_parameters=unused,
        )
    )
    weight = next(model.parameters())
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for step in images:
        model.zero_grad()
        loss(model, step[rank]).backward()
        trained.zero_grad()
        ((loss(trained, step[0]) + loss(trained, step[1])) / 2).backward()
        for p, q in zip(model.parameters(), trained.parameters()):
            error = (p.grad - q.grad).abs().max() / q.grad.abs().max()
            worst = max(worst, error.item())
if rank == 0:
    print(worst)
dist.destroy_process_group()
