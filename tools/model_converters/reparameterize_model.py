"""Deploy the backbone of a trained model and save it for inference.

DST holds the whole model with its backbone in the form that
``switch_to_deploy()`` leads to. It loads where the config, or
``--cfg-options``, has ``model.backbone.deploy=True``, or the ``--dtype`` in
place of ``True``.
"""

import argparse
from pathlib import Path

import torch
from mmengine.registry import MODELS

import mmmamba
from mmmamba.checkpoint import check_complete
from mmmamba.deploy import DTYPES
from mmmamba.utils.cli import (
    UsageError,
    add_cfg_options,
    check_checkpoint,
    load_config,
    run_tool,
)
from mmmamba.utils.files import whole_or_nothing


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument('src', help='checkpoint of the trained model')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='what the 1x1 convolutions multiply (default: float32); with '
        'bfloat16 or int8 a smaller file',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    check_checkpoint(args.src)
    if Path(args.src).resolve() == Path(args.dst).resolve():
        raise UsageError('SRC and DST are the same file')
    if Path(args.dst).is_dir():
        raise UsageError(f'DST {args.dst} is a directory')

    model = MODELS.build(cfg.model)
    if not hasattr(model.backbone, 'switch_to_deploy'):
        raise UsageError(
            f'the backbone of {args.config}, {type(model.backbone).__name__}, '
            'has no switch_to_deploy()'
        )
    if getattr(model.backbone, 'deploy', False):
        raise UsageError(
            f'{args.config} builds a deployed backbone; SRC is that of a '
            'trained one, and needs deploy=False'
        )
    checkpoint = check_complete(model, args.src)
    model.eval().backbone.switch_to_deploy(args.dtype)
    deploy = True if args.dtype == 'float32' else args.dtype
    meta = {
        **checkpoint.get('meta', {}),
        'mmmamba_version': mmmamba.__version__,
        'deploy': deploy,
    }
    result = dict(meta=meta, state_dict=model.state_dict())
    try:
        with whole_or_nothing(Path(args.dst)) as temporary:
            torch.save(result, temporary)
    except (OSError, RuntimeError) as error:  # PyTorch raises both
        raise UsageError(f'cannot write {args.dst}: {error}') from None
    print(f'Wrote {args.dst}; it loads with model.backbone.deploy={deploy}')


if __name__ == '__main__':
    run_tool(main)
