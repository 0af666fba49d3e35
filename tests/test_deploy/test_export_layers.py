"""The form for export computes what the trained network does."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba.backbones import MobileMamba
from mmmamba.deploy.export_layers import Network, haar_matrix
from mmmamba.layers.wavelet import haar_filters

SMALL = dict(base='t2', channels=(80, 96, 112), depths=(1, 1, 1))


def lively(backbone):
    """Norms that do something, and a scan whose absence would show."""
    for name, parameter in backbone.named_parameters():
        if 'x_proj' in name:
            nn.init.normal_(parameter, std=0.5)
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):  # SyncBN, too
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.4, 0.9)
    return backbone.eval()


@pytest.mark.parametrize('by_op', [False, True])
@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(directions=1),
        dict(directions=4),
        dict(d_state=3),
        dict(directions=4, d_state=2),
        dict(wavelet=False),
        dict(num_parts=2),
        dict(local_ratio=(0, 0, 0)),
        dict(ssm_ratio=1),
    ],
)
@pytest.mark.parametrize('size', [(64, 64), (161, 130)])
@torch.no_grad()
def test_outputs_are_those_of_the_trained(options, size, by_op):
    torch.manual_seed(0)
    backbone = lively(MobileMamba({**SMALL, **options}))
    x = torch.randn(2, 3, *size)
    network = Network(backbone, by_op)
    for expected, found in zip(backbone(x), network(x)):
        assert found.shape == expected.shape
        error = (found - expected).abs().max() / expected.abs().max()
        assert error < 1e-5


@pytest.mark.parametrize('arch', ['t2', 't4', 's6', 'b1', 'b4'])
def test_convolutions_are_of_whole_blocks(arch):
    # ONNX Runtime has its fast ones for multiples of four alone
    network = Network(MobileMamba(arch).eval())
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert convs[0].weight.shape[1] == 3
    assert not any(conv.out_channels % 4 for conv in convs)
    for conv in convs[1:]:
        assert conv.groups == conv.in_channels or conv.in_channels % 4 == 0


def test_later_stages_are_left_out():
    backbone = MobileMamba(SMALL, out_indices=(0, 1)).eval()
    assert len(Network(backbone).stages) == 2


@pytest.mark.parametrize('size', [(1, 1), (2, 2), (3, 4), (5, 7)])
def test_matrix_is_the_haar_transform(size):
    filters = haar_filters(1).double()
    rows, columns = (n + n % 2 for n in size)
    x = torch.randn(6, *size, dtype=torch.float64)
    padded = torch.zeros(6, 1, rows, columns, dtype=torch.float64)
    padded[:, 0, : size[0], : size[1]] = x
    expected = torch.nn.functional.conv2d(padded, filters, stride=2)
    matrix = torch.from_numpy(haar_matrix(filters[:, 0].numpy(), *size))
    found = x.flatten(1) @ matrix
    torch.testing.assert_close(found, expected.flatten(1))
    torch.testing.assert_close(found @ matrix.T, x.flatten(1))
