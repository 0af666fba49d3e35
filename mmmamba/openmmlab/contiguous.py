"""mmcv's compiled ops get maps that lie in memory as their shape says.

They read memory as if it were so, and most do not look: RoIAlign and DCNv2
make nonsense of a map whose memory is channels last, without a word
(open-mmlab/mmcv#2203). A deployed backbone gives such maps, and so does any
convolution whose weights are channels last, as those of a training on a CPU.
"""

import functools
from collections.abc import Callable

from torch import Tensor
from torch.autograd import Function

from .report import changed

_METHODS = ('forward', 'backward')


def contiguous(function: Callable) -> Callable:
    """Let a method of an autograd function have contiguous tensors.

    Args:
        function (Callable): Its ``forward`` or ``backward``.

    Returns:
        Callable: The same, of any tensors.
    """

    @functools.wraps(function)
    def call(ctx, *inputs):
        return function(
            ctx,
            *(t.contiguous() if isinstance(t, Tensor) else t for t in inputs),
        )

    call.mmcvs = function  # type: ignore[attr-defined]
    return call


def _methods() -> list[tuple[type, str, Callable]]:
    """The methods of mmcv's autograd functions; none of mmcv-lite."""
    try:
        import mmcv.ops  # noqa: F401
    except ImportError:
        return []
    return [
        (kind, name, vars(kind)[name].__func__)
        for kind in Function.__subclasses__()
        for name in _METHODS
        if kind.__module__.startswith('mmcv.ops.') and name in vars(kind)
    ]


def install() -> None:
    """Give mmcv's ops contiguous tensors."""
    for kind, name, method in _methods():
        if not hasattr(method, 'mmcvs'):
            setattr(kind, name, staticmethod(contiguous(method)))
            changed(f"mmcv's {kind.__name__}.{name} takes any memory format")


def uninstall() -> None:
    """Give them what they are given."""
    for kind, name, method in _methods():
        if hasattr(method, 'mmcvs'):
            setattr(kind, name, staticmethod(method.mmcvs))
