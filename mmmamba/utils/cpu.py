"""What training needs on a machine without GPUs."""

import logging
from collections.abc import Iterable

import torch
import torch.distributed as dist
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.logging import print_log


def prepare_cpu(cfg: Config) -> None:
    """Adapt a run to a machine without GPUs; do nothing on others.

    Args:
        cfg (Config): The config of the run; changed in place.
    """
    replace_amp(cfg)
    use_channels_last(cfg)
    prepare_cpu_launch(cfg)


def use_channels_last(cfg: Config) -> None:
    """Train and test in the memory format that CPUs are faster in.

    Args:
        cfg (Config): The config of the run; changed in place.
    """
    if get_device() == 'cpu':
        hooks = list(cfg.get('custom_hooks') or [])
        cfg.custom_hooks = [*hooks, dict(type='ChannelsLastHook')]


def replace_amp(cfg: Config) -> None:
    """Train in float32 where there is no device for mixed precision.

    mmengine's ``AmpOptimWrapper`` refuses to start on a CPU.

    Args:
        cfg (Config): The config of the run; changed in place.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper' and get_device() in (
        'cpu',
        'mps',
    ):
        use_full_precision(wrapper)
        print_log(
            'No GPU: AMP is off, training in float32',
            logger='current',
            level=logging.WARNING,
        )


def use_full_precision(wrapper: dict) -> None:
    """Make an optimizer wrapper mmengine's ``OptimWrapper``.

    Args:
        wrapper (dict): Its config; changed in place. What only
            ``AmpOptimWrapper`` takes is left out.
    """
    wrapper['type'] = 'OptimWrapper'
    for option in ('loss_scale', 'dtype', 'use_fp16'):
        wrapper.pop(option, None)


def prepare_cpu_launch(cfg: Config) -> None:
    """Make a launched run work where there is no GPU.

    mmengine starts NCCL and assigns GPUs to processes; here the processes
    talk through gloo instead, and SyncBN, which PyTorch has for GPUs only,
    becomes BN. Does nothing with a GPU or without a launcher.

    Args:
        cfg (Config): The config of the run; changed in place.
    """
    if cfg.launcher != 'pytorch' or torch.cuda.is_available():
        return
    if not dist.is_initialized():
        dist.init_process_group(backend='gloo')
    wrapper = dict(
        type='ChannelsLastDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = {**wrapper, **cfg.get('model_wrapper_cfg', {})}
    if _replace_sync_bn(cfg.model):
        print_log(
            'No GPU: SyncBN becomes BN, with statistics per process',
            logger='current',
        )


def _replace_sync_bn(node: ConfigDict | list | tuple) -> bool:
    """Turn every ``type='SyncBN'`` below ``node`` into BN."""
    found = False
    children: Iterable = node
    if isinstance(node, dict):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
            found = True
        children = node.values()
    for child in children:
        if isinstance(child, (dict, list, tuple)):
            found = _replace_sync_bn(child) or found
    return found
