"""What visualizers draw stays on the photo's pixels.

mmengine draws into axes that it lets matplotlib choose. From matplotlib 3.11
on, each drawn shape makes that choice anew: one that reaches past the border
shrinks the photo, and masks, which mmengine draws on a copy of the picture so
far, appear displaced. So the axes are held once the photo is in them.
"""

import functools

import numpy as np
from mmengine.visualization import Visualizer

from .report import changed, left_alone, name_of

_mmengine_set_image = Visualizer.set_image


@functools.wraps(_mmengine_set_image)
def set_image(visualizer: Visualizer, image: np.ndarray) -> None:
    """Set the image to draw on, and hold the axes at its borders.

    Args:
        visualizer (Visualizer): Any one of mmengine or a toolbox.
        image (np.ndarray): The image, RGB.
    """
    _mmengine_set_image(visualizer, image)
    visualizer.ax_save.autoscale(False)


def install() -> None:
    """Make :func:`set_image` that of mmengine's visualizers."""
    current = Visualizer.set_image
    if current is set_image:
        return
    if current is not _mmengine_set_image:
        left_alone(
            f'{name_of(current)} sets the images of visualizers, and mmmamba '
            'leaves it in place: with matplotlib 3.11 and later, an object '
            'past the border may displace what is drawn. Let that function '
            'call self.ax_save.autoscale(False) at its end'
        )
        return
    Visualizer.set_image = set_image
    changed('what visualizers draw stays on the pixels of the photo')


def uninstall() -> None:
    """Give visualizers mmengine's ``set_image`` back."""
    if Visualizer.set_image is set_image:
        Visualizer.set_image = _mmengine_set_image
