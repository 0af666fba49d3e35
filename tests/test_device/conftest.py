"""The devices that the tests beside this run on."""

import pytest
import torch

from mmmamba.ops import available_backends


@pytest.fixture(params=['cpu', 'cuda'])
def device(request):
    """The device; its compiled ops serve."""
    backend = dict(cpu='cpp', cuda='cuda')[request.param]
    if not available_backends()[backend]:
        pytest.skip(f'{request.param}: no such device, or no ops for it')
    return torch.device(request.param)
