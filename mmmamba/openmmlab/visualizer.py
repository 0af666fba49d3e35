"""What visualizers draw stays on the photo's pixels, and names are readable.

mmengine draws into axes that it lets matplotlib choose. From matplotlib 3.11
on, each drawn shape makes that choice anew: one that reaches past the border
shrinks the photo, and masks, which mmengine draws on a copy of the picture so
far, appear displaced. So the axes are held once the photo is in them.

matplotlib's own font has no Chinese, Japanese or Korean letters, and draws
boxes for them. So names that have some are drawn in a font of the system.
"""

import functools
from typing import TYPE_CHECKING

import numpy as np
from mmengine.visualization import Visualizer

from .report import changed, left_alone, name_of

if TYPE_CHECKING:
    from matplotlib.font_manager import FontProperties

_mmengine_set_image = Visualizer.set_image
_mmengine_draw_texts = Visualizer.draw_texts

#: Fonts with those letters, of Linux, Windows and macOS.
_FONTS = (
    *('Noto Sans CJK JP', 'Noto Sans CJK SC', 'Noto Sans SC'),
    *('WenQuanYi Zen Hei', 'WenQuanYi Micro Hei', 'Droid Sans Fallback'),
    *('Microsoft YaHei', 'SimHei', 'Malgun Gothic', 'Yu Gothic'),
    *('PingFang SC', 'Hiragino Sans GB', 'Arial Unicode MS'),
)
_FIRST_LETTER = '\u2e80'  # Unicode has them from here on


@functools.wraps(_mmengine_set_image)
def set_image(visualizer: Visualizer, image: np.ndarray) -> None:
    """Set the image to draw on, and hold the axes at its borders.

    Args:
        visualizer (Visualizer): Any one of mmengine or a toolbox.
        image (np.ndarray): The image, RGB.
    """
    _mmengine_set_image(visualizer, image)
    visualizer.ax_save.autoscale(False)


@functools.wraps(_mmengine_draw_texts)
def draw_texts(
    visualizer: Visualizer, texts: str | list[str], *args, **kwargs
) -> Visualizer:
    """Draw texts, in a font that has their letters if the system has one.

    Args:
        visualizer (Visualizer): Any one of mmengine or a toolbox.
        texts (str | list[str]): What to draw.
        *args: As mmengine's.
        **kwargs: As mmengine's.

    Returns:
        Visualizer: The same visualizer.
    """
    if max(''.join(texts), default='') >= _FIRST_LETTER:
        kwargs.setdefault('font_properties', _font())
    return _mmengine_draw_texts(visualizer, texts, *args, **kwargs)


@functools.cache
def _font() -> 'FontProperties':
    from matplotlib.font_manager import FontProperties, fontManager

    installed = set(fontManager.get_font_names()).intersection(_FONTS)
    if not installed:
        return FontProperties()
    wanted = FontProperties(family=sorted(installed, key=_FONTS.index))
    return FontProperties(fname=fontManager.findfont(wanted))


def install() -> None:
    """Make these functions those of mmengine's visualizers."""
    if Visualizer.draw_texts is _mmengine_draw_texts:
        Visualizer.draw_texts = draw_texts
        changed('what visualizers write has letters of all languages')
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
    """Give visualizers mmengine's own functions back."""
    if Visualizer.draw_texts is draw_texts:
        Visualizer.draw_texts = _mmengine_draw_texts
    if Visualizer.set_image is set_image:
        Visualizer.set_image = _mmengine_set_image
