"""Errors that name what is wrong with the inputs of an op."""

from torch import Tensor


def check_inputs(op: str, x: Tensor, **expected) -> None:
    """Raise an error that names the first input that does not fit ``x``."""
    for name, (tensor, shape) in expected.items():
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f'{op}: {name} must have shape {shape}, got '
                f'{tuple(tensor.shape)}'
            )
        if not tensor.is_floating_point():
            raise TypeError(
                f'{op}: {name} must be floating point, got {tensor.dtype}'
            )
        if tensor.device != x.device:
            raise ValueError(
                f'{op}: {name} is on {tensor.device}, and the input on '
                f'{x.device}'
            )
