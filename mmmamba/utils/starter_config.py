"""Write a config for a data set that ``prepare.py`` made."""

import colorsys
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmmamba.backbones.arch import PRETRAIN_SIZES
from mmmamba.datasets.formats import Annotated

#: The demo config that each method starts from; boxes, then label maps.
BOX_METHODS = {
    'atss': 'atss_mobilemamba_t2_bccd',
    'retinanet': 'retinanet_mobilemamba_t2_bccd',
    'ssdlite': 'ssdlite_mobilemamba_t2_bccd',
    'mask_rcnn': 'mask_rcnn_mobilemamba_mini_shapes',
}
MAP_METHODS = {
    'fpn': 'fpn_mobilemamba_t2_camvid',
    'deeplabv3': 'deeplabv3_mobilemamba_t2_camvid',
    'pspnet': 'pspnet_mobilemamba_t2_camvid',
}
ARCHS = tuple(PRETRAIN_SIZES)
#: How a config begins, and how prepare.py knows what it wrote.
HEADER = '# Written by tools/dataset_tools/prepare.py'
# The repository's, or those that were installed.
_CONFIGS = (Path(__file__).parents[1] / '.mim/configs').resolve()
_ITERATIONS = 2000  # enough for some hundred images, an hour on two cores
_EPOCHS = 12  # or so often through a larger data set
_BASE_BATCH = 8  # the learning rates of the demo configs are for it


@dataclass
class Plan:
    """How long to train, and in which steps.

    Attributes:
        images (int): Training images.
        batch_size (int): At most 8 and, if possible, a quarter of them.
        epochs (int): Times through them.
        iterations (int): Steps in all.
        warmup (int): Iterations of growing learning rate.
        interval (int): Epochs (boxes) or iterations (label maps) from one
            validation to the next.
    """

    images: int
    batch_size: int
    epochs: int
    iterations: int
    warmup: int
    interval: int


def make_plan(found: Annotated) -> Plan:
    """Choose batch size and schedule for the number of images.

    Args:
        found (Annotated): The data set, split.

    Returns:
        Plan: About 2,000 iterations, or 12 epochs where that is more.
    """
    images = sum(s.split == 'train' for s in found.samples)
    # Normalization layers behind a global pooling need two images.
    batch_size = min(_BASE_BATCH, max(images // 4, min(images, 2)))
    steps = -(-images // batch_size)
    epochs = max(_EPOCHS, round(_ITERATIONS / steps))
    iterations = epochs * steps
    return Plan(
        images,
        batch_size,
        epochs,
        iterations,
        warmup=min(50, iterations // 10),
        interval=(iterations if found.read_map else epochs) // 10 or 1,
    )


def choose_size(
    found: Annotated, method: str, pixels: int | None
) -> tuple[int, int]:
    """The size that a config resizes images to.

    Args:
        found (Annotated): The data set.
        method (str): Of ``BOX_METHODS`` or ``MAP_METHODS``.
        pixels (int, optional): The longer side, for label maps the shorter
            one. Defaults to None: 320, and the images' own, at most 360.

    Returns:
        tuple[int, int]: For boxes width and height, in the usual shape of
        the images, or a square if they have several. For label maps the most
        of the longer side, and the shorter one.
    """
    samples = found.samples
    if found.read_map:
        sides = sorted(min(s.width, s.height) for s in samples)
        pixels = pixels or max(96, min(360, sides[len(sides) // 2]))
        return max(2048, 4 * pixels), pixels
    pixels = pixels or 320
    if method == 'ssdlite':
        return pixels, pixels
    ratios = sorted(s.width / s.height for s in samples)
    usual = ratios[len(ratios) // 2]
    if sum(0.8 < r / usual < 1.25 for r in ratios) < 0.9 * len(ratios):
        return pixels, pixels
    width, height = min(1.0, usual) * pixels, min(1.0, 1 / usual) * pixels
    # Multiples of the pyramid's stride are not padded.
    return _multiple(width), _multiple(height)


def _multiple(side: float) -> int:
    return max(64, round(side / 32) * 32)


def _size_comment(found: Annotated, size: tuple[int, int]) -> str:
    if found.read_map:
        return f'the shorter side becomes {size[1]} px'
    return 'width and height of what the network sees'


def write_config(
    path: Path,
    found: Annotated,
    method: str,
    arch: str,
    image_size: tuple[int, int],
    work_dir: str,
) -> Plan:
    """Write a config that inherits from one of ``configs/demo``.

    Args:
        path (Path): The file, in the folder of the data set.
        found (Annotated): The data set, written.
        method (str): Of ``BOX_METHODS`` or ``MAP_METHODS``.
        arch (str): Of ``ARCHS``.
        image_size (tuple[int, int]): Of :func:`choose_size`.
        work_dir (str): Where checkpoints go.

    Returns:
        Plan: The schedule in it.
    """
    plan = make_plan(found)
    name = (MAP_METHODS if found.read_map else BOX_METHODS)[method]
    base = _CONFIGS / 'demo' / f'{name}.py'
    place = str(base)
    if path.resolve().is_relative_to(_CONFIGS.parent):
        place = os.path.relpath(base, path.resolve().parent)
    cfg = Config.fromfile(base)
    if found.read_map:
        text = _segmentor(found, arch, image_size[1], plan, cfg)
    else:
        text = _detector(found, method, arch, plan, cfg)
    counts = Counter(sample.split for sample in found.samples)
    amounts = ', '.join(f'{counts[s]} {s}' for s in _splits(found))
    text = f"""\
{HEADER}, a start to edit (docs/prepare.md).
# Images: {amounts}.
_base_ = {_quote(Path(place).as_posix())}
work_dir = {_quote(work_dir)}

data_root = "{{{{ fileDirname }}}}/"  # the folder of this file
metainfo = {_metainfo(found)}
num_classes = {len(found.classes)}
image_size = {image_size}  # {_size_comment(found, image_size)}
batch_size = {plan.batch_size}{_batch_comment(plan)}
{text}"""
    path.write_text(text, 'utf-8')
    return plan


def _splits(found: Annotated) -> list[str]:
    return [
        split
        for split in ('train', 'val', 'test')
        if any(s.split == split for s in found.samples)
    ]


def _quote(text: str) -> str:
    """Python's literal; mmengine replaces double braces in a config's text."""
    return repr(text).replace('{{', '{\\x7b')


def _metainfo(found: Annotated) -> str:
    lines = ''.join(f'        {_quote(name)},\n' for name in found.classes)
    text = f'    classes=(\n{lines}    ),\n'
    if found.read_map:
        palette = found.palette or _palette(len(found.classes))
        lines = ''.join(f'        {color},\n' for color in palette)
        text += f'    palette=[\n{lines}    ],\n'
    return f'dict(\n{text})'


def _palette(number: int) -> list[list[int]]:
    """Colors to draw so many classes in, all around the circle of hues."""
    hues = [colorsys.hsv_to_rgb(i / number, 0.8, 0.9) for i in range(number)]
    return [[round(255 * value) for value in hue] for hue in hues]


def _batch_comment(plan: Plan) -> str:
    if plan.batch_size == _BASE_BATCH:
        return ''
    return f'  # about a quarter of {plan.images} images'


def _optimizer(plan: Plan, base: Config) -> str:
    rate = base.optim_wrapper.optimizer.lr * plan.batch_size / _BASE_BATCH
    return f"""\
optim_wrapper = dict(optimizer=dict(lr={rate:.6g}))  # for this batch size
auto_scale_lr = dict(base_batch_size=batch_size)"""


def _detector(
    found: Annotated, method: str, arch: str, plan: Plan, base: Config
) -> str:
    heads = {
        'mask_rcnn': """\
    roi_head=dict(
        bbox_head=dict(num_classes=num_classes),
        mask_head=dict(num_classes=num_classes),
    ),"""
    }.get(method, '    bbox_head=dict(num_classes=num_classes),')
    dataset = """dict(
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/instances_{split}.json',
        data_prefix=dict(img='{split}/'),
        pipeline={pipeline},
    )"""
    train = dataset.format(split='train', pipeline='train_pipeline')
    where = 'dataset'
    if 'dataset' in base.train_dataloader.dataset:  # in a RepeatDataset
        where = 'dataset.dataset'
        train = f'dict(dataset={train})'
    more = ''
    if not base.train_dataloader.get('batch_sampler'):
        more = """
    drop_last=True,  # normalization layers cannot learn from a single image"""
    test = """
test_dataloader = val_dataloader
test_evaluator = val_evaluator"""
    if 'test' in _splits(found):
        part = dataset.format(split='test', pipeline='test_pipeline')
        test = f"""
test_dataloader = dict(
    dataset={part},
)
test_evaluator = dict(
    ann_file=data_root + 'annotations/instances_test.json', classwise=True
)"""
    best = 'segm' if method == 'mask_rcnn' else 'bbox'
    return f"""\
max_epochs = {plan.epochs}  # {plan.iterations} iterations
warmup_iters = {plan.warmup}
val_interval = {plan.interval}  # epochs

model = dict(
    backbone=dict(arch={arch!r}),
{heads}
)

train_pipeline = _base_.train_dataloader.{where}.pipeline
test_pipeline = _base_.val_dataloader.dataset.pipeline
for step in train_pipeline + test_pipeline:
    if 'scale' in step:
        step.scale = image_size
    if step.type == 'RandomFlip':  # most pictures have a right way up
        step.update(prob=0.5, direction='horizontal')
del step

train_dataloader = dict(
    batch_size=batch_size,{more}
    dataset={train},
)
val_dataloader = dict(
    dataset={dataset.format(split='val', pipeline='test_pipeline')},
)
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val.json', classwise=True
){test}

train_cfg = dict(max_epochs=max_epochs, val_interval=val_interval)
{_optimizer(plan, base)}
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=False,
        begin=0,
        end=warmup_iters,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    checkpoint=dict(interval=val_interval, save_best='coco/{best}_mAP')
)
"""


def _segmentor(
    found: Annotated, arch: str, size: int, plan: Plan, base: Config
) -> str:
    # Images are resized to three quarters of their size or more.
    crop = size * 3 // 4 // 32 * 32
    heads = '    decode_head=dict(num_classes=num_classes),'
    if 'auxiliary_head' in base.model:
        heads += '\n    auxiliary_head=dict(num_classes=num_classes),'
    dataset = """dict(
        data_root=data_root,
        metainfo=metainfo,
        data_prefix=dict(
            img_path='images/{split}', seg_map_path='annotations/{split}'
        ),
        pipeline={pipeline},
    )"""
    test = """test_dataloader = val_dataloader"""
    if 'test' in _splits(found):
        part = dataset.format(split='test', pipeline='test_pipeline')
        test = f'test_dataloader = dict(\n    dataset={part},\n)'
    train = dataset.format(split='training', pipeline='train_pipeline')
    val = dataset.format(split='validation', pipeline='test_pipeline')
    return f"""\
crop_size = ({crop}, {crop})  # what training sees of it
max_iters = {plan.iterations}  # {plan.epochs} epochs
warmup_iters = {plan.warmup}
val_interval = {plan.interval}  # iterations

model = dict(
    data_preprocessor=dict(size=crop_size),
    backbone=dict(arch={arch!r}),
{heads}
)

train_pipeline = _base_.train_dataloader.dataset.pipeline
test_pipeline = _base_.val_dataloader.dataset.pipeline
for step in train_pipeline + test_pipeline:
    if 'scale' in step:
        step.scale = image_size
    if 'crop_size' in step:
        step.crop_size = crop_size
del step

# In the label maps 0 is ignored and 1 is the first class.
train_dataloader = dict(
    batch_size=batch_size,
    dataset={train},
)
val_dataloader = dict(
    dataset={val},
)
{test}

train_cfg = dict(max_iters=max_iters, val_interval=val_interval)
{_optimizer(plan, base)}
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        by_epoch=False,
        begin=0,
        end=warmup_iters,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        by_epoch=False,
    ),
]
default_hooks = dict(
    checkpoint=dict(interval=val_interval, save_best='mIoU')
)
"""
