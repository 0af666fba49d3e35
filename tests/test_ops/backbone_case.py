"""A small backbone of which every parameter matters."""

import torch
from golden import randomize

from mmmamba.backbones import MobileMamba


def make_backbone(directions: int = 2, **kwargs) -> MobileMamba:
    torch.manual_seed(0)
    arch = dict(base='t2', channels=(16, 24, 32), depths=(1, 1, 1))
    arch.update(d_state=2, directions=directions)
    return randomize(MobileMamba(arch, **kwargs)).eval()


def make_image(*shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def gradients(model, outs) -> dict[str, torch.Tensor]:
    """Of the parameters, by name."""
    model.zero_grad()
    sum(out.square().mean() for out in outs).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
