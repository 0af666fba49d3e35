"""A memory format that convolutions on CPUs prefer."""

import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.registry import HOOKS, MODEL_WRAPPERS
from mmengine.runner import Runner
from torch import nn


@MODEL_WRAPPERS.register_module()
class ChannelsLastDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` of a model whose maps are channels last.

    DDP lays its buffers out as the weights are when it is made. Where those
    are turned afterwards, it scrambles their gradients, in the first step or
    in all.

    Args:
        module (nn.Module): The model.
        **kwargs: As of ``MMDistributedDataParallel``.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        super().__init__(module, **kwargs)


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the weights of convolutions, and with them all maps, channels last.

    Results are the same but for rounding. On CPUs it saves a quarter of a
    training step (docs/benchmarks.md); ``tools/train.py`` and ``test.py`` add
    it where there is no GPU. A model that is wrapped for several processes
    stays as it is: :class:`ChannelsLastDataParallel` turns it before.
    """

    # Before EMAHook copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Convert the model.

        Args:
            runner (Runner): The runner.
        """
        if not is_model_wrapper(runner.model):
            runner.model.to(memory_format=torch.channels_last)
