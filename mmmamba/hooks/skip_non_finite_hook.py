"""A step with a non-finite loss or gradient is not taken."""

import math

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn


class NonFiniteError(RuntimeError):
    """Training that meets nothing but non-finite losses or gradients."""


@HOOKS.register_module()
class SkipNonFiniteHook(Hook):
    """Skip, count and log steps with a NaN or infinite loss or gradient.

    The published training met NaN under AMP now and then. The gradient scaler
    skips an optimizer step whose gradients overflow, but the batch norms'
    running statistics have seen the batch by then, and from there NaN gets
    into every later forward pass and into the moving average. This hook takes
    the statistics back too, works without AMP as well, and gives up when it
    no longer helps. With gradient accumulation all batches of the step are
    lost. Optimizer and parameters are as if the batch had not been there.

    Args:
        max_in_a_row (int): Skipped steps in a row after which training stops.
            Defaults to 20: the 16 that bring the scaler's initial 65536 down
            to 1, and some.
    """

    # Before the moving average takes the statistics over.
    priority = 'VERY_HIGH'

    def __init__(self, max_in_a_row: int = 20) -> None:
        if max_in_a_row < 1:
            raise ValueError(f'max_in_a_row={max_in_a_row} must be 1 or more')
        self.max_in_a_row = max_in_a_row

    def before_train(self, runner: Runner) -> None:
        """Watch the model's losses and the optimizer's gradients.

        Args:
            runner (Runner): The runner of the training.
        """
        self._in_a_row = 0
        self._stepped = False
        # The message hub is saved and resumed with the run.
        self._total = runner.message_hub.get_info('skipped_steps') or 0
        self._handles = [
            runner.model.register_forward_hook(_spread_non_finite),
            runner.optim_wrapper.optimizer.register_step_pre_hook(
                self._check_gradients
            ),
        ]
        # What a forward pass changes: the batch norms' statistics.
        self._buffers = list(runner.model.buffers())
        self._remembered = [b.clone() for b in self._buffers]

    def after_train(self, runner: Runner) -> None:
        """Let go of model and optimizer.

        Args:
            runner (Runner): The runner of the training.
        """
        for handle in self._handles:
            handle.remove()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs=None
    ) -> None:
        """See whether the step was taken.

        Args:
            runner (Runner): The runner of the training.
            batch_idx (int): Not used.
            data_batch: Not used.
            outputs (dict, optional): The losses. Defaults to None.

        Raises:
            NonFiniteError: If too many steps in a row were not.
        """
        if not runner.optim_wrapper.should_update():  # still accumulating
            if not _finite(self._buffers):  # before EMAHook averages them
                _copy(self._remembered, self._buffers)
            return
        if self._stepped:
            self._stepped = False
            self._in_a_row = 0
            _copy(self._buffers, self._remembered)
            return
        _copy(self._remembered, self._buffers)
        self._in_a_row += 1
        self._total += 1
        runner.message_hub.update_info('skipped_steps', self._total)
        runner.message_hub.update_scalar('train/skipped_steps', self._total)
        loss = float(torch.as_tensor((outputs or {}).get('loss', 0)).detach())
        what = 'gradient' if math.isfinite(loss) else f'loss ({loss})'
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        scale = f', loss scale {scaler.get_scale():g}' if scaler else ''
        runner.logger.warning(
            f'Iteration {runner.iter + 1}: non-finite {what}, step skipped '
            f'({self._in_a_row} in a row, {self._total} in all{scale})'
        )
        if self._in_a_row >= self.max_in_a_row:
            raise NonFiniteError(
                f'{self._in_a_row} steps in a row, up to iteration '
                f'{runner.iter + 1}, had a non-finite loss or gradient. The '
                'weights are as before the first of them. Go on from the last '
                'checkpoint in full precision (--resume --cfg-options '
                'optim_wrapper.type=OptimWrapper), or start from its weights '
                'with a lower learning rate (without --resume: --cfg-options '
                'load_from=CHECKPOINT optim_wrapper.optimizer.lr=...); if it '
                'happens at once, look for broken images or labels'
            )

    def _check_gradients(self, optimizer, args, kwargs) -> None:
        """Before a step: without gradients it does nothing."""
        gradients = [
            p.grad
            for group in optimizer.param_groups
            for p in group['params']
            if p.grad is not None
        ]
        self._stepped = _finite(gradients)
        if not self._stepped:
            optimizer.zero_grad(set_to_none=True)


def _spread_non_finite(model: nn.Module, inputs: tuple, losses):
    """Forward hook: a non-finite loss makes every gradient NaN.

    That reaches all processes with the gradients, so that all skip the step,
    at the price of no synchronization.
    """
    if not (model.training and isinstance(losses, dict)):
        return None
    return {
        name: _poison(value) if 'loss' in name else value
        for name, value in losses.items()
    }


def _finite(tensors: list[Tensor]) -> bool:
    """Whether all numbers are finite; of whole numbers they are."""
    tensors = [t for t in tensors if t.is_floating_point()]
    norms = [n.float() for n in torch._foreach_norm(tensors)]
    return not norms or bool(torch.stack(norms).isfinite().all())


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)


def _poison(loss: Tensor | list) -> Tensor | list:
    if not isinstance(loss, Tensor):
        return [_poison(item) for item in loss]
    factor = torch.ones_like(loss)
    # Not torch.where on the loss, whose other branch has a gradient too.
    return loss * factor.masked_fill(~loss.detach().isfinite(), torch.nan)
