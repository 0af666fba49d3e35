"""Deployment of a whole detector, segmentor or classifier."""

from importlib.util import find_spec

from torch import nn

_INSTALL = (
    'pip install onedl-mmengine && '
    'pip install --no-build-isolation --no-cache-dir onedl-mmcv'
)


def deploy_model(model: nn.Module, dtype: str = 'float32') -> nn.Module:
    """Turn a model into its form for inference, in place and for good.

    Every part that has a ``switch_to_deploy``, as MobileMamba and mmpretrain's
    LeViTClsHead have, is deployed; of what is left, batch norms are folded
    into the convolutions in front of them.

    Args:
        model (nn.Module): Any model in eval mode, with its weights loaded.
        dtype (str): What the 1x1 convolutions of a MobileMamba multiply, as
            in its ``switch_to_deploy``. Defaults to ``'float32'``.

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
    from mmcv.cnn import fuse_conv_bn
    from mmengine.logging import print_log

    from .network import check_dtype, pack_products

    check_dtype(dtype)
    if model.training:
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
    fuse_conv_bn(model)
    pack_products(model, dtype)
    return model.eval()


def _is_deployed(part: nn.Module) -> bool:
    """MobileMamba and those of mmpretrain keep it in the same attribute."""
    return getattr(part, 'deploy', False)
