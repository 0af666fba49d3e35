"""Parameters and FLOPs, the selective scan included."""

from collections import Counter
from collections.abc import Sequence
from math import prod

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from mmengine.analysis.jit_handles import get_shape
from torch import nn

from mmmamba.ops import use_backend


def _recurrence_flops(inputs: list, outputs: list) -> Counter:
    """``9 N + 1`` for each direction, channel and position, as published."""
    *steps, d_state = get_shape(inputs[0])
    return Counter(selective_scan=prod(steps) * (9 * d_state + 1))


def _attention_flops(inputs: list, outputs: list) -> Counter:
    """Both products, without the softmax, as the analyzer counts them."""
    query, key, value = map(get_shape, inputs[:3])
    flops = prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return Counter(attention=flops)


# What the analyzer leaves out.
_HANDLES = {
    'prim::PythonOp.LinearRecurrence': _recurrence_flops,
    'aten::scaled_dot_product_attention': _attention_flops,
}


class _TensorForward(nn.Module):
    """A model's computation from image tensor to raw outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor):
        # A compiled op, a whole block even, would be one unknown operator.
        with use_backend('torch'):
            # mmdet, mmseg and mmpretrain models share this mode.
            if hasattr(self.model, 'data_preprocessor'):
                return self.model(inputs, mode='tensor')
            return self.model(inputs)


def analyze_complexity(
    model: nn.Module, shape: Sequence[int]
) -> tuple[int, FlopAnalyzer]:
    """Count a model's parameters and FLOPs.

    One multiply-add is one FLOP. Batch norms count twice their elements, as
    in fvcore and as published.

    Args:
        model (nn.Module): A backbone or a whole OpenMMLab model, deployed or
            not; put into eval mode.
        shape (Sequence[int]): Height and width of the image.

    Returns:
        tuple[int, FlopAnalyzer]: Parameters, with the fixed Haar filters as
        published, and mmengine's analyzer: ``total()`` gives the FLOPs,
        ``by_module()`` those of each part, ``by_operator()`` those of each
        operator, among them ``selective_scan``.
    """
    model.eval()
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    flops = FlopAnalyzer(_TensorForward(model), image)
    for name, handle in _HANDLES.items():
        flops.set_op_handle(name, handle)
    flops.unsupported_ops_warnings(False)
    flops.uncalled_modules_warnings(False)
    flops.tracer_warnings('none')
    return parameter_count(model)[''], flops
