"""Depthwise convolutions whose gradients are fast on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mmmamba.ops import depthwise_conv, depthwise_conv_weight_grad
from mmmamba.ops.backend import backend_for, kernels_serve


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise ``Conv2d`` with "same" padding.

    The same as PyTorch's. In training on a CPU in float32 and channels-last
    memory, the gradients come from the compiled ops.
    """

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        if self._gradients_are_compiled(input):
            return _Convolution.apply(input, weight, bias)
        return super()._conv_forward(input, weight, bias)

    def _gradients_are_compiled(self, x: Tensor) -> bool:
        return (
            self.training
            and torch.is_grad_enabled()
            and self.stride == (1, 1)
            and self.kernel_size[0] > 1
            and x.dtype == torch.float32
            and x.dim() == 4
            and x.stride(1) == 1
            and backend_for(x.device) == 'cpp'
            and kernels_serve([self.weight.permute(2, 3, 1, 0)[:, :, 0]])
        )


class _Convolution(torch.autograd.Function):
    """PyTorch's convolution with the gradients of our ops."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        padding = weight.shape[-1] // 2
        return F.conv2d(x, weight, bias, 1, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        # In another dtype where autocast had the convolution in it.
        grad = grad.permute(0, 2, 3, 1).to(x.dtype)
        grads: list[Tensor | None] = [None, None, None]
        if ctx.needs_input_grad[0]:
            # A convolution with the kernel turned around.
            turned = weight[:, 0].permute(1, 2, 0).flip(0, 1)
            grads[0] = depthwise_conv(grad, turned).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            grads[1] = depthwise_conv_weight_grad(
                x.permute(0, 2, 3, 1), grad, weight.shape[-1]
            ).permute(2, 0, 1)[:, None]
        if ctx.needs_input_grad[2]:
            grads[2] = grad.sum((0, 1, 2))
        return tuple(grads)
