"""The frozen model a student learns from."""

import importlib
import re
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from mmmamba.checkpoint import CheckpointError, unwrap_state_dict


def check_teacher(model: dict) -> None:
    """Refuse a config whose teacher is not there, without building it.

    Args:
        model (dict): Config of a :class:`DistilledClassifier`.

    Raises:
        FileNotFoundError: If a file does not exist.
        CheckpointError: If no weights are named at all.
    """
    config = model.get('teacher_config', {})
    checkpoint = model.get('teacher_ckpt')
    remedy = (
        'Name it by --cfg-options model.teacher_ckpt=PATH; docs/pretrain.md '
        'says where to get the default one'
    )
    if isinstance(config, (str, Path)):
        if not Path(config).is_file():
            raise FileNotFoundError(
                f"the teacher's config {config} does not exist; name it by "
                '--cfg-options model.teacher_config=PATH'
            )
        config = {}
    if checkpoint is None:
        if not config.get('pretrained') and not config.get('init_cfg'):
            raise CheckpointError(
                'the teacher has no checkpoint, so its weights would be '
                f'random. {remedy}'
            )
    elif '://' not in checkpoint and not Path(checkpoint).is_file():
        raise FileNotFoundError(
            f"the teacher's checkpoint {checkpoint} does not exist. {remedy}"
        )


class Teacher:
    """A frozen classifier beside a student, and no part of it.

    It is no ``nn.Module``, so the student's optimizer, checkpoints, EMA, mode
    and distributed wrapper know nothing of it. It is built when it is first
    needed: testing a student does not need its teacher.

    Args:
        config (dict | str): Config of an mmpretrain model, such as
            ``dict(type='TimmClassifier', model_name='tresnet_v2_l')``, or an
            mmpretrain config file. Images are normalized as its
            ``data_preprocessor`` says, in units of 0 to 255; a timm model
            without one as timm did.
        checkpoint (str, optional): Its weights, of mmpretrain or, for a
            ``TimmClassifier``, of timm. Defaults to None, for a config with
            ``pretrained=True`` or an ``init_cfg``.
        size (int): Side in pixels of the images it sees, resized bicubically.
            Defaults to 224.
    """

    def __init__(
        self, config: dict | str, checkpoint: str | None, size: int = 224
    ) -> None:
        self.config = config
        self.checkpoint = checkpoint
        self.size = size
        self.model: Any = None  # that of mmpretrain, once it is built

    def __deepcopy__(self, memo: dict) -> 'Teacher':
        return self  # one copy serves the student and its moving average

    def load(self, num_classes: int) -> None:
        """Build the model and load its weights, unless that is done.

        Args:
            num_classes (int): What the student has, and the teacher must.

        Raises:
            FileNotFoundError: If config or checkpoint do not exist.
            CheckpointError: If the checkpoint does not fit the model, or the
                teacher has other classes.
        """
        if self.model is not None:
            return
        check_teacher(
            dict(teacher_config=self.config, teacher_ckpt=self.checkpoint)
        )
        config = self.config
        if isinstance(config, (str, Path)):
            config = Config.fromfile(config)
            preprocessor = config.get('data_preprocessor')
            config = config.model
            if preprocessor is not None:
                config.setdefault('data_preprocessor', preprocessor)
        model = MODELS.build(config)
        network: Any = getattr(model, 'model', None)  # within mmpretrain's
        if 'data_preprocessor' not in config and hasattr(
            network, 'default_cfg'
        ):
            model.data_preprocessor = timm_preprocessor(network)
        if self.checkpoint is None:
            model.init_weights()
        else:
            print_log(
                f'Load the teacher from {self.checkpoint}', logger='current'
            )
            load_weights(model, self.checkpoint)
        self.model = model.eval().requires_grad_(False)
        image = torch.zeros(1, 3, self.size, self.size)
        with torch.no_grad():
            found = self.model(image, mode='tensor').shape[1]
        if found != num_classes:
            raise CheckpointError(
                f'the teacher has {found} classes and the student '
                f'{num_classes}; set model.head.num_classes and model.'
                'teacher_config to the same'
            )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Compute the teacher's logits.

        Args:
            images (Tensor): RGB images of 0 to 255, ``(B, 3, H, W)``.

        Returns:
            Tensor: ``(B, num_classes)``, without gradient.
        """
        self.model.to(images.device)
        if images.shape[-2:] != (self.size, self.size):
            images = F.interpolate(
                images, (self.size, self.size), mode='bicubic'
            )
        preprocessor = self.model.data_preprocessor
        # Its mean is in the order of the channels that it makes.
        if not getattr(preprocessor, 'to_rgb', True):
            images = images.flip(1)
        if getattr(preprocessor, '_enable_normalize', False):
            images = (images - preprocessor.mean) / preprocessor.std
        return self.model(images, mode='tensor')


def timm_preprocessor(network: nn.Module) -> nn.Module:
    """Normalize as timm did when it trained a network.

    Args:
        network (nn.Module): Of timm.

    Returns:
        nn.Module: mmpretrain's preprocessor.
    """
    trained = cast('dict[str, Any]', network.default_cfg)
    return MODELS.build(
        dict(
            type='ClsDataPreprocessor',
            mean=[255 * value for value in trained['mean']],
            std=[255 * value for value in trained['std']],
            to_rgb=True,
        )
    )


def load_weights(model: nn.Module, path: str) -> None:
    """Load all weights of a classifier, of mmpretrain or of timm.

    Args:
        model (nn.Module): An mmpretrain model.
        path (str): A local file or an address.

    Raises:
        CheckpointError: If a tensor is missing, left over or of another
            shape.
    """
    if path.endswith('.safetensors'):  # as timm publishes them
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state_dict = load_file(path)
        except SafetensorError as error:
            raise CheckpointError(
                f'{path} is truncated or damaged ({error}). Download or copy '
                'it again'
            ) from error
    else:
        checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu')
        state_dict = unwrap_state_dict(checkpoint)
    network = model
    if type(model).__name__ == 'TimmClassifier':
        # timm's own translation of an older layout, where the model has one.
        network = model.get_submodule('model')
        module = importlib.import_module(type(network).__module__)
        translate = getattr(module, 'checkpoint_filter_fn', None)
        if translate is not None:
            state_dict = translate(state_dict, network)
    try:
        network.load_state_dict(state_dict)
    except RuntimeError as error:
        details = re.sub(r'\s+', ' ', str(error))
        raise CheckpointError(
            f"{path} does not hold the teacher's weights: {details[:400]}"
        ) from None
