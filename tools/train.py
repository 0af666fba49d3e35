"""Train a detector, segmentor or classifier."""

import argparse
import contextlib
import logging
import math
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import (
    CheckpointLoader,
    Runner,
    find_latest_checkpoint,
)

from mmmamba.backbones.arch import base_name
from mmmamba.checkpoint import check_classes
from mmmamba.datasets import check_datasets, evaluators_of
from mmmamba.utils.cli import (
    UsageError,
    add_run_options,
    add_size_options,
    find_config,
    load_config,
    run_tool,
    set_size,
)
from mmmamba.utils.cpu import prepare_cpu
from mmmamba.utils.roll_call import roll_call


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='train config file path')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='enable automatic mixed precision training',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate from the config's batch size "
        '(auto_scale_lr.base_batch_size) to the actual one',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from this checkpoint or, without one, from the latest '
        'in the work directory',
    )
    add_size_options(parser)
    add_run_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)

    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UsageError(
                '--auto-scale-lr needs '
                'auto_scale_lr.base_batch_size in the config'
            )
        cfg.auto_scale_lr.enable = True
    set_size(cfg, args)
    with roll_call():
        if args.resume:
            cfg.resume = True
            cfg.load_from = find_checkpoint(args.resume, cfg.work_dir)
        check_schedule(cfg)
        check_save_best(cfg)
        check_pretrained(cfg)
        check_datasets(cfg, ('train', 'val'))

    prepare_cpu(cfg)
    add_hooks(cfg)
    # A config may name its own runner, as in all OpenMMLab projects.
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    runner = build(cfg)
    check_warm_up(cfg, runner.train_loop.max_iters)
    check_teacher_classes(cfg, runner.train_dataloader.dataset.metainfo)
    runner.train()


def find_checkpoint(resume: str, work_dir: str) -> str:
    """Return the checkpoint to resume from, or say that there is none."""
    if resume != 'auto':
        if not Path(resume).is_file():
            raise UsageError(f'--resume: there is no checkpoint {resume}')
        held = CheckpointLoader.load_checkpoint(resume, 'cpu')
        if not {'meta', 'optimizer'} <= set(held):
            raise UsageError(
                f'--resume: {resume} has weights alone, and no state of a '
                'training. To start from them: --cfg-options '
                f'load_from={resume}'
            )
        return resume
    latest = (
        find_latest_checkpoint(work_dir) if Path(work_dir).is_dir() else None
    )
    if latest is not None and not Path(latest).is_file():
        # The directory was moved, or is mounted elsewhere.
        latest = str(Path(work_dir, Path(latest).name))
    if latest is None or not Path(latest).is_file():
        raise UsageError(
            f'--resume: nothing to resume in {work_dir}, which holds no '
            'checkpoint. Start without --resume, or name the --work-dir or '
            'checkpoint of the interrupted run'
        )
    print_log(f'Resume from {latest}', logger='current', level=logging.INFO)
    return latest


def schedulers_of(cfg: Config) -> list[dict]:
    """The schedules of the config, which may be one or none."""
    schedulers = cfg.get('param_scheduler') or []
    return [schedulers] if isinstance(schedulers, dict) else schedulers


def check_schedule(cfg: Config) -> None:
    """Explain a schedule that the training is too short or long for."""
    by_epoch = 'max_epochs' in cfg.train_cfg
    end = cfg.train_cfg.get('max_epochs' if by_epoch else 'max_iters')
    schedulers = schedulers_of(cfg)
    for i, scheduler in enumerate(schedulers):
        begin = scheduler.get('begin', 0)
        if scheduler.get('by_epoch', True) == by_epoch and begin >= end:
            raise UsageError(
                f'param_scheduler.{i} ({scheduler.type}) begins at {begin}, '
                f'when the training has ended, at {end}. Shorten the warm-up '
                f'too, for example --cfg-options param_scheduler.{i}.begin=1 '
                + (f'param_scheduler.{i - 1}.end=1' if i else '')
            )
    # What has neither ends with the training.
    ends = [
        s.get('end', s.get('begin', 0) + s.get('T_max', math.inf))
        for s in schedulers
        if s.get('by_epoch', True) == by_epoch
    ]
    if ends and max(ends) not in (end, math.inf):
        print_log(
            f'The schedule of the learning rate ends at {max(ends)}, and the '
            f'training at {end}: set end, T_max and milestones of '
            'param_scheduler, too',
            logger='current',
            level=logging.WARNING,
        )


def check_save_best(cfg: Config) -> None:
    """Refuse a name that no metric has; mmengine does after a validation."""
    hooks = cfg.get('default_hooks') or {}
    wanted = (hooks.get('checkpoint') or {}).get('save_best') or []
    prefixes = []
    with METRICS.switch_scope_and_registry(cfg.get('default_scope')) as known:
        for evaluator in evaluators_of(cfg, 'val'):
            kind = evaluator['type']
            kind = known.get(kind) if isinstance(kind, str) else kind
            default = getattr(kind, 'default_prefix', None)
            prefixes.append(evaluator.get('prefix') or default)
    if not prefixes or not all(prefixes):  # any name may be right
        return
    for name in [wanted] if isinstance(wanted, str) else wanted:
        if name != 'auto' and name.split('/')[0] not in prefixes:
            raise UsageError(
                f'default_hooks.checkpoint.save_best is {name}, and the '
                'metrics of val_evaluator have names such as '
                f'{prefixes[0]}/{name.split("/")[-1]}'
            )


def check_warm_up(cfg: Config, iterations: int) -> None:
    """Explain a warm-up in iterations that a training in epochs cuts off."""
    for i, scheduler in enumerate(schedulers_of(cfg)):
        end = scheduler.get('end', 0)
        if not scheduler.get('by_epoch', True) and iterations < end < math.inf:
            print_log(
                f'param_scheduler.{i} ({scheduler.type}) ends after {end} '
                f'iterations, and the training after {iterations}: the '
                'learning rate never is that of the config. Shorten it, for '
                'example --cfg-options '
                f'param_scheduler.{i}.end={max(iterations // 20, 1)}',
                logger='current',
                level=logging.WARNING,
            )


def check_pretrained(cfg: Config) -> None:
    """Refuse early if a checkpoint that training starts from is not there."""
    if cfg.get('load_from') and not is_there(cfg.load_from):
        raise UsageError(
            f'load_from: there is no checkpoint {cfg.load_from}; name one by '
            '--cfg-options load_from=PATH'
        )
    backbone = cfg.model.get('backbone', {})
    configs = backbone.get('init_cfg') or []
    for init_cfg in configs if isinstance(configs, list) else [configs]:
        checkpoint = init_cfg.get('checkpoint') or ''
        if '{arch}' in checkpoint:
            name = base_name(backbone.get('arch', 'b1'))
            checkpoint = checkpoint.replace('{arch}', name)
        if checkpoint and not is_there(checkpoint):
            raise UsageError(
                f"the backbone's checkpoint {checkpoint} does not exist. "
                'Download the published one (docs/checkpoints.md) and name it '
                'by --cfg-options model.backbone.init_cfg.checkpoint=PATH, or '
                'train from scratch by --cfg-options '
                'model.backbone.init_cfg=None'
                # Norms that keep their statistics would norm nothing.
                + (
                    ' model.backbone.norm_eval=False'
                    if backbone.get('norm_eval')
                    else ''
                )
            )
    if cfg.model.type == 'DistilledClassifier':
        from mmmamba.classifiers import check_teacher

        teacher = cfg.model.get('teacher_config')
        if isinstance(teacher, str):
            with contextlib.suppress(UsageError):  # said below, as a teacher's
                cfg.model.teacher_config = find_config(teacher)
        try:
            check_teacher(cfg.model)
        except FileNotFoundError as error:
            raise UsageError(str(error)) from None


def check_teacher_classes(cfg: Config, metainfo: dict) -> None:
    """Refuse a teacher that numbers the classes otherwise."""
    file = cfg.model.get('teacher_ckpt')
    classes = metainfo.get('classes')
    # timm's .safetensors do not name them.
    if file and classes and not file.endswith('.safetensors'):
        held = CheckpointLoader.load_checkpoint(file, 'cpu')
        check_classes(held, f'the teacher {file}', list(classes))


def add_hooks(cfg: Config) -> None:
    """Let the machines of a run watch each other, and resuming be checked.

    A config turns a hook off by None.
    """
    hooks = {
        'heartbeat': {},
        'resume': {'type': 'ResumeHook'},
        **(cfg.get('default_hooks') or {}),
    }
    heartbeat = hooks.pop('heartbeat')
    if heartbeat is not None:
        hooks['heartbeat'] = {'type': 'HeartbeatHook', **heartbeat}
    cfg.default_hooks = hooks


def is_there(checkpoint: str) -> bool:
    """Whether a file exists; of an address only its server knows."""
    return '://' in checkpoint or Path(checkpoint).expanduser().is_file()


if __name__ == '__main__':
    run_tool(main)
