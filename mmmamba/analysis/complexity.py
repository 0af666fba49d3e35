"""Parameters and FLOPs, the selective scan included."""

from collections.abc import Sequence
from math import prod

import torch
from mmengine.analysis import FlopAnalyzer, parameter_count
from mmengine.analysis.jit_handles import get_shape
from torch import nn


def _scan_flops(inputs: list, outputs: list) -> int:
    """``9 N + 1`` for each direction, channel and position, as published."""
    length, batch, directions, d_inner, d_state = get_shape(inputs[0])
    return prod((length, batch, directions, d_inner)) * (9 * d_state + 1)


class _TensorForward(nn.Module):
    """A model's computation from image tensor to raw outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: torch.Tensor):
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
        model (nn.Module): A backbone or a whole OpenMMLab model; put into
            eval mode.
        shape (Sequence[int]): Height and width of the image.

    Returns:
        tuple[int, FlopAnalyzer]: Parameters, with the fixed Haar filters as
        published, and mmengine's analyzer: ``total()`` gives the FLOPs,
        ``by_module()`` those of each part.
    """
    model.eval()
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, *shape, device=device)
    flops = FlopAnalyzer(_TensorForward(model), image)
    flops.set_op_handle('prim::PythonOp.LinearRecurrence', _scan_flops)
    flops.unsupported_ops_warnings(False)
    flops.uncalled_modules_warnings(False)
    flops.tracer_warnings('none')
    return parameter_count(model)[''], flops
