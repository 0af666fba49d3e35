"""Count the parameters and FLOPs of a model, the selective scan included."""

import argparse
from functools import partial
from inspect import signature

from mmengine.analysis.print_helper import complexity_stats_table
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from rich.console import Console
from rich.table import Table

from mmmamba.deploy import deploy_model
from mmmamba.utils.analysis import analyze_complexity
from mmmamba.utils.analysis.models import detection_samples, image_shape
from mmmamba.utils.cli import (
    UsageError,
    add_cfg_options,
    load_config,
    positive_int,
    run_tool,
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='PX',
        help='image size: one number, or height and width (default: the '
        "config's analysis_shape, else 800 1280 for detection, 512 512 for "
        'segmentation, 224 224 for classification)',
    )
    parser.add_argument(
        '--per-module',
        type=positive_int,
        metavar='DEPTH',
        help='also list the modules, down to this depth',
    )
    parser.add_argument(
        '--fuse-conv-bn',
        action='store_true',
        help='deploy the backbone and fold batch norms into convolutions '
        'first',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    height, width = image_shape(cfg, args.shape)

    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if args.fuse_conv_bn:
        model = deploy_model(model.eval())
    if cfg.get('default_scope') == 'mmdet':
        # Two-stage detectors clip their proposals to the image.
        samples = detection_samples(1, (height, width))
        model.forward = partial(model.forward, data_samples=samples)
    head = getattr(model, 'decode_head', None)
    if head and 'batch_data_samples' in signature(head.forward).parameters:
        # Mask2Former's and MaskFormer's, which mmseg leaves without.
        samples = detection_samples(1, (height, width))
        head.forward = partial(head.forward, batch_data_samples=samples)
    params, flops = analyze_complexity(model, (height, width))
    try:
        total = flops.total()
    except RuntimeError as error:  # the model runs here
        raise UsageError(
            f'{args.config} does not run on an image of {height}x{width}: '
            f'{error}. A larger --shape may serve'
        ) from None

    if args.per_module:
        print(complexity_stats_table(flops, max_depth=args.per_module))
    table = Table(title=f'{args.config} at {height}x{width}')
    for column in ('parameters', 'FLOPs', 'of these the scan'):
        table.add_column(column, justify='right')
    scan = flops.by_operator()['selective_scan']
    table.add_row(f'{params / 1e6:.2f} M', readable(total), readable(scan))
    Console(width=100).print(table)
    print(
        'One multiply-add is one FLOP; the fixed Haar filters count as '
        'parameters.'
    )
    ignored = sorted(flops.unsupported_ops())
    if ignored:
        print(f'Not counted: {", ".join(ignored)}')


def readable(flops: float) -> str:
    """Millions up to ten thousand of them, then thousand millions."""
    return f'{flops / 1e6:.0f} M' if flops < 1e10 else f'{flops / 1e9:.1f} G'


if __name__ == '__main__':
    run_tool(main)
