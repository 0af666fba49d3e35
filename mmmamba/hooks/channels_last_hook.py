"""A memory format that convolutions on CPUs prefer."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keep the weights of convolutions, and with them all maps, channels last.

    Results are the same but for rounding. On CPUs it saves a quarter of a
    training step (docs/benchmarks.md); ``tools/train.py`` and ``test.py`` add
    it where there is no GPU.
    """

    # Before EMAHook copies the model.
    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Convert the model.

        Args:
            runner (Runner): The runner.
        """
        runner.model.to(memory_format=torch.channels_last)
