"""A classifier as a user makes it: crops, training, testing, a detector."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from mmmamba.backbones import MobileMamba
from mmmamba.checkpoint import CheckpointError, load_from_local

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = f"""
_base_ = '{ROOT}/configs/demo/mobilemamba_t2_cells.py'
classes = ['circle', 'square', 'triangle']
data = dict(data_root='crops', classes=classes)
model = dict(backbone=dict(arch=dict(
    _delete_=True, channels=(16, 24, 32), depths=(1, 1, 1))))
train_dataloader = dict(batch_size=8, num_workers=0, dataset=data)
val_dataloader = dict(num_workers=0, dataset=data)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=2)
custom_hooks = _base_.custom_hooks + [
    dict(type='EMAHook', momentum=0.1, update_buffers=True)]
randomness = dict(seed=0)
"""
SIZE = ['--img-size', '64', '--crop-ratio', '1']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Crops of drawn shapes, and a config for them."""
    folder = tmp_path_factory.mktemp('classification')

    def run(script, *args):
        script = ROOT / 'tools/dataset_tools' / script
        command = [sys.executable, script, *map(str, args)]
        subprocess.run(command, check=True, cwd=folder, capture_output=True)

    run(
        'make_shapes.py',
        'shapes',
        *['--train', '8', '--val', '8', '--size', '160'],
    )
    for split in ('train', 'val'):
        annotations = f'shapes/annotations/instances_{split}.json'
        run('crop_boxes.py', annotations, f'shapes/{split}', f'crops/{split}')
    (folder / 'config.py').write_text(CONFIG)
    return folder


@pytest.fixture
def run(folder, run_tool, monkeypatch, capfd):
    """Run a tool there; returns its exit code and what it printed."""
    monkeypatch.chdir(folder)

    def run(*args):
        code = run_tool(*args)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture
def checkpoint(folder, run):
    """Train, once for all tests."""
    file = folder / 'work_dirs/config/epoch_2.pth'
    if not file.is_file():
        code, output = run('train.py', 'config.py', *SIZE)
        assert code == 0, output
        assert 'accuracy/top1' in output
    return file


def accuracy(output: str) -> float:
    return float(re.findall(r'accuracy/top1: ([\d.]+)', output)[-1])


def test_evaluation_at_any_size_and_folded(run, checkpoint, folder):
    command = ['test.py', 'config.py', checkpoint]
    found = {}
    for name, options in dict(
        plain=SIZE,
        folded=[*SIZE, '--fuse-conv-bn'],
        flipped=[*SIZE, '--tta'],
        drawn=[*SIZE, '--show-dir', 'drawn'],
        larger=['--img-size', '96', '--out', 'larger.pkl'],
    ).items():
        code, output = run(*command, *options)
        assert code == 0, output
        found[name] = accuracy(output)
    assert found['plain'] == found['folded']
    assert (folder / 'larger.pkl').is_file()
    images = list((folder / 'crops/val').glob('*/*'))
    assert len(list((folder / 'drawn').rglob('*.png'))) == len(images)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--img-size', '20'], 'an image size of 20 px is less than 64'),
        (['--crop-ratio', '2'], 'a crop ratio of 2.0 is not within'),
        (['--tta', '--show-dir', 'x'], 'leave --show and --show-dir out'),
    ],
)
def test_wrong_sizes(run, checkpoint, options, message):
    code, output = run('test.py', 'config.py', checkpoint, *options)
    assert code == 1
    assert message in output


def test_tools_of_mmpretrain(run, checkpoint, folder):
    """As docs/analysis.md has them for a classifier."""
    code, output = run(
        *('test.py', 'config.py', checkpoint, *SIZE, '--out', 'all.pkl')
    )
    assert code == 0, output
    for name, *options in (
        ('analyze_results', 'all.pkl', '--out-dir', 'worst', '--topk', 1),
        ('confusion_matrix', 'all.pkl', '--show-path', 'confusion.png'),
    ):
        tool = f'analysis_tools/{name}.py'
        code, output = run(tool, 'config.py', *options)
        assert code == 0, output
    assert len(list((folder / 'worst/fail').rglob('*.png'))) <= 1
    assert (folder / 'confusion.png').is_file()


@pytest.mark.parametrize('options', [[], ['--fuse-conv-bn']])
def test_image_demo(run, checkpoint, folder, monkeypatch, options):
    """The class that the inferencer of mmpretrain finds."""
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    drawn = []
    draw = UniversalVisualizer.visualize_cls

    def note(self, image, found, classes, **options):
        drawn.append((found, classes))
        return draw(self, image, found, classes, **options)

    monkeypatch.setattr(UniversalVisualizer, 'visualize_cls', note)
    images = sorted((folder / 'crops/val/circle').iterdir())[:2]
    inferencer = ImageClassificationInferencer(
        str(folder / 'config.py'), str(checkpoint)
    )
    found = inferencer([str(image) for image in images])
    for image, expected in zip(images, found):
        rest = ['config.py', checkpoint, '--out-dir', 'demo', *options]
        code, output = run('image_demo.py', image, *rest)
        assert code == 0, output
        before = cv2.imread(str(image))
        after = cv2.imread(str(folder / 'demo' / image.name))
        assert after.shape == before.shape and (after != before).any()
        sample, classes = drawn.pop()
        assert classes[int(sample.pred_label)] == expected['pred_class']
        score = float(sample.pred_score.max())
        assert score == pytest.approx(expected['pred_score'], abs=1e-5)


@torch.no_grad()
def test_the_backbone_goes_into_a_detector(run, checkpoint, folder):
    """The moving average, published: the same features, the arch known."""
    code, output = run(
        'model_converters/publish_model.py', checkpoint, 'published.pth'
    )
    assert code == 0, output
    (file,) = folder.glob('published-*.pth')
    meta = load_from_local(file)['meta']
    assert meta['weights'] == 'ema'
    assert meta['resolution'] == 64
    assert tuple(meta['arch']['channels']) == (16, 24, 32)

    backbone = dict(
        type='MobileMamba',
        arch=dict(channels=(16, 24, 32), depths=(1, 1, 1)),
        init_cfg=dict(type='Pretrained', checkpoint=str(file)),
    )
    init_default_scope('mmdet')
    detector = MODELS.build(
        dict(
            type='RetinaNet',
            backbone=backbone,
            neck=dict(
                type='MobileMambaFPN',
                in_channels=[16, 24, 32],
                out_channels=8,
                num_outs=5,
            ),
            bbox_head=dict(
                type='RetinaHead',
                num_classes=1,
                in_channels=8,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    ratios=[1.0],
                    scales=[4],
                    strides=[8, 16, 32, 64, 128],
                ),
            ),
        )
    )
    detector.init_weights()
    ema = {
        n.removeprefix('backbone.'): t
        for n, t in load_from_local(checkpoint)['state_dict'].items()
        if n.startswith('backbone.')
    }
    twin = MobileMamba(backbone['arch']).eval()
    twin.load_state_dict(ema)
    image = torch.randn(1, 3, 96, 80)  # not the size of the pretraining
    for a, b in zip(detector.eval().backbone(image), twin(image)):
        assert torch.equal(a, b)


def test_another_arch_is_refused_with_both_names(tmp_path):
    torch.save(
        dict(meta=dict(arch='t4'), state_dict=MobileMamba('t4').state_dict()),
        tmp_path / 't4.pth',
    )
    cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 't4.pth'))
    model = MobileMamba('s6', init_cfg=cfg)
    with pytest.raises(CheckpointError, match='arch s6.*arch t4'):
        model.init_weights()


def test_b1_and_b4_are_one_arch(tmp_path):
    weights = MobileMamba('b4').state_dict()
    file = tmp_path / 'b4.pth'
    torch.save(dict(meta=dict(arch='b4'), state_dict=weights), file)
    cfg = dict(type='Pretrained', checkpoint=str(file))
    model = MobileMamba('b1', drop_path_rate=0.2, init_cfg=cfg)
    model.init_weights()
    assert torch.equal(
        model.state_dict()['stem.0.conv.weight'], weights['stem.0.conv.weight']
    )


def test_the_checkpoint_of_another_model_is_not_tested(run, checkpoint):
    """mmengine would warn, and test with a random second head."""
    code, output = run(
        'test.py',
        'config.py',
        checkpoint,
        *SIZE,
        '--cfg-options',
        'model.head.distillation=True',
    )
    assert code == 1
    assert re.search(r'missing \(head\.head_dist\.bn\.weight', output)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            'model.type=DistilledClassifier model.teacher_ckpt=missing.pth',
            "the teacher's checkpoint missing.pth does not exist",
        ),
        ('model.type=DistilledClassifier', 'weights would be random'),
        ('load_from=missing.pth', 'there is no checkpoint missing.pth'),
        ('train_cfg.max_epochs=1', 'param_scheduler.1.begin=1'),
        ('model.head.num_classes=4', 'num_classes is 4'),
        ('train_dataloader.dataset.data_root=none', 'none'),
        (
            'train_dataloader.dataset.classes=[square,circle,triangle]',
            'numbered in their names',
        ),
        (
            'train_dataloader.dataset.classes=[circle,square] '
            'model.head.num_classes=2',
            '3 folders',
        ),
        ('train_dataloader.dataset.data_prefix=train/circle', 'no folders'),
    ],
)
def test_said_before_training(run, option, message):
    code, output = run(
        'train.py', 'config.py', *SIZE, '--cfg-options', *option.split()
    )
    assert code == 1
    assert message in output
    assert 'Epoch(train)' not in output


def test_a_teacher_of_other_numbers_is_refused(run, checkpoint, folder):
    held = torch.load(checkpoint, weights_only=False)
    meta = held['meta']['dataset_meta']
    meta['classes'] = meta['classes'][::-1]
    torch.save(held, folder / 'teacher.pth')
    options = (
        'model.type=DistilledClassifier model.teacher_ckpt=teacher.pth '
        'model.teacher_config.type=ImageClassifier'
    )
    code, output = run(
        'train.py', 'config.py', *SIZE, '--cfg-options', *options.split()
    )
    assert code == 1
    said = "the teacher teacher.pth was trained with the class 'triangle' as"
    assert said in output
