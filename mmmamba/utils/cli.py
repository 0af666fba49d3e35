"""Arguments, config loading and error reporting of the tools."""

import argparse
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmmamba.checkpoint import CheckpointError
from mmmamba.datasets import DatasetError
from mmmamba.deploy import DTYPES, FoldError
from mmmamba.hooks import NonFiniteError
from mmmamba.utils.cpu import use_full_precision
from mmmamba.utils.image_size import set_image_size

#: What gloo and NCCL say where a process they wait for is no more.
LOST_PROCESS = (
    'Connection closed by peer',
    'Connection reset by peer',
    'Broken pipe',
    'ncclRemoteError',
)
#: What a disk without room, a quota and a limit on files' sizes say.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UsageError(RuntimeError):
    """A command that cannot be carried out as it was given."""


class CheckpointParser(argparse.ArgumentParser):
    """The parser of a tool whose last argument is a checkpoint."""

    def error(self, message: str) -> NoReturn:
        """End the tool; explain what the shell makes of ``best_*.pth``."""
        if message.startswith('unrecognized arguments') and '.pth' in message:
            message += (
                '. A checkpoint is one file, and best_*.pth fits several '
                'where there was more than one training'
            )
        super().error(message)


class _Options(DictAction):
    """``DictAction`` that names an argument without ``=``."""

    def __call__(self, parser, namespace, values, option_string=None):
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string}: {value} is not KEY=VALUE')
        super().__call__(parser, namespace, values, option_string)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``, as in all OpenMMLab tools.

    Args:
        parser (ArgumentParser): The parser to extend.
    """
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='override settings of the config, for example '
        'train_dataloader.batch_size=8; lists as key="[a,b]" or key=a,b, '
        'nested as key="[(a,b),(c,d)]", without white space',
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``train.py`` and ``test.py`` share.

    Args:
        parser (ArgumentParser): The parser to extend.
    """
    parser.add_argument(
        '--work-dir',
        help='the directory of logs, checkpoints and metrics; defaults to '
        'work_dirs/<config name>',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher (default: none)',
    )
    # Set by torch.distributed.launch; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help=argparse.SUPPRESS,
    )


def add_deploy_options(parser: argparse.ArgumentParser, same: str) -> None:
    """Add the options that deploy a model before it runs.

    Args:
        parser (ArgumentParser): The parser to extend.
        same (str): What a deployed model leaves as it is, for the help.
    """
    parser.add_argument(
        '--fuse-conv-bn',
        action='store_true',
        help='deploy the backbone and fold batch norms into convolutions: '
        f'the same {same}, faster',
    )
    parser.add_argument(
        '--deploy-dtype',
        choices=DTYPES,
        help='as --fuse-conv-bn, with 1x1 convolutions of the backbone that '
        'multiply bfloat16 or int8, and large convolutions of neck and head '
        f'in bfloat16: nearly the same {same}, faster on CPUs that have '
        'instructions for it',
    )


def deploy_dtype(args: argparse.Namespace) -> str | None:
    """Tell in which dtype the model shall be deployed.

    Args:
        args (Namespace): Parsed options.

    Returns:
        str: The dtype; None if it shall not be deployed.
    """
    return args.deploy_dtype or ('float32' if args.fuse_conv_bn else None)


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """Add the image size of classifiers, which several transforms share.

    Args:
        parser (ArgumentParser): The parser to extend.
    """
    parser.add_argument(
        '--img-size',
        type=int,
        metavar='PIXELS',
        help='classification: train and test at this size instead of that of '
        'the config',
    )
    parser.add_argument(
        '--crop-ratio',
        type=float,
        metavar='RATIO',
        help='classification: side of the test crop over the shorter side of '
        'the image (default: that of the config, 0.875 with --img-size)',
    )


def set_size(cfg: Config, args: argparse.Namespace) -> None:
    """Apply the options of :func:`add_size_options`.

    Args:
        cfg (Config): The config of the run; changed in place.
        args (Namespace): Parsed options.

    Raises:
        UsageError: If the config has no such sizes, or for a wrong value.
    """
    if args.img_size is None and args.crop_ratio is None:
        return
    try:
        set_image_size(cfg, args.img_size, args.crop_ratio)
    except ValueError as error:
        raise UsageError(f'--img-size, --crop-ratio: {error}') from None


def load_config(args: argparse.Namespace) -> Config:
    """Load the config of a run and apply the shared options.

    Args:
        args (Namespace): Parsed options with ``config``, ``cfg_options`` and
            those of :func:`add_run_options`.

    Returns:
        Config: The config, its modules imported and its scope entered.

    Raises:
        UsageError: If there is no such config file, or the work directory
            is a file.
    """
    os.environ.setdefault('LOCAL_RANK', str(getattr(args, 'local_rank', 0)))
    cfg = Config.fromfile(find_config(args.config))
    if args.cfg_options:
        _make_way(cfg, args.cfg_options)
        cfg.merge_from_dict(args.cfg_options)
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'OptimWrapper':  # by --cfg-options, of AMP's
        use_full_precision(wrapper)
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader') or {}
        if loader.get('num_workers') == 0:  # PyTorch refuses both
            loader['persistent_workers'] = False
    # As in mmdet: command line, then config, then the config's name.
    work_dir = getattr(args, 'work_dir', None) or cfg.get('work_dir')
    cfg.work_dir = work_dir or f'./work_dirs/{Path(args.config).stem}'
    if Path(cfg.work_dir).is_file():
        raise UsageError(f'--work-dir {cfg.work_dir} is a file')
    cfg.launcher = getattr(args, 'launcher', 'none')
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    return cfg


def find_config(name: str) -> str:
    """Find a config, of the user or of mmmamba.

    Args:
        name (str): Its path. Where there is none, that of one of mmmamba's
            configs, such as ``configs/det/retinanet_mobilemamba_b1.py``, or
            what is behind ``configs``.

    Returns:
        str: Its path.

    Raises:
        UsageError: If there is no such config file.
    """
    packaged = Path(__file__).parents[1] / '.mim'  # as mim finds them
    for path in (Path(name), packaged / name, packaged / 'configs' / name):
        if path.is_file():
            if path.suffix not in ('.py', '.json', '.yaml', '.yml'):
                raise UsageError(f'{name} is no config, such as a .py file')
            return str(path)
    raise UsageError(
        f'there is no config {name}; those of mmmamba lie in configs/det, '
        'configs/seg, configs/cls and configs/demo'
    )


def positive_int(text: str) -> int:
    """Take a number of 1 or more, as ``type`` of an option.

    Args:
        text (str): What was given.

    Returns:
        int: The number.

    Raises:
        argparse.ArgumentTypeError: If it is none, or less than 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text} is no number of at least 1')
    return int(text)


def torch_device(name: str) -> str:
    """Take a device of PyTorch, as ``type`` of an option.

    Args:
        name (str): Such as ``cpu`` or ``cuda:0``.

    Returns:
        str: The same.

    Raises:
        argparse.ArgumentTypeError: If it is none, or not here.
    """
    try:
        found = torch.device(name)
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f'{name} is no device of PyTorch, such as cpu and cuda:0'
        ) from None
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if found.type == 'cuda' and (found.index or 0) >= gpus:
        raise argparse.ArgumentTypeError(
            f'{name}: there is no CUDA GPU here'
            if gpus == 0
            else f'{name}: the last GPU here is cuda:{gpus - 1}'
        )
    return name


def output_file(name: str) -> Path:
    """Take the name of a file to write, as ``type`` of an option.

    What cannot be written is found before the work that it is for.

    Args:
        name (str): The file; its folder is made.

    Returns:
        Path: The same.

    Raises:
        argparse.ArgumentTypeError: If it cannot be written.
    """
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        path.open('ab').close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f'{name} cannot be written: {error.strerror}'
        ) from None
    return path


def picture_file(name: str) -> Path:
    """Take the name of a file to plot into, as ``type`` of an option.

    Args:
        name (str): The file; its folder is made.

    Returns:
        Path: The same.

    Raises:
        argparse.ArgumentTypeError: If it cannot be written, or its suffix is
            none that matplotlib writes.
    """
    from matplotlib.backend_bases import FigureCanvasBase  # takes a second

    suffixes = FigureCanvasBase.get_supported_filetypes()
    if Path(name).suffix.lstrip('.').lower() not in suffixes:
        raise argparse.ArgumentTypeError(
            f'{name} must end in .png or in one of: '
            + ', '.join(f'.{suffix}' for suffix in sorted(suffixes))
        )
    return output_file(name)


def check_checkpoint(name: str) -> None:
    """Refuse a checkpoint that is not there; say which are.

    Args:
        name (str): The file. What the shell leaves of a pattern that fits
            nothing, such as ``best_*.pth``, is one, too.

    Raises:
        UsageError: If there is no such file.
    """
    path = Path(name)
    if path.is_file():
        return
    message = f'there is no checkpoint {name}'
    if path.name.startswith('best_'):
        message += ': a validation that finds nothing keeps none'
    others = path.parent.glob('*.pth')
    newest = max(others, key=lambda p: p.stat().st_mtime, default=None)
    if newest:
        message += f'; the newest in {path.parent} is {newest.name}'
    raise UsageError(message)


def _make_way(cfg: Config, options: dict) -> None:
    """Let ``init_cfg.checkpoint=PATH`` set what the config lacks."""
    for key in options:
        node = cfg
        for name in key.split('.')[:-1]:
            if not isinstance(node, (Config, dict)):
                break
            if name == 'init_cfg' and node.get(name) is None:
                node[name] = dict(type='Pretrained')
            if name not in node:
                break
            if node[name] is None:
                node[name] = {}
            node = node[name]


def run_tool(main: Callable[[], None]) -> None:
    """Run a tool; report what the user can mend in one line, not a traceback.

    Args:
        main (Callable): The tool.
    """
    try:
        main()
        if dist.is_available() and dist.is_initialized():
            # mmengine leaves it to the end of the process, where gloo's
            # threads, if they outlive it, abort it.
            dist.destroy_process_group()
    except (
        UsageError,
        DatasetError,
        CheckpointError,
        FoldError,
        NonFiniteError,
        argparse.ArgumentTypeError,
    ) as error:
        _fail(str(error))
    except OSError as error:  # a file that cannot be read or written
        if error.errno in DISK_FULL:
            _fail(
                f'{error.strerror}: make room for checkpoints and logs. A '
                'training goes on from its last whole checkpoint with --resume'
            )
        if error.filename is None:
            raise
        _fail(f'{error.filename}: {error.strerror}')
    except RuntimeError as error:
        if not any(text in str(error) for text in LOST_PROCESS):
            raise
        _fail(
            'another process of this run has ended, and its own output says '
            'why. A training goes on from its last checkpoint with --resume'
        )
    except KeyboardInterrupt:
        print(f'{Path(sys.argv[0]).name}: interrupted', file=sys.stderr)
        sys.exit(130)  # as a shell reports it


def _fail(message: str) -> None:
    """End the tool with one line."""
    print(f'{Path(sys.argv[0]).name}: error: {message}', file=sys.stderr)
    sys.exit(1)
