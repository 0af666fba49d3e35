"""Building a model of any toolbox from its config and checkpoint."""

import importlib
import warnings

from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import CheckpointLoader
from torch import nn

from mmmamba.checkpoint import check_complete
from mmmamba.datasets.config import leaves
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
            model = get_model(cfg, pretrained=checkpoint, device=device)
            model.dataset_meta = model._dataset_meta
            return model

    else:
        raise UsageError(
            f'the config is of {scope}; those of mmdet, mmseg and mmpretrain '
            'have models'
        )
    contents = CheckpointLoader.load_checkpoint(str(checkpoint), 'cpu')
    meta = contents.get('meta') or {}
    if 'dataset_meta' in meta or 'CLASSES' in meta:
        model = build(cfg, checkpoint, device=device)
        check_complete(model, checkpoint)
    else:  # the toolboxes would guess the classes, or fail
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            model = build(cfg, None, device=device)
        check_complete(model, checkpoint)
        model.dataset_meta = metainfo_of_test(cfg)
    return model.eval()


def metainfo_of_test(cfg: Config) -> dict:
    """Tell what the data set of a test says of its classes.

    Args:
        cfg (Config): Of a detector, segmentor or classifier.

    Returns:
        dict: ``classes`` and ``palette``, as far as they are known.
    """
    dataset = next(leaves(cfg.get('test_dataloader', {}).get('dataset', {})))
    kind = dataset.get('type')
    if isinstance(kind, str):
        # Which registers its data sets.
        importlib.import_module(f'{cfg.default_scope}.datasets')
        scoped = kind if '.' in kind else f'{cfg.default_scope}.{kind}'
        kind = DATASETS.get(scoped)
    return {
        **(getattr(kind, 'METAINFO', None) or {}),
        **(dataset.get('metainfo') or {}),
    }
