"""Tests of mmmamba/layers/wavelet.py."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import relative_error

from mmmamba.layers import WaveletConv
from mmmamba.layers.wavelet import haar_filters

SIZES = [(4, 6), (5, 7), (4, 7), (5, 6), (1, 1), (1, 2), (3, 1)]


def haar(x: np.ndarray) -> np.ndarray:
    """One level of the transform of even-sized maps, subbands last."""
    a, b = x[..., 0::2, 0::2], x[..., 0::2, 1::2]
    c, d = x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    subbands = [a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d]
    return np.stack(subbands, -1) / 2


def inverse_haar(bands: np.ndarray) -> np.ndarray:
    """Undo :func:`haar`."""
    s, r, c, x = np.moveaxis(bands, -1, 0)
    height, width = s.shape[-2:]
    out = np.empty((*s.shape[:-2], 2 * height, 2 * width), bands.dtype)
    out[..., 0::2, 0::2] = s + r + c + x
    out[..., 0::2, 1::2] = s + r - c - x
    out[..., 1::2, 0::2] = s - r + c - x
    out[..., 1::2, 1::2] = s - r - c + x
    return out / 2


def make_input(height, width, channels=3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(2, channels, height, width, generator=rng)


def test_filters_are_the_haar_transform():
    x = make_input(4, 6)
    out = F.conv2d(x, haar_filters(3), stride=2, groups=3)
    # Channel-major: the four subbands of channel 0 come first.
    bands = np.moveaxis(haar(x.numpy()), -1, 2)
    assert relative_error(out, bands.reshape(2, 12, 2, 3)) <= 1e-6


def test_filters_are_orthonormal():
    basis = haar_filters(1).flatten(1)
    assert torch.equal(basis @ basis.T, torch.eye(4))


@pytest.mark.parametrize('size', SIZES)
def test_perfect_reconstruction(size):
    """With a neutral convolution the transforms undo each other."""
    layer = WaveletConv(3, 5)
    with torch.no_grad():
        layer.conv.weight.zero_()[..., 2, 2] = 1
        layer.scale.fill_(1)
    x = make_input(*size)
    assert relative_error(layer(x), x) <= 1e-6


@pytest.mark.parametrize('kernel_size', [3, 7])
@pytest.mark.parametrize('size', SIZES)
def test_equals_numpy(size, kernel_size):
    torch.manual_seed(0)
    layer = WaveletConv(3, kernel_size)
    with torch.no_grad():
        layer.scale.uniform_(0.2, 0.8)
    x = make_input(*size)

    height, width = size
    pads = ((0, 0), (0, 0), (0, height % 2), (0, width % 2))
    bands = haar(np.pad(x.numpy(), pads))
    half = kernel_size // 2
    padded = np.pad(
        bands, ((0, 0), (0, 0), (half, half), (half, half), (0, 0))
    )
    weight = layer.conv.weight.detach().numpy()
    weight = weight.reshape(3, 4, kernel_size, kernel_size)
    scale = layer.scale.detach().numpy().reshape(3, 1, 1, 4)
    mixed = np.zeros_like(bands)
    for i, j in np.ndindex(kernel_size, kernel_size):
        window = padded[
            :, :, i : i + bands.shape[2], j : j + bands.shape[3], :
        ]
        mixed += window * weight[:, None, None, :, i, j]
    ref = inverse_haar(scale * mixed)[..., :height, :width]
    assert relative_error(layer(x), ref) <= 1e-6


def test_parameters():
    """The filters are fixed, but in the state dict and in the counts."""
    layer = WaveletConv(3, 5)
    assert {n: p.requires_grad for n, p in layer.named_parameters()} == dict(
        [
            ('filter', False),
            ('inverse_filter', False),
            ('scale', True),
            ('conv.weight', True),
        ]
    )
    assert (layer.scale == 0.1).all()
    assert layer.conv.weight.shape == (12, 1, 5, 5)
