"""Test (and evaluate) a detector, segmentor or classifier."""

import argparse
import logging
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.evaluator import DumpResults
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmamba.checkpoint import check_complete
from mmmamba.datasets import check_datasets, evaluators_of
from mmmamba.datasets.config import leaves, type_name
from mmmamba.deploy import deploy_model
from mmmamba.utils.cli import (
    CheckpointParser,
    UsageError,
    add_deploy_options,
    add_run_options,
    add_size_options,
    check_checkpoint,
    deploy_dtype,
    load_config,
    output_file,
    run_tool,
    set_size,
)
from mmmamba.utils.cpu import prepare_cpu
from mmmamba.utils.pictures import add_max_size, draw_fast

_COCO = ['bbox', 'segm', 'proposal', 'proposal_fast']
#: What evaluators compute, by their names.
METRICS = dict(
    IoUMetric=['mIoU', 'mDice', 'mFscore'],
    CocoMetric=_COCO,
    CustomCocoMetric=_COCO,
)
#: Detectors that find no masks.
BOXES_ALONE = (
    'ATSS',
    'DINO',
    'FasterRCNN',
    'RetinaNet',
    'SingleStageDetector',
)


def parse_args() -> argparse.Namespace:
    parser = CheckpointParser(description=__doc__)
    parser.add_argument('config', help='test config file path')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--eval',
        nargs='*',
        metavar='METRIC',
        help='metrics to compute instead of those of the config, for example '
        'bbox segm, or mIoU mDice; without a name, those of the config',
    )
    parser.add_argument(
        '--out',
        help='dump the predictions: a .pkl file for detection and '
        'classification, a directory of label maps for segmentation',
    )
    parser.add_argument(
        '--show', action='store_true', help='show prediction results'
    )
    parser.add_argument(
        '--show-dir',
        help='directory where pictures with the truth and the prediction are '
        'saved; of detectors a relative one lies under work_dir/timestamp',
    )
    add_max_size(parser)
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds between shown pictures (default: 2)',
    )
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation'
    )
    add_deploy_options(parser, 'predictions')
    add_size_options(parser)
    add_run_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args)
    scope = cfg.get('default_scope')

    if '://' not in args.checkpoint:
        check_checkpoint(args.checkpoint)
    cfg.load_from = args.checkpoint
    if args.eval:
        if scope == 'mmpretrain' or not isinstance(cfg.test_evaluator, dict):
            raise UsageError(
                '--eval is for detectors and segmentors of one evaluator; set '
                'test_evaluator by --cfg-options, for example '
                'test_evaluator.topk=[1,5]'
            )
        check_metrics(cfg, args.eval)
        key = 'iou_metrics' if scope == 'mmseg' else 'metric'
        cfg.test_evaluator[key] = args.eval
    if args.show or args.show_dir:
        draw_results(cfg, scope, args)
    if args.tta:
        if scope == 'mmpretrain' and (args.show or args.show_dir):
            raise UsageError(
                '--tta of classifiers has several images to draw for each; '
                'leave --show and --show-dir out'
            )
        use_tta(cfg, scope)
    dtype = deploy_dtype(args)
    if dtype or args.tta:  # a checkpoint's own weights are the average's
        cfg.custom_hooks = [
            hook
            for hook in cfg.get('custom_hooks') or []
            if type_name(hook) != 'EMAHook'
        ]
    if args.out and scope == 'mmseg':
        write_maps(cfg, args.out)
    elif args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UsageError(f'--out {args.out} must end in .pkl or .pickle')
    elif args.out:
        output_file(args.out)
    set_size(cfg, args)
    check_datasets(cfg, ('test',))

    prepare_cpu(cfg)
    build = RUNNERS.build if 'runner_type' in cfg else Runner.from_cfg
    runner = build(cfg)
    if scope != 'mmpretrain':  # draws the model's inputs, which are small
        draw_fast(runner.visualizer, args.max_size)
    model = runner.model
    while hasattr(model, 'module'):  # distributed, test-time augmentation
        model = model.module
    dataset = runner.test_loop.dataloader.dataset
    check_complete(model, args.checkpoint, dataset.metainfo.get('classes'))
    check_names(dataset, scope, args)
    if dtype:
        runner.load_or_resume()
        deploy_model(runner.model.eval(), dtype)
    if args.out and scope != 'mmseg':
        runner.test_evaluator.metrics.append(dump_metric(scope, args.out))
    runner.test()


def check_metrics(cfg: Config, names: list[str]) -> None:
    """Refuse metrics that the evaluator would miss after the whole test."""
    kind = type_name(cfg.test_evaluator)
    known = METRICS.get(kind, names)
    for name in names:
        if name not in known:
            raise UsageError(f'--eval {name}: {kind} knows {", ".join(known)}')
    model = type_name(cfg.model)
    if 'segm' in names and model in BOXES_ALONE:
        raise UsageError(f'--eval segm: {model} finds no masks')


def write_maps(cfg: Config, folder: str) -> None:
    """Let the metric of a segmentor write its label maps."""
    metrics = [
        evaluator
        for evaluator in evaluators_of(cfg, 'test')
        if type_name(evaluator).endswith('Metric')
    ]
    if not metrics:
        raise UsageError('--out: no metric of test_evaluator writes maps')
    metrics[0]['output_dir'] = folder


def check_names(dataset, scope: str, args: argparse.Namespace) -> None:
    """Find images of one name, whose files would overwrite each other."""
    label_maps = scope == 'mmseg' and args.out
    pictures = scope != 'mmseg' and args.show_dir
    if not (label_maps or pictures):
        return
    known: dict[str, str] = {}
    for i in range(len(dataset)):
        path = Path(dataset.get_data_info(i)['img_path'])
        name = path.stem if label_maps else path.name
        other = known.setdefault(name, str(path))
        if other == str(path):
            continue
        if label_maps:
            raise UsageError(
                f'--out: {other} and {path} would both be written to '
                f'{name}.png; give images names of their own'
            )
        print_log(
            f'--show-dir: {other} and {path} have one name, as others may: '
            'the picture of the last is kept',
            logger='current',
            level=logging.WARNING,
        )
        return


def draw_results(cfg: Config, scope: str, args: argparse.Namespace) -> None:
    """Turn the scope's visualization hook on."""
    hook = cfg.default_hooks.get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need '
            'default_hooks.visualization in the config'
        )
    hook.update(show=args.show, wait_time=args.wait_time)
    if scope == 'mmpretrain':
        hook.update(enable=True, interval=1, out_dir=args.show_dir)
    else:
        hook.draw = True
    if scope == 'mmdet' and args.show_dir:
        hook.test_out_dir = args.show_dir
    if scope == 'mmseg' and args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def use_tta(cfg: Config, scope: str) -> None:
    """Wrap the model for test-time augmentation: the config's, or flips."""
    default_models = dict(
        mmdet=dict(
            type='DetTTAModel',
            tta_cfg=dict(
                nms=dict(type='nms', iou_threshold=0.5), max_per_img=100
            ),
        ),
        mmpretrain=dict(type='AverageClsScoreTTA'),
    )
    tta_model = cfg.get('tta_model') or default_models.get(scope)
    if tta_model is None:
        raise UsageError(
            f'--tta: the config has no tta_model, and {scope} '
            'has no default one'
        )
    if cfg.model.get('roi_head', {}).get('mask_head'):
        raise UsageError(
            '--tta: mmdet merges boxes of augmented images, but not masks'
        )
    for dataset in leaves(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.get('tta_pipeline') or flip_pipeline(
            dataset.pipeline, scope
        )
    cfg.model = ConfigDict(**tta_model, module=cfg.model)


def flip_pipeline(pipeline: list[dict], scope: str) -> list[dict]:
    """The test pipeline, on each image and on its mirror image."""
    *pipeline, pack = pipeline
    # The truth that predictions are compared with must not be flipped.
    truth = [step for step in pipeline if step['type'] == 'LoadAnnotations']
    pipeline = [step for step in pipeline if step not in truth]
    pack = dict(pack)
    if scope == 'mmdet':
        pack['meta_keys'] = (
            'img_id',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
    flips = [dict(type='RandomFlip', prob=p) for p in (0.0, 1.0)]
    steps = [flips, *([step] for step in truth), [pack]]
    return [*pipeline, dict(type='TestTimeAug', transforms=steps)]


def dump_metric(scope: str, file: str) -> DumpResults:
    """The metric that writes predictions instead of judging them."""
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        return DumpDetResults(out_file_path=file)
    return DumpResults(out_file_path=file)


if __name__ == '__main__':
    run_tool(main)
