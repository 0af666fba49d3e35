"""Maps whose memory is channels last, in mmcv's compiled ops."""

import copy

import pytest
import torch
from torch import nn

from mmmamba import openmmlab

ops = pytest.importorskip('mmcv.ops')


class Align(nn.Module):
    """An RoI layer of a map, with fixed boxes."""

    def __init__(self, layer: nn.Module, boxes: list) -> None:
        super().__init__()
        self.layer, self.boxes = layer, torch.tensor(boxes)

    def forward(self, x):
        return self.layer(x, self.boxes)


BOXES = [[0, 1.0, 1, 8, 9], [1, 2, 0, 10, 7.5]]
LAYERS = dict(
    RoIAlign=lambda: Align(ops.RoIAlign(7), BOXES),
    RoIAlignRotated=lambda: Align(
        ops.RoIAlignRotated(7, 1.0), [[*box, 0.3] for box in BOXES]
    ),
    DCNv1=lambda: ops.DeformConv2dPack(16, 8, 3, padding=1),
    DCNv2=lambda: ops.ModulatedDeformConv2dPack(16, 8, 3, padding=1),
)


@pytest.mark.parametrize('name', LAYERS)
@pytest.mark.parametrize('weights', ['as built', 'channels last'])
def test_outputs_and_gradients_are_those_of_a_contiguous_map(name, weights):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    layer = LAYERS[name]().to(device)
    for parameter in layer.parameters():  # offsets start at 0
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 16, 12, 12, device=device, requires_grad=True)
    wanted = layer(x)
    g = torch.randn_like(wanted)
    twin = copy.deepcopy(layer)
    if weights == 'channels last':
        twin.to(memory_format=torch.channels_last)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    found = twin(last)
    torch.testing.assert_close(found, wanted)
    wanted.backward(g)
    found.backward(g.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last.grad, x.grad)
    for a, b in zip(twin.parameters(), layer.parameters()):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-4, rtol=1e-4)


def test_mmcv_itself_is_wrong():
    """Else this is not needed any more."""
    x = torch.randn(2, 16, 12, 12)
    layer = LAYERS['RoIAlign']()
    openmmlab.uninstall()
    try:
        last = layer(x.to(memory_format=torch.channels_last))
    finally:
        openmmlab.install()
    assert (last - layer(x)).abs().max() > 0.5
