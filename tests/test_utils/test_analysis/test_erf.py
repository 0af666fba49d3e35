"""The effective receptive field against plain arithmetic."""

import numpy as np
import pytest
import torch
from torch import nn

from mmmamba.utils.analysis.erf import (
    effective_receptive_field,
    high_contribution_area,
    log_scale,
)

# Kernel size, stride and padding of each layer.
STACK = [(3, 2, 1), (5, 1, 2), (3, 2, 1), (3, 1, 1)]


def conv_stack(layers, channels=2) -> nn.Sequential:
    """Convolutions whose every weight is one."""
    convs, width = [], 3
    for kernel, stride, padding in layers:
        convs.append(
            nn.Conv2d(width, channels, kernel, stride, padding, bias=False)
        )
        width = channels
    stack = nn.Sequential(*convs)
    for weight in stack.parameters():
        nn.init.ones_(weight)
    return stack


def field_of_one_axis(layers, size: int) -> np.ndarray:
    """How many ways lead from each input to the central output."""
    sizes = [size]
    for kernel, stride, padding in layers:
        sizes.append((sizes[-1] + 2 * padding - kernel) // stride + 1)
    ways = np.zeros(sizes[-1])
    ways[sizes[-1] // 2] = 1
    for (kernel, stride, padding), n in zip(layers[::-1], sizes[-2::-1]):
        before = np.zeros(n)
        for i, count in enumerate(ways):
            for k in range(kernel):
                position = i * stride - padding + k
                if 0 <= position < n:
                    before[position] += count
        ways = before
    return ways


@pytest.mark.parametrize('shape', [(64, 64), (41, 50)])
@pytest.mark.parametrize('positive', [True, False])
def test_field_of_convolutions(shape, positive):
    """Separable: the product of what each axis has on its own."""
    channels = 2
    images = [torch.rand(2, 3, *shape), torch.rand(1, 3, *shape)]
    field = effective_receptive_field(
        conv_stack(STACK, channels), images, positive
    )
    rows, columns = (field_of_one_axis(STACK, n) for n in shape)
    # Ways through the channels, of 3 input channels.
    ways = 3 * channels ** len(STACK)
    np.testing.assert_allclose(field, ways * np.outer(rows, columns))
    # 1 + sum (k - 1) x strides before: 1 + 2 + 2 * 4 + 2 * 2 + 4 * 2
    assert (rows > 0).sum() == 23


def test_only_the_positive_part_counts():
    conv = nn.Conv2d(3, 2, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(
            torch.tensor([[1.0, -2, 0], [-3, -3, -3]])[..., None, None]
        )
    # The features are 4 and -12: the second is cut off, and -2 of the first.
    image = torch.tensor([4.0, 0, 0]).view(1, 3, 1, 1).expand(1, 3, 5, 5)
    positive = effective_receptive_field(conv, [image])
    assert positive.sum() == positive[2, 2] == 1
    absolute = effective_receptive_field(conv, [image], positive=False)
    assert absolute.sum() == absolute[2, 2] == 2 + 5 + 3


def test_model_and_image_stay_as_they_are():
    stack = conv_stack(STACK)
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        effective_receptive_field(stack, [image])
    assert not image.requires_grad
    assert all(weight.grad is None for weight in stack.parameters())


def test_field_wants_maps_and_images():
    with pytest.raises(ValueError, match='at least one image'):
        effective_receptive_field(conv_stack(STACK), [])
    with pytest.raises(ValueError, match='maps'):
        effective_receptive_field(
            nn.Flatten(), [torch.rand(1, 3, 8, 8, requires_grad=True)]
        )


def square_by_trial(scores: np.ndarray, fraction: float) -> tuple[int, float]:
    """Grow a square around the centre until it holds enough."""
    height, width = scores.shape
    for r in range(max(height, width)):
        part = scores[
            max(height // 2 - r, 0) : height // 2 + r + 1,
            max(width // 2 - r, 0) : width // 2 + r + 1,
        ]
        if part.sum() >= fraction * scores.sum() * (1 - 1e-12):
            return 2 * r + 1, part.size / scores.size
    raise AssertionError


@pytest.mark.parametrize('shape', [(31, 31), (64, 64), (20, 47), (1, 1)])
@pytest.mark.parametrize('fraction', [0.01, 0.2, 0.3, 0.5, 0.99, 1])
def test_high_contribution_area(shape, fraction):
    scores = np.random.RandomState(0).rand(*shape) ** 8
    expected = square_by_trial(scores, fraction)
    assert high_contribution_area(scores, fraction) == pytest.approx(expected)


def test_area_of_a_known_square():
    scores = np.zeros((100, 100))
    scores[50 - 7 : 50 + 8, 50 - 7 : 50 + 8] = 1
    assert high_contribution_area(scores, 1) == (15, 0.0225)
    # 11 x 11 of 15 x 15 is 0.54 of it, 9 x 9 is 0.36.
    assert high_contribution_area(scores, 0.5) == (11, 0.0121)


def test_area_refuses():
    with pytest.raises(ValueError, match='no pixel'):
        high_contribution_area(np.zeros((4, 4)), 0.5)
    for fraction in (0, 1.5):
        with pytest.raises(ValueError, match='fraction'):
            high_contribution_area(np.ones((4, 4)), fraction)


def test_log_scale():
    scaled = log_scale(np.array([0.0, 9, 99]))
    np.testing.assert_allclose(scaled, [0, 0.5, 1])
    assert not log_scale(np.zeros(3)).any()
