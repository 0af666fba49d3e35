"""PyTorch's exporter to ONNX."""

import inspect
import io
from unittest.mock import patch

import torch
from torch import Tensor, nn


def trace(module: nn.Module, images: Tensor, **options) -> bytes:
    """Run PyTorch's exporter that traces: the other takes ten times as long.

    Args:
        module (nn.Module): What takes the images.
        images (Tensor): Of the shape to export for.
        **options: Of ``torch.onnx.export``.

    Returns:
        bytes: An ONNX file.
    """
    if 'dynamo' in inspect.signature(torch.onnx.export).parameters:
        options['dynamo'] = False
    target = io.BytesIO()
    # With an error, it prints the whole graph before it.
    with patch.object(torch._C, '_jit_onnx_log', lambda *_: None):
        torch.onnx.export(module, (images,), target, **options)  # type: ignore[arg-type]
    return target.getvalue()
