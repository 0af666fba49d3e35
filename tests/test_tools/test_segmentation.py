"""A segmentor as a user runs it, on a few drawn shapes in ADE20K's layout."""

import copy
import os
import re
import runpy
import signal
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope
from PIL import Image

from mmmamba.utils.cli import UsageError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = f"""
_base_ = '{ROOT}/configs/demo/fpn_mobilemamba_t2_camvid.py'
classes = ('background', 'circle', 'square', 'triangle')
palette = [[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
data = dict(data_root='data/ade', metainfo=dict(
    classes=classes, palette=palette))
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(
        _delete_=True, channels=(32, 48, 64), depths=(1, 1, 1))),
    neck=dict(out_channels=16),
    decode_head=dict(
        in_channels=[16, 16, 16], channels=16, num_classes=len(classes)))
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (128, 128)
train_pipeline[3].crop_size = (64, 64)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (128, 128)
train_dataloader = dict(
    batch_size=2, dataset=dict(pipeline=train_pipeline, **data))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(interval=1000))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Eight training and three validation images, and a config for them."""
    folder = tmp_path_factory.mktemp('segmentation')
    script = ROOT / 'tools/dataset_tools/make_shapes.py'
    options = ['--train', '8', '--val', '3', '--size', '128', '--ade']
    command = [sys.executable, script, folder / 'data', *options]
    subprocess.run(command, check=True, capture_output=True)
    (folder / 'config.py').write_text(CONFIG)
    return folder


def start(folder, name, *args):
    return subprocess.Popen(
        [sys.executable, str(ROOT / 'tools' / name), *map(str, args)],
        cwd=folder,
        env={
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'CUDA_VISIBLE_DEVICES': '',
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope='module')
def checkpoint(folder):
    """Train, interrupt in the midst, resume to the end."""
    train = ['train.py', 'config.py', '--work-dir', 'work', '--cfg-options']
    # Which means nothing to a single machine, and is no error.
    train.append('default_hooks.heartbeat.limit=300')
    endless = start(folder, *train, 'train_cfg.max_iters=100000')
    for line in endless.stdout:
        if re.search(r'Iter\(train\) +\[ *3/', line):
            endless.send_signal(signal.SIGINT)
            break
    output, _ = endless.communicate(timeout=100)
    assert endless.returncode == 130, output
    (saved,) = (folder / 'work').glob('iter_*.pth')
    done = int(saved.stem.split('_')[1])
    assert done >= 3
    meta = torch.load(saved, weights_only=False)['meta']
    assert meta['iter'] == done

    # As if the directory were on another machine, or in a container.
    (folder / 'work').rename(folder / 'moved')
    (folder / 'moved/last_checkpoint').write_text(f'/workspace/{saved.name}')
    train[train.index('work')] = 'moved'
    last = done + 2
    output = finish(
        start(folder, *train, f'train_cfg.max_iters={last}', '--resume')
    )
    assert re.search(f'Resume from .*moved/{saved.name}', output)
    trained = re.findall(r'Iter\(train\) +\[ *(\d+)/', output)
    assert [int(i) for i in trained] == [done + 1, done + 2]
    return folder / f'moved/iter_{last}.pth'


def metrics(output: str) -> list[float]:
    found = re.search(
        r'aAcc: ([\d.]+) +mIoU: ([\d.]+) +mAcc: ([\d.]+)', output
    )
    return [float(number) for number in found.groups()]


def test_metrics_folded_norms_and_dumped_maps(
    folder, checkpoint, run_tool, capfd, monkeypatch
):
    monkeypatch.chdir(folder)

    def test(*options) -> list[float]:
        test = ['test.py', 'config.py', checkpoint, '--work-dir', 'work']
        assert run_tool(*test, *options) == 0
        return metrics(''.join(capfd.readouterr()))

    plain = test('--out', 'maps')
    assert plain == test('--fuse-conv-bn')
    assert test('--deploy-dtype', 'int8') == pytest.approx(plain, abs=2)

    # The printed figures are those of the dumped maps.
    intersection, union, truth_area = np.zeros((3, 4))
    for file in sorted((folder / 'maps').iterdir()):
        found = np.asarray(Image.open(file))
        truth = np.asarray(
            Image.open(folder / 'data/ade/annotations/validation' / file.name)
        )
        for label in range(1, 5):  # 0 is "ignore" in the files
            both = (found == label) & (truth == label)
            either = (found == label) | (truth == label)
            intersection[label - 1] += both.sum()
            union[label - 1] += either.sum()
            truth_area[label - 1] += (truth == label).sum()
    expected = [
        100 * intersection.sum() / truth_area.sum(),
        100 * (intersection / union).mean(),
        100 * (intersection / truth_area).mean(),
    ]
    assert plain == pytest.approx(expected, abs=0.006)

    # mmseg's own tool reads them, with our classes.
    confusion = ['analysis_tools/confusion_matrix.py', 'config.py', 'maps']
    assert run_tool(*confusion, 'drawn') == 0
    assert (folder / 'drawn/confusion_matrix.png').is_file()


class Images(list):
    """What of a data set is asked for the names of its images."""

    get_data_info = list.__getitem__


def test_metrics_and_names_that_fail_after_a_test(
    folder, checkpoint, run_tool, capfd, monkeypatch
):
    monkeypatch.chdir(folder)
    command = ['test.py', 'config.py', checkpoint, '--eval', 'miou']
    assert run_tool(*command) == 1
    said = '--eval miou: IoUMetric knows mIoU, mDice, mFscore'
    assert said in capfd.readouterr().err

    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    paths = [dict(img_path=f'{part}/{i}.jpg') for part in 'ab' for i in '01']
    images = Images(paths)
    check, options = tool['check_names'], Namespace(out=None, show_dir='x')
    logged = []
    monkeypatch.setitem(
        check.__globals__, 'print_log', lambda text, **_: logged.append(text)
    )
    check(images, 'mmseg', options)  # which numbers its pictures
    assert not logged
    check(images, 'mmdet', options)
    assert 'a/0.jpg and b/0.jpg have one name' in logged[0]
    options = Namespace(out='maps', show_dir=None)
    check(images, 'mmdet', options)  # one .pkl file
    with pytest.raises(UsageError, match='a/0.jpg and b/0.jpg would both'):
        check(images, 'mmseg', options)
    check(Images(paths[:2]), 'mmseg', options)


def test_tta_of_joined_data_sets(folder):
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    cfg = Config.fromfile(folder / 'config.py')
    dataset = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[dataset, copy.deepcopy(dataset)]
    )
    tool['use_tta'](cfg, 'mmseg')
    for part in cfg.test_dataloader.dataset.datasets:
        assert part.pipeline[-1].type == 'TestTimeAug'


def test_tta_leaves_the_truth_unflipped(folder):
    flip_pipeline = runpy.run_path(ROOT / 'tools/test.py')['flip_pipeline']
    pipeline = Config.fromfile(folder / 'config.py').test_pipeline
    init_default_scope('mmseg')
    views = Compose(flip_pipeline(pipeline, 'mmseg'))(
        dict(
            img_path=str(folder / 'data/ade/images/validation/000000.jpg'),
            seg_map_path=str(
                folder / 'data/ade/annotations/validation/000000.png'
            ),
            reduce_zero_label=True,
            seg_fields=[],
        )
    )
    first, second = views['inputs']
    assert torch.equal(first, second.flip(-1))
    first, second = (x.gt_sem_seg.data for x in views['data_samples'])
    assert torch.equal(first, second)


def test_image_demo(folder, checkpoint, run_tool, monkeypatch):
    images = folder / 'data/ade/images/validation'
    video = folder / 'video.avi'
    writer = cv2.VideoWriter(
        str(video), cv2.VideoWriter_fourcc(*'MJPG'), 5, (128, 128)
    )
    for file in sorted(images.iterdir()):
        writer.write(cv2.imread(str(file)))
    writer.release()
    rest = ['config.py', checkpoint, '--out-dir', 'drawn']
    monkeypatch.chdir(folder)
    assert run_tool('image_demo.py', images, *rest) == 0
    assert (folder / 'drawn/000000.jpg').stat().st_size > 0
    assert run_tool('image_demo.py', video, *rest, '--fuse-conv-bn') == 0
    reader = cv2.VideoCapture(str(folder / 'drawn/video.mp4'))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_image_demo_keeps_its_input(
    folder, checkpoint, run_tool, capsys, monkeypatch
):
    monkeypatch.chdir(folder)
    images = 'data/ade/images/validation'
    options = ['config.py', checkpoint, '--out-dir', images]
    assert run_tool('image_demo.py', images, *options) == 1
    assert 'would overwrite the input' in capsys.readouterr().err


@pytest.mark.parametrize(
    'source, message',
    [
        ('none.jpg', 'there is no image, folder or video none.jpg'),
        ('empty', 'the folder empty holds no images'),
        ('broken.avi', 'broken.avi is not a video that OpenCV reads'),
    ],
)
def test_image_demo_refuses(
    folder, checkpoint, run_tool, capsys, monkeypatch, source, message
):
    monkeypatch.chdir(folder)
    (folder / 'empty').mkdir(exist_ok=True)
    (folder / 'broken.avi').write_bytes(b'no video')
    assert run_tool('image_demo.py', source, 'config.py', checkpoint) == 1
    assert message in capsys.readouterr().err
