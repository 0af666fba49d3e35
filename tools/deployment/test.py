"""Evaluate an exported model with the metric of its config.

The images go through the file as ``predict.py`` sends them: what the config
resizes, pads and normalizes is done as the file says.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmengine.utils import to_2tuple

from mmmamba.datasets import check_datasets
from mmmamba.datasets.config import leaves, type_name
from mmmamba.deploy import ExportedModel
from mmmamba.export.facts import pipeline_of
from mmmamba.utils.cli import (
    UsageError,
    add_cfg_options,
    load_config,
    positive_int,
    run_tool,
)
from mmmamba.utils.trained_model import metainfo_of_test

#: Transforms that the file does itself.
LEFT_OUT = ('Resize', 'ResizeEdge', 'CenterCrop', 'Pad', 'RandomFlip')
SCOPES = dict(
    detection='mmdet', segmentation='mmseg', classification='mmpretrain'
)


@MODELS.register_module()
class ExportedPredictor(BaseModel):
    """An exported model in the place of one in PyTorch.

    Args:
        file (str): The ``.onnx`` or ``.xml`` file.
        threads (int, optional): Threads. Defaults to None.
        scale (Sequence[int], optional): Longer and shorter side that the
            config gives each image, whose proportions it keeps. Defaults to
            None.
    """

    def __init__(
        self,
        file: str,
        threads: int | None = None,
        scale: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.model = ExportedModel(file, threads)
        self.scale = scale
        self.images = 0
        self.smaller: list[float] = []

    def warn_of_smaller_images(self) -> None:
        """Say how many images the file made smaller than the config does."""
        if not self.smaller:
            return
        height, width = self.model.facts.shape
        print_log(
            f'{len(self.smaller)} of {self.images} images were resized to '
            f'{np.mean(self.smaller):.0%} of the size that the config gives '
            f'them, since their proportions are not those of {height}x{width}'
            ', for which the file was exported; export with a --shape of '
            'theirs, or once for each orientation',
            logger='current',
            level=logging.WARNING,
        )

    def _compare_size(self, height: int, width: int) -> None:
        """Count an image, and those that get smaller by the file."""
        self.images += 1
        frame = self.model.facts.shape
        if self.scale is None or frame is None:
            return
        _, wanted = mmcv.rescale_size(
            (width, height), self.scale, return_scale=True
        )
        part = min(frame[0] / height, frame[1] / width) / wanted
        if part < 0.98:  # more than rounding
            self.smaller.append(part)

    def test_step(self, data: dict) -> list:
        """Fill in the samples of a batch."""
        for image, sample in zip(data['inputs'], data['data_samples']):
            self._compare_size(*image.shape[1:])
            found = self.model.predict(image.permute(1, 2, 0).numpy())
            found = {name: torch.from_numpy(v) for name, v in found.items()}
            if 'label_map' in found:
                labels = found['label_map'][None].long()
                sample.pred_sem_seg = PixelData(data=labels)
            elif 'boxes' in found:
                found['bboxes'] = found.pop('boxes')
                sample.pred_instances = InstanceData(**found)
            else:
                scores, facts = found['scores'], self.model.facts
                sample.set_pred_score(scores)
                sample.set_pred_label(
                    (scores > facts.threshold).nonzero().flatten()
                    if facts.multi_label
                    else scores.argmax(keepdim=True)
                )
        return data['data_samples']

    def forward(self, *args, **kwargs):
        """Do nothing: an exported model is tested, not trained."""
        raise NotImplementedError('an exported model is run by test_step()')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument('model', type=Path, help='.onnx or .xml file')
    parser.add_argument(
        '--work-dir',
        help='the directory of the log and the metrics; defaults to '
        'work_dirs/<config name>',
    )
    parser.add_argument(
        '--threads',
        type=positive_int,
        help='default: as many as there are cores',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    check_model(cfg, args.model)
    check_datasets(cfg, ('test',))
    scale = kept_scale(cfg)
    for dataset in leaves(cfg.test_dataloader.dataset):
        dataset.pipeline = [
            step
            for step in dataset.pipeline
            if type_name(step) not in LEFT_OUT
        ]
        for step in dataset.pipeline:
            step.pop('to_float32', None)  # files take the bytes of a photo
    cfg.model = dict(
        type='ExportedPredictor',
        file=str(args.model),
        threads=args.threads,
        scale=scale,
    )
    cfg.pop('data_preprocessor', None)
    cfg.load_from, cfg.resume = None, False
    cfg.custom_hooks = []
    runner = Runner.from_cfg(cfg)
    runner.test()
    runner.model.warn_of_smaller_images()


def kept_scale(cfg: Config) -> tuple[int, int] | None:
    """The size that the config resizes to where it keeps proportions."""
    for step in pipeline_of(cfg):
        if type_name(step) == 'Resize' and step.get('keep_ratio'):
            scale = step.get('scale')
            return None if scale is None else to_2tuple(scale)
    return None


def check_model(cfg: Config, file: Path) -> None:
    """Refuse a file of another task or of other classes."""
    try:
        facts = ExportedModel(file).facts
    except (OSError, ImportError, ValueError) as error:
        raise UsageError(str(error)) from None
    steps = getattr(facts, 'unprepared', [])  # files of old have none
    if steps:
        raise UsageError(
            f'the test pipeline of {file} has {", ".join(steps)}, '
            'which is not done here; export without it'
        )
    if SCOPES.get(facts.task) != cfg.default_scope:
        raise UsageError(
            f'{file} is for {facts.task}, and the config is of '
            f'{cfg.default_scope}'
        )
    dataset = next(leaves(cfg.test_dataloader.dataset))
    named = metainfo_of_test(cfg).get('classes') or dataset.get('classes')
    classes = list(named or [])
    if classes and facts.classes and classes != facts.classes:
        raise UsageError(
            f'{file} knows {len(facts.classes)} classes '
            f'({", ".join(facts.classes[:5])}), and the test data have '
            f'{len(classes)} ({", ".join(classes[:5])})'
        )


if __name__ == '__main__':
    run_tool(main)
