"""MobileMamba: a three-stage vision Mamba for strides 16, 32 and 64."""

from collections.abc import Sequence
from typing import cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmmamba import deploy
from mmmamba.checkpoint import (
    adapt_classifier,
    adapt_state_dict,
    load_pretrained,
)
from mmmamba.layers import Stage, Stem

from .arch import ARCH_ZOO, base_name, resolve_arch


@MODELS.register_module()
class MobileMamba(BaseModule):
    """MobileMamba backbone.

    From `MobileMamba: Lightweight Multi-Receptive Visual Mamba Network
    <https://arxiv.org/abs/2411.15941>`_. Published checkpoints load as they
    are, by ``init_cfg``, ``load_state_dict`` or a runner's ``load_from``.

    Args:
        arch (str | dict): ``'t2'``, ``'t4'``, ``'s6'``, ``'b1'``, ``'b2'`` or
            ``'b4'`` (any case; the last three are one network, pretrained at
            sizes of their own), or a dict. A dict's keys replace those of
            ``base`` (an arch name, by default ``'b1'``):

            - channels (Sequence[int]): Width of each of the three stages.
            - depths (Sequence[int]): Blocks in each stage.
            - global_ratio, local_ratio (Sequence[float]): Share of the
              mixer's global and local branch, per stage.
            - kernel_sizes (Sequence[int]): Odd kernel sizes, per stage.
            - drop_path_rate (float): Highest drop-path rate.
            - ssm_ratio (float): Inner over outer channels of the SSM.
            - d_state (int): State size of the SSM.
            - directions (int): Scan directions, 1, 2 or 4.
            - num_parts (int): Kernel sizes of the mixer's local branch.
            - wavelet (bool): Whether the mixer has a wavelet branch.
        in_channels (int): Channels of the image. Defaults to 3.
        out_indices (Sequence[int]): Stages to return, from 0. Stages beyond
            the last of them are not run; their parameters, which published
            checkpoints hold, are there and frozen. Defaults to
            ``(0, 1, 2)``.
        drop_path_rate (float, optional): Highest drop-path rate; the rates
            rise linearly from 0 over all blocks. Defaults to None, the
            arch's.
        frozen_stages (int): -1 freezes nothing, 0 the stem, ``k`` also the
            stages 1 to ``k``. Defaults to -1.
        norm_cfg (dict): Config of the norms. Defaults to ``dict(type='BN')``.
        norm_eval (bool): Whether batch norms keep their running statistics
            fixed in training. Defaults to False.
        with_cp (bool): Whether to trade computation for memory by activation
            checkpointing of each block. The gradients are the same; batch
            norms in training mode see each batch twice. Defaults to False.
        deploy (bool | str): Whether to build the form that
            :meth:`switch_to_deploy` leads to, into which the state dict of a
            deployed backbone loads; or the ``dtype`` that it got. Defaults to
            False.
        init_cfg (dict, optional): Initialization config. Of type
            ``'Pretrained'`` it names the ``checkpoint``, in which ``{arch}``
            stands for the name of the arch, and, for a part of a larger
            model, the ``prefix``. Defaults to None.

    Raises:
        ValueError: If the arch, ``out_indices`` or ``frozen_stages`` is not
            one of the above.

    Examples:
        >>> import torch
        >>> from mmmamba.backbones import MobileMamba
        >>> model = MobileMamba('t2').eval()
        >>> for x in model(torch.rand(1, 3, 192, 192)):
        ...     print(tuple(x.shape))
        (1, 144, 12, 12)
        (1, 272, 6, 6)
        (1, 368, 3, 3)
    """

    arch_zoo = ARCH_ZOO
    init_cfg: dict | list[dict] | None

    def __init__(
        self,
        arch: str | dict = 'b1',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2),
        drop_path_rate: float | None = None,
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN'),
        norm_eval: bool = False,
        with_cp: bool = False,
        deploy: bool | str = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = resolve_arch(arch)
        self.arch_name = base_name(arch)
        if drop_path_rate is not None:
            self.arch = resolve_arch(
                {**self.arch, 'drop_path_rate': drop_path_rate}
            )
        self.channels = self.arch['channels']
        num_stages = len(self.channels)
        if isinstance(out_indices, int):
            out_indices = (out_indices,)
        if not out_indices or not set(out_indices) <= set(range(num_stages)):
            raise ValueError(
                f'out_indices={tuple(out_indices)} must name one or more of '
                f'the {num_stages} stages, 0 to {num_stages - 1}'
            )
        if frozen_stages not in range(-1, num_stages + 1):
            raise ValueError(
                f'frozen_stages={frozen_stages} must be -1 '
                f'(nothing) to {num_stages} (everything)'
            )
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.deploy = False

        depths = self.arch['depths']
        rates = torch.linspace(
            0, self.arch['drop_path_rate'], sum(depths), device='cpu'
        ).split(list(depths))

        # switch_to_deploy() puts its own there.
        self.stem: nn.Sequential = Stem(
            in_channels, self.channels[0], norm_cfg
        )
        self.stages = nn.ModuleList(
            Stage(
                self.channels[i - 1] if i else None,
                self.channels[i],
                drop_path_rates=rates[i].tolist(),
                with_cp=with_cp,
                norm_cfg=norm_cfg,
                global_ratio=self.arch['global_ratio'][i],
                local_ratio=self.arch['local_ratio'][i],
                kernel_size=self.arch['kernel_sizes'][i],
                num_parts=self.arch['num_parts'],
                ssm_ratio=self.arch['ssm_ratio'],
                d_state=self.arch['d_state'],
                directions=self.arch['directions'],
                wavelet=self.arch['wavelet'],
            )
            for i in range(num_stages)
        )
        self._register_load_state_dict_pre_hook(
            self._adapt_state_dict, with_module=False
        )
        self._freeze_stages()
        self._report_unused()
        if deploy:
            dtype = deploy if isinstance(deploy, str) else 'float32'
            self.eval().switch_to_deploy(dtype)

    def init_weights(self) -> None:
        """Initialize, or load ``init_cfg``'s checkpoint safely.

        Raises:
            mmmamba.checkpoint.CheckpointError: If the file is no checkpoint
                of this arch.
        """
        configs = self.init_cfg or []
        configs = [configs] if isinstance(configs, dict) else configs
        pretrained = [cfg for cfg in configs if cfg['type'] == 'Pretrained']
        full_cfg = self.init_cfg
        self.init_cfg = [cfg for cfg in configs if cfg not in pretrained]
        super().init_weights()
        self.init_cfg = full_cfg
        for cfg in pretrained:
            file = cfg['checkpoint'].replace('{arch}', self.arch_name)
            load_pretrained(self, file, cfg.get('prefix'))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps of ``out_indices``.

        Args:
            x (Tensor): Images, ``(B, in_channels, H, W)``, of any size.

        Returns:
            tuple[Tensor, ...]: Maps ``(B, C_i, H_i, W_i)`` of strides 16, 32
            and 64; sizes are halved rounding up.

        Raises:
            ValueError: If the input has another shape.
        """
        if not torch.jit.is_tracing():  # where a look at a shape is a warning
            self._check_input(x)
        x = self.stem(x)
        outs = []
        # Not a slice, which would make a new list of modules for each image.
        for i, stage in zip(range(self._num_used), self.stages):
            x = stage(x)
            if i in self.out_indices:
                # A deployed stage has channels last.
                outs.append(x.permute(0, 3, 1, 2) if self.deploy else x)
        return tuple(outs)

    @torch.inference_mode(False)
    @torch.no_grad()
    def switch_to_deploy(self, dtype: str = 'float32') -> None:
        """Turn the backbone into its form for inference, for good.

        The outputs stay the same, as feature maps in channels-last memory.
        The parameters are others: every norm and scale is folded into its
        neighbours. See ``docs/deploy.md``.

        Args:
            dtype (str): What 1x1 convolutions multiply: ``'float32'``, or
                ``'bfloat16'`` or ``'int8'``, which are faster on a CPU that
                has instructions for them, and change the outputs a little.
                Images, feature maps and all else stay float32. Defaults to
                ``'float32'``.

        Raises:
            RuntimeError: If it is deployed already or in training mode.
            FoldError: If it has norms other than batch norms.
            ValueError: If the dtype is another one.
        """
        deploy.check_dtype(dtype)
        if self.deploy:
            raise RuntimeError(
                'this MobileMamba is deployed already; switch_to_deploy() '
                'is called once, and not with deploy=True'
            )
        if self.training:
            raise RuntimeError(
                'switch_to_deploy() folds the running statistics of the '
                'norms, which training would change; call .eval() first'
            )
        stem = deploy.Stem(cast(Stem, self.stem))
        stages = nn.ModuleList(
            deploy.Stage(cast(Stage, stage)) for stage in self.stages
        )
        deploy.pack_products(nn.ModuleList([stem, stages]), dtype)
        self.stem, self.stages = stem, stages
        self.deploy = True
        self.eval()

    def train(self, mode: bool = True) -> 'MobileMamba':
        """Set the mode; frozen stages and fixed norms stay in eval mode.

        Args:
            mode (bool): Whether to train. Defaults to True.

        Returns:
            MobileMamba: Itself.

        Raises:
            RuntimeError: If ``mode`` is True and the backbone is deployed.
        """
        if mode and self.deploy:
            raise RuntimeError(
                'a deployed MobileMamba cannot be trained: its norms are '
                'folded into its convolutions. Train one that is built '
                'without deploy=True and deploy it afterwards'
            )
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Where a parameter is, for mmpretrain's layer-wise learning rates.

        The stem is layer 0, and each block is one. What is in front of the
        first block of a stage belongs to it, what follows the backbone is the
        last layer.

        Args:
            param_name (str): The name of the parameter in the model.
            prefix (str): Of the backbone's names. Defaults to ``''``.

        Returns:
            tuple[int, int]: The layer, from 0, and the number of layers.
        """
        depths = self.arch['depths']
        count = sum(depths) + 2
        if not param_name.startswith(prefix):
            return count - 1, count
        name = param_name.removeprefix(prefix).split('.')
        if name[0] == 'stem':
            return 0, count
        stage = int(name[1])
        block = int(name[3]) if name[2] == 'blocks' else 0
        return 1 + sum(depths[:stage]) + block, count

    @property
    def _num_used(self) -> int:
        """Number of stages the outputs depend on."""
        return max(self.out_indices) + 1

    def _freeze_stages(self) -> None:
        """Freeze the first ``frozen_stages`` stages and the unused ones.

        The latter would never get a gradient, which DistributedDataParallel
        takes for a mistake.
        """
        frozen = list(self.stages[self._num_used :])
        if self.frozen_stages >= 0:
            frozen += [self.stem, *self.stages[: self.frozen_stages]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def _report_unused(self) -> None:
        for i in range(self._num_used, len(self.stages)):
            count = sum(p.numel() for p in self.stages[i].parameters())
            print_log(
                f'Stage {i + 1} of MobileMamba is not used by '
                f'out_indices={self.out_indices}: its {count / 1e6:.2f} M '
                'parameters are frozen',
                logger='current',
            )

    def _check_input(self, x: Tensor) -> None:
        if x.dim() != 4:
            raise ValueError(
                'MobileMamba expects images (B, '
                f'{self.in_channels}, H, W), got a '
                f'{x.dim()}-D tensor of shape {tuple(x.shape)}'
            )
        if x.shape[1] != self.in_channels:
            raise ValueError(
                f'MobileMamba was built for in_channels={self.in_channels}, '
                f'got an input of {x.shape[1]} channels, shape '
                f'{tuple(x.shape)}'
            )
        if x.shape[2] == 0 or x.shape[3] == 0:
            raise ValueError(
                'MobileMamba needs images with pixels, got '
                f'{x.shape[2]}x{x.shape[3]}; look at how they are resized'
            )

    def _adapt_state_dict(self, state_dict, prefix, *args) -> None:
        """Hook: accept published names, refuse another arch's tensors."""
        adapt_state_dict(self, state_dict, prefix)

    @staticmethod
    def _checkpoint_filter(state_dict, prefix, *args) -> None:
        """Hook of mmpretrain's ``ImageClassifier``: accept published ones."""
        adapt_classifier(state_dict, prefix)
