"""A run that only tests may do so in the form for inference."""

from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from mmmamba.deploy import check_dtype, deploy_model


@HOOKS.register_module()
class SwitchToDeployHook(Hook):
    """Deploy the model before it is tested, or validated without training.

    ``custom_hooks = [dict(type='SwitchToDeployHook')]`` makes ``test.py``
    faster, with the same predictions. A runner that has begun to train keeps
    the model as it is.

    Args:
        dtype (str): What the 1x1 convolutions of the backbone multiply, as in
            its ``switch_to_deploy``. Defaults to ``'float32'``.

    Raises:
        ValueError: If the dtype is not one that there is.
    """

    def __init__(self, dtype: str = 'float32') -> None:
        check_dtype(dtype)
        self.dtype = dtype

    def before_val(self, runner: Runner) -> None:
        """Deploy the model unless it is being trained.

        Args:
            runner (Runner): The runner.

        Raises:
            RuntimeError: If the runner has an EMAHook.
        """
        self._deploy(runner)

    def before_test(self, runner: Runner) -> None:
        """Deploy the model unless it has been trained.

        Args:
            runner (Runner): The runner.

        Raises:
            RuntimeError: If the runner has an EMAHook.
        """
        self._deploy(runner)

    def _deploy(self, runner: Runner) -> None:
        # The runner builds the loop when it starts to train.
        if isinstance(runner._train_loop, BaseLoop):
            return
        if any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise RuntimeError(
                'SwitchToDeployHook: an EMAHook exchanges the parameters of '
                'the model during a test, and those of a deployed one are '
                'others. Test without EMAHook; the weights in its '
                'checkpoints are the averaged ones'
            )
        deploy_model(runner.model.eval(), self.dtype)
