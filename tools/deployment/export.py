"""Export a trained model out of PyTorch.

Detectors end in boxes, scores and labels, after NMS; segmentors in label maps;
classifiers in scores. docs/export.md explains the formats.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from mmmamba.export import (
    gather_facts,
    image_shape,
    make_graph,
)
from mmmamba.export.check import Difference, compare
from mmmamba.export.facts import Facts, resizing_to
from mmmamba.export.formats import SUFFIXES, check_packages, write
from mmmamba.export.quantize import find_images
from mmmamba.ops import is_packed
from mmmamba.utils.cli import (
    UsageError,
    add_cfg_options,
    check_checkpoint,
    load_config,
    output_file,
    positive_int,
    run_tool,
)
from mmmamba.utils.trained_model import load_trained


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument('checkpoint', help='checkpoint of the trained model')
    parser.add_argument(
        'out',
        type=Path,
        help='file to write; its suffix tells the format: '
        + ', '.join(filter(None, SUFFIXES.values()))
        + '; with --format web, a folder',
    )
    parser.add_argument(
        '--format',
        choices=SUFFIXES,
        help='default: that of the suffix of OUT; web: a page that runs the '
        'model in a browser',
    )
    parser.add_argument(
        '--shape',
        nargs='+',
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images, or "dynamic" with --custom-op (default: what the '
        'test pipeline of the config resizes to)',
    )
    parser.add_argument(
        '--batch',
        default='1',
        metavar='N',
        help='images at once, or "dynamic" (default: 1)',
    )
    parser.add_argument(
        '--custom-op',
        nargs='?',
        const='block',
        choices=['block', 'scan'],
        help='run by a library of mmmamba what standard operations are slow '
        'at: whole blocks (without a value), or the scan alone; for onnx and '
        'openvino',
    )
    parser.add_argument(
        '--dtype',
        choices=['fp32', 'fp16', 'int8'],
        default='fp32',
        help='fp16: weights of half the size; int8: convolutions in 8 bits, '
        'with --calibration; for onnx, openvino and web. With --custom-op, '
        'and for pt2, int8 is the 1x1 convolutions of the backbone, without '
        'calibration (default: fp32)',
    )
    parser.add_argument(
        '--calibration',
        type=Path,
        metavar='DIR',
        help='int8: folder of images, such as those trained on',
    )
    parser.add_argument(
        '--calibration-images',
        type=positive_int,
        default=100,
        metavar='N',
        help='int8: how many of them at most (default: 100)',
    )
    parser.add_argument(
        '--with-preprocess',
        action='store_true',
        help='take (B, H, W, 3) uint8 images as OpenCV reads them: the mean, '
        'the standard deviation and the order of channels are in the graph',
    )
    parser.add_argument(
        '--backbone',
        action='store_true',
        help='export the backbone alone, which ends in its feature maps',
    )
    parser.add_argument(
        '--logits',
        action='store_true',
        help='segmentors: end in logits instead of a label map',
    )
    parser.add_argument(
        '--opset',
        type=int,
        default=17,
        help='onnx, openvino: version of the operations (default: 17)',
    )
    parser.add_argument(
        '--check',
        action='store_true',
        help='run the file and compare it with the model; an exit status of '
        '1 tells that they differ',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    kind = choose_format(args)
    if kind not in ('web', 'coreml'):  # which are folders
        output_file(str(args.out))
    batch, shape, dynamic = choose_shape(args)
    check_options(args, kind, dynamic)
    check_packages(kind, args.calibration is not None)
    cfg = load_config(args)
    check_checkpoint(args.checkpoint)
    calibration = []
    if args.calibration:
        calibration = find_images(args.calibration, args.calibration_images)
    model = load_trained(cfg, args.checkpoint)

    facts = gather_facts(model, cfg)
    interpolation = facts.resize['interpolation']
    backend = facts.resize.get('backend', 'cv2')
    if kind == 'web' and (interpolation, backend) != ('bilinear', 'cv2'):
        raise UsageError(
            "--format web resizes photos by OpenCV's bilinear; the test "
            f'pipeline of the config has interpolation={interpolation!r}, '
            f'backend={backend!r}'
        )
    if facts.unprepared:
        report_unprepared(facts.unprepared, kind, bool(args.calibration))
    size = shape or image_shape(cfg)
    facts.shape = None if 'height' in dynamic else list(size)
    if shape is not None:
        facts.resize = resizing_to(facts.resize, shape)
    facts.preprocessed = args.with_preprocess
    # PyTorch runs a package, and has the compiled ops.
    custom_op = 'block' if kind == 'pt2' else args.custom_op
    packed = packs_int8(args, kind)
    facts.custom_ops = custom_op is not None
    ends = dict(backbone_only=args.backbone, logits=args.logits)
    graph = make_graph(
        model,
        facts,
        size,
        custom_op=custom_op,
        dtype='int8' if packed else 'float32',
        **ends,
    )
    example = make_example(batch, size, args.with_preprocess)
    print(f'Exporting {facts.task} at {size[0]}x{size[1]} to {kind}')
    written = write(
        graph,
        example,
        args.out,
        kind,
        opset=args.opset,
        dynamic=dynamic,
        half=args.dtype == 'fp16',
        calibration=calibration,
    )
    print(f'Wrote {args.out}: {written}')
    note_frame(facts)
    if kind == 'web':
        print(f'To see it: python -m http.server --directory {args.out}')
    if args.check:
        file = args.out / 'model.onnx' if kind == 'web' else args.out
        # A number that int8 rounds to the other step is no error.
        rounds = any(map(is_packed, graph.parameters()))
        trained = make_graph(model, facts, size, folded=False, **ends)
        differences = compare(trained, file, example, args.dtype == 'fp16')
        report(differences, any_allowed=rounds or args.dtype == 'int8')


def report_unprepared(steps: list[str], kind: str, calibrates: bool) -> None:
    """Say what a photo goes through in a test, and not with the file."""
    found = f'the test pipeline of the config has {", ".join(steps)}'
    if kind == 'web' or calibrates:
        option = '--format web' if kind == 'web' else '--calibration'
        raise UsageError(f'{option} prepares photos itself, but {found}')
    print(
        f'Note: {found}, which predict.py and ExportedModel.predict() refuse '
        'to do without. Prepare images as the pipeline does, and call run()'
    )


def note_frame(facts: Facts) -> None:
    """Say what photos of other proportions than the file's go through."""
    framed = facts.task in ('detection', 'segmentation')
    if framed and facts.resize['keep_ratio']:
        height, width = facts.shape
        print(
            f'Note: a photo keeps its proportions in {height}x{width}. It is '
            'padded where it has others, and a portrait in a landscape gets '
            'smaller than in a test, at the cost of accuracy: --shape takes '
            'the proportions of your photos'
        )


def packs_int8(args: argparse.Namespace, kind: str) -> bool:
    """Tell whether our own ops multiply int8: none of them is calibrated."""
    ours = kind == 'pt2' or args.custom_op == 'block'
    return ours and args.dtype == 'int8'


def choose_format(args: argparse.Namespace) -> str:
    """Tell the format by the option or by the suffix."""
    by_suffix = {suffix: kind for kind, suffix in SUFFIXES.items() if suffix}
    kind = args.format or by_suffix.get(args.out.suffix)
    if kind is None:
        raise UsageError(
            f'the suffix of {args.out} names no format; give --format, or one '
            f'of {", ".join(by_suffix)}'
        )
    if kind == 'web' and args.out.is_file():
        raise UsageError(f'--format web writes a folder; {args.out} is a file')
    if args.out.suffix != SUFFIXES[kind] and kind != 'web':
        raise UsageError(
            f'a file of --format {kind} is called *{SUFFIXES[kind]}, not '
            f'{args.out.name}'
        )
    return kind


def choose_shape(
    args: argparse.Namespace,
) -> tuple[int, tuple[int, int] | None, list[str]]:
    """Read ``--batch`` and ``--shape``: numbers, and which are open."""
    dynamic, batch, shape = [], 1, None
    if args.batch == 'dynamic':
        dynamic.append('batch')
        batch = 2  # a trace of one image may take 1 for a constant
    elif args.batch.isdigit() and int(args.batch) > 0:
        batch = int(args.batch)
    else:
        raise UsageError(f'--batch {args.batch}: a number, or "dynamic"')
    if args.shape == ['dynamic']:
        dynamic += ['height', 'width']
    elif args.shape is not None:
        if len(args.shape) != 2 or not all(s.isdigit() for s in args.shape):
            raise UsageError(
                f'--shape {" ".join(args.shape)}: HEIGHT WIDTH, or "dynamic"'
            )
        shape = (int(args.shape[0]), int(args.shape[1]))
        if min(shape) < 1:
            raise UsageError('--shape: an image has pixels')
    return batch, shape, dynamic


def check_options(
    args: argparse.Namespace, kind: str, dynamic: list[str]
) -> None:
    """Refuse what does not go together."""
    if 'height' in dynamic and kind != 'pt2' and args.custom_op != 'block':
        raise UsageError(
            '--shape dynamic needs --custom-op: in standard operations the '
            'scan is unrolled for one length. Else export once for each shape'
        )
    if args.custom_op and kind not in ('onnx', 'openvino'):
        raise UsageError(
            f'--custom-op is for onnx and openvino; {kind} has '
            + ('the compiled ops anyway' if kind == 'pt2' else 'none')
        )
    if kind not in ('onnx', 'openvino', 'web'):
        options = {
            '--opset': args.opset != 17,
            '--dtype fp16': args.dtype == 'fp16',
        }
        for option, given in options.items():
            if given:
                raise UsageError(
                    f'{option} is for onnx, openvino and web, not {kind}'
                )
    if kind == 'coreml' and args.check:
        raise UsageError('--check cannot run Core ML files: macOS alone does')
    if kind == 'web':
        check_web(args)
    if packs_int8(args, kind):
        if args.calibration is not None:
            raise UsageError(
                'in blocks of ours int8 has nothing to calibrate: leave '
                '--calibration away'
            )
    elif (args.calibration is None) == (args.dtype == 'int8'):
        raise UsageError('--dtype int8 and --calibration DIR go together')
    elif args.dtype == 'int8':
        check_int8(args, kind)


def check_web(args: argparse.Namespace) -> None:
    """Refuse what the page does not show, or does itself."""
    if args.backbone or args.logits:
        raise UsageError(
            '--format web shows objects and label maps: leave --backbone and '
            '--logits away'
        )
    if args.with_preprocess or args.batch != '1':
        raise UsageError(
            '--format web takes photos one by one, and prepares them itself: '
            'leave --with-preprocess and --batch away'
        )


def check_int8(args: argparse.Namespace, kind: str) -> None:
    """Refuse what does not go together with 8 bits."""
    if kind not in ('onnx', 'openvino', 'web'):
        raise UsageError(
            f'--dtype int8 is for onnx, openvino, web and pt2, not {kind}'
        )
    if args.custom_op and kind == 'onnx':
        raise UsageError(
            '--dtype int8 --custom-op scan is for openvino; in ONNX Runtime '
            'the scan as a custom op is slower with it than without'
        )


def make_example(batch: int, size: tuple, preprocessed: bool) -> torch.Tensor:
    """Images of smooth patterns, on which a detector finds something."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=(batch, 3, 8, 8)))
    images = torch.nn.functional.interpolate(
        coarse.float(), size, mode='bicubic'
    )
    if not preprocessed:
        return images
    pixels = (images * 50 + 128).clamp(0, 255).to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).contiguous()


def report(differences: list[Difference], any_allowed: bool) -> None:
    """Print how the file and the model differ, which may be an error."""
    table = Table(title='The file against the model')
    for column in ('output', 'shape', 'difference', 'allowed'):
        table.add_column(column)
    for d in differences:
        allowed = 'any' if any_allowed else f'{d.allowed:.2g}'
        table.add_row(d.name, d.shape, d.text, allowed)
    Console().print(table)
    bad = [
        d.name
        for d in differences
        if not (d.passed or (any_allowed and math.isfinite(d.value)))
    ]
    if bad:
        raise UsageError(
            f'the file differs from the model in {", ".join(bad)}'
        )
    if any(d.name == 'objects' and d.shape == '0' for d in differences):
        print(
            'The model finds nothing in the pattern that it was shown, so '
            'that no box was compared: compare on photos, by predict.py and '
            'image_demo.py'
        )


if __name__ == '__main__':
    run_tool(main)
