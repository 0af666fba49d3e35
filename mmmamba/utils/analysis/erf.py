"""The effective receptive field: which pixels a feature depends on.

Introduced by Luo et al., `Understanding the Effective Receptive Field in Deep
Convolutional Neural Networks <https://arxiv.org/abs/1701.04128>`_ (NIPS 2016);
drawn and measured here as in Ding et al., `Scaling Up Your Kernels to 31x31
<https://arxiv.org/abs/2203.06717>`_ (RepLKNet, CVPR 2022).
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor


def effective_receptive_field(
    features: Callable[[Tensor], Tensor],
    images: Iterable[Tensor],
    positive: bool = True,
) -> np.ndarray:
    """Contribution of each pixel to the central location of a feature map.

    The gradient of the feature at ``[H' // 2, W' // 2]``, summed over its
    channels, with respect to the input, summed over the channels of the input
    and averaged over the images.

    Args:
        features (Callable[[Tensor], Tensor]): Computes maps
            ``(B, C, H', W')`` of images; its parameters get no gradient.
        images (Iterable[Tensor]): Batches ``(B, 3, H, W)``, all of one size.
        positive (bool): Whether to take, as RepLKNet does, the positive part
            of feature and gradient; otherwise the feature as it is and the
            absolute gradient. Defaults to True.

    Returns:
        np.ndarray: Contributions, float64, ``(H, W)``, not negative.

    Raises:
        ValueError: If there are no images or the features are no map.
    """
    total: np.ndarray | float = 0.0
    count = 0
    for batch in images:
        batch = batch.detach().clone().requires_grad_()
        with torch.enable_grad():
            maps = features(batch)
            if maps.dim() != 4:
                raise ValueError(
                    'features must be maps (B, C, H, W), got shape '
                    f'{tuple(maps.shape)}'
                )
            height, width = maps.shape[2:]
            centre = maps[:, :, height // 2, width // 2]
            if positive:
                centre = centre.relu()
            (grad,) = torch.autograd.grad(centre.sum(), batch)
        grad = grad.relu() if positive else grad.abs()
        total = total + grad.double().sum((0, 1)).cpu().numpy()
        count += len(batch)
    if isinstance(total, float):
        raise ValueError('the receptive field needs at least one image')
    return total / count


def log_scale(contributions: np.ndarray) -> np.ndarray:
    """Scale contributions as RepLKNet does, for drawing and comparison.

    Args:
        contributions (np.ndarray): Not negative, any shape.

    Returns:
        np.ndarray: ``log10(1 + contributions)`` over its maximum.
    """
    scaled = np.log10(1 + contributions)
    return scaled / max(scaled.max(), np.finfo(scaled.dtype).tiny)


def high_contribution_area(
    contributions: np.ndarray, fraction: float
) -> tuple[int, float]:
    """The smallest centred square that holds a fraction of the total.

    Args:
        contributions (np.ndarray): Not negative, ``(H, W)``.
        fraction (float): Of the sum over all pixels, in (0, 1].

    Returns:
        tuple[int, float]: Side of the square, which is centred at
        ``[H // 2, W // 2]`` and so odd, and the area of it within the image
        over that of the image.

    Raises:
        ValueError: If nothing contributes or the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f'fraction={fraction} must be within (0, 1]')
    height, width = contributions.shape
    rows = np.abs(np.arange(height) - height // 2)
    columns = np.abs(np.arange(width) - width // 2)
    # The square of side 2 r + 1 holds what is not farther than r in the
    # maximum norm.
    radius = np.maximum(rows[:, None], columns)
    held = np.cumsum(np.bincount(radius.ravel(), contributions.ravel()))
    if not held[-1] > 0:
        raise ValueError('no pixel contributes: the gradient is zero')
    r = int(np.searchsorted(held, fraction * held[-1]))
    within = (rows <= r).sum() * (columns <= r).sum()
    return 2 * r + 1, float(within / contributions.size)
