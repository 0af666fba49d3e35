"""Building a model of any toolbox from its config and checkpoint."""

from mmengine.config import Config
from torch import nn

from mmmamba.checkpoint import check_complete
from mmmamba.utils.cli import UsageError


def load_trained(
    cfg: Config, checkpoint: str, device: str = 'cpu'
) -> nn.Module:
    """Build a model for inference, with its weights and its classes.

    Args:
        cfg (Config): Of a detector, segmentor or classifier.
        checkpoint (str): Path of its checkpoint.
        device (str): Defaults to ``'cpu'``.

    Returns:
        nn.Module: In eval mode, with ``dataset_meta``.

    Raises:
        UsageError: If the config is of another toolbox.
        mmmamba.checkpoint.CheckpointError: If the checkpoint is not one of
            this model.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmdet':
        from mmdet.apis import init_detector as build
    elif scope == 'mmseg':
        from mmseg.apis import init_model as build
    elif scope == 'mmpretrain':
        from mmpretrain.apis import get_model

        def build(cfg, checkpoint, device):
            return get_model(cfg, pretrained=checkpoint, device=device)

    else:
        raise UsageError(
            f'the config is of {scope}; those of mmdet, mmseg and mmpretrain '
            'have models'
        )
    model = build(cfg, checkpoint, device=device)
    check_complete(model, checkpoint)
    return model.eval()
