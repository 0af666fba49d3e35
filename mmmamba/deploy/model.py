"""Deployment of a whole detector, segmentor or classifier."""

import copy
from collections import Counter
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from . import fold

_INSTALL = (
    'pip install onedl-mmengine && '
    'pip install --no-build-isolation --no-cache-dir onedl-mmcv'
)

# Numbers of a weight from which on bfloat16 repays the change of dtype: those
# of a 1x1 convolution of 256 channels. Measured on SSDLite and RetinaNet.
_LARGE = 256 * 256


@torch.inference_mode(False)
def deploy_model(model: nn.Module, dtype: str = 'float32') -> nn.Module:
    """Turn a model into its form for inference, in place and for good.

    Every part that has a ``switch_to_deploy``, as MobileMamba and mmpretrain's
    LeViTClsHead have, is deployed; of what is left, batch norms are folded
    into the convolutions in front of them (:func:`fold_norms`).

    Args:
        model (nn.Module): Any model in eval mode, with its weights loaded.
        dtype (str): What the 1x1 convolutions of a MobileMamba multiply, as
            in its ``switch_to_deploy``. Unless it is ``'float32'``, other
            convolutions that are large and not grouped, as in heads, compute
            in bfloat16, if the CPU has instructions for it. Defaults
            to ``'float32'``, which leaves fewer bits as they are.

    Returns:
        nn.Module: The same model.

    Raises:
        ImportError: If mmengine or mmcv is not installed.
        RuntimeError: If it is in training mode, or a part refuses.
        ValueError: If the dtype is not one that there is.
    """
    missing = [n for n in ('mmengine', 'mmcv') if find_spec(n) is None]
    if missing:
        raise ImportError(
            'deploy_model() needs mmengine and mmcv; not installed: '
            f'{", ".join(missing)}. Run: {_INSTALL}'
        )
    # Not at the top: the deployed layers beside this need PyTorch alone.
    from mmengine.logging import print_log

    from .network import check_dtype, pack_products

    check_dtype(dtype)
    if model.training or any(
        isinstance(m, _BatchNorm) and m.training for m in model.modules()
    ):
        raise RuntimeError(
            'deploy_model() folds the running statistics of norms, which '
            'training would change; call .eval() first'
        )
    for name, part in list(model.named_modules()):
        if hasattr(part, 'switch_to_deploy') and not _is_deployed(part):
            part.switch_to_deploy()
            print_log(
                f'Deployed {name or "the model"} ({type(part).__name__})',
                logger='current',
            )
    fold_norms(model)
    pack_products(model, dtype)
    if dtype != 'float32':
        _round_convolutions(model)
    return model.eval()


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Fold batch norms into the convolutions before them, in place.

    Those of mmcv's ``ConvModule`` and of neighbours in an ``nn.Sequential``:
    elsewhere only a run would tell what follows what. A ``Sequential`` whose
    owner calls its parts by index is not told from others. The levels of a
    head may share a convolution and have a norm each, as RTMDet's do: then
    each level gets a convolution of its own.

    Args:
        model (nn.Module): Any model in eval mode.
    """
    from mmcv.cnn import ConvModule

    uses = Counter(
        part for _, part in model.named_modules(remove_duplicate=False)
    )
    for part in list(model.modules()):
        pairs: list = []
        if isinstance(part, ConvModule):
            order: Any = part.order
            if order.index('norm') == order.index('conv') + 1:
                pairs = [('conv', part.norm_name)]
        elif type(part).forward is nn.Sequential.forward:
            names = list(part._modules)
            pairs = list(zip(names, names[1:]))
        for first, second in pairs:
            conv: Any = part._modules.get(first)
            norm: Any = part._modules.get(second)
            if not _folds(conv, norm):
                continue
            if uses[conv] > uses[part]:
                conv = copy.deepcopy(conv)
            weight, bias = fold.conv_and_norm(conv, norm)
            dtype = conv.weight.dtype
            conv.weight = nn.Parameter(weight.to(dtype))
            conv.bias = nn.Parameter(bias.to(dtype))
            part._modules[first] = conv
            part._modules[second] = nn.Identity()
            if isinstance(part, ConvModule):
                # By another path it would still fold in each call.
                part.turn_on_efficient_conv_bn_eval(False)


def _folds(conv: Any, norm: Any) -> bool:
    """Whether a convolution can take a norm in; none of a kind of its own."""
    from mmcv.cnn.bricks.wrappers import Conv2d

    return (
        type(conv) in (nn.Conv2d, Conv2d)
        and not conv._forward_pre_hooks  # such as spectral norm's
        and isinstance(norm, _BatchNorm)
        and type(norm).forward in (_BatchNorm.forward, SyncBatchNorm.forward)
        and norm.running_mean is not None
    )


class RoundedConv2d(nn.Conv2d):
    """A convolution that computes in bfloat16, between float32 maps.

    Its weight stays float32, as others may read it; ``rounded`` is what
    multiplies.
    """

    rounded: Tensor

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.rounded = self.weight.detach().bfloat16()

    def _conv_forward(
        self, input: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        kinds = input.dtype, self.rounded.dtype
        if kinds != (torch.float32, torch.bfloat16):  # after .half() and such
            return super()._conv_forward(input, weight, bias)
        bias = None if bias is None else bias.bfloat16()
        y = super()._conv_forward(input.bfloat16(), self.rounded, bias)
        return y.float()


def _round_convolutions(model: nn.Module) -> None:
    """Let large convolutions compute in bfloat16, where that is fast.

    Grouped ones, and those that compute in a way of their own, stay as they
    are.
    """
    from mmcv.cnn.bricks.wrappers import Conv2d

    from .network import multiplies_fewer_bits

    if not multiplies_fewer_bits(model, 'bfloat16'):
        return
    for layer in model.modules():
        if (
            isinstance(layer, nn.Conv2d)
            and type(layer) in (nn.Conv2d, Conv2d)
            and layer.groups == 1
            and layer.weight.dtype == torch.float32
            and layer.weight.numel() >= _LARGE
        ):
            layer.__class__ = RoundedConv2d
            layer.register_buffer(
                'rounded', layer.weight.detach().bfloat16(), persistent=False
            )


def _is_deployed(part: nn.Module) -> bool:
    """MobileMamba and those of mmpretrain keep it in the same attribute."""
    return getattr(part, 'deploy', False)
