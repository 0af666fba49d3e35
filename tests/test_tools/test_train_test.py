"""Train, interrupt, resume, test: as a user does, on a few drawn shapes."""

import json
import os
import pickle
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import find_latest_checkpoint
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/demo/atss_mobilemamba_mini_shapes.py'
OPTIONS = [
    'model.backbone.arch.channels=[32,48,64]',
    'model.neck.in_channels=[32,48,64]',
    'model.neck.out_channels=16',
    'model.bbox_head.in_channels=16',
    'model.bbox_head.feat_channels=16',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'train_cfg.max_epochs=1',
    'default_hooks.logger.interval=1',
]


@pytest.fixture(scope='module')
def data_root(tmp_path_factory):
    """Eight training and three validation images."""
    root = tmp_path_factory.mktemp('data')
    script = ROOT / 'tools/dataset_tools/make_shapes.py'
    options = ['--train', '8', '--val', '3', '--size', '128']
    subprocess.run([sys.executable, script, root / 'shapes', *options])
    return root


@pytest.fixture
def folder(data_root, tmp_path, monkeypatch):
    """A working directory with the data where the config expects it."""
    (tmp_path / 'data').symlink_to(data_root)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tool(name, *args, **kwargs):
    """The command that runs a tool in a process of its own."""
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, args)]
    environment = {
        **os.environ,
        'CUDA_VISIBLE_DEVICES': '',
    }
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Tests that run in the background (`nohup make test &`) ignore Ctrl-C
        # and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **kwargs,
    )


def finish(process) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def train_log(work_dir: Path) -> list[dict]:
    """The logged iterations of the newest run."""
    run = max(p for p in work_dir.iterdir() if p.name[0].isdigit())
    lines = (run / 'vis_data/scalars.json').read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_interrupt_resume_and_test(folder, run_tool, capfd):
    work_dir = folder / 'work'
    arguments = [CONFIG, '--work-dir', work_dir, '--cfg-options', *OPTIONS]

    # Interrupted somewhere in the third of fifty epochs, or soon after.
    endless = tool('train.py', *arguments, 'train_cfg.max_epochs=50')
    for line in endless.stdout:
        if re.search(r'Epoch\(train\) +\[ *3\]\[1/4\]', line):
            endless.send_signal(signal.SIGINT)
            break
    endless.communicate(timeout=60)
    assert endless.returncode != 0
    done = int(Path(find_latest_checkpoint(work_dir)).stem.split('_')[1])
    assert done >= 2

    time.sleep(1)  # run folders are named by the second
    more = [f'train_cfg.max_epochs={done + 1}', '--resume']
    output = finish(tool('train.py', *arguments, *more))
    assert f'Resume from {work_dir}/epoch_{done}.pth' in output
    resumed = [x['iter'] for x in train_log(work_dir) if 'loss' in x]
    assert resumed == [4 * done + i for i in (1, 2, 3, 4)]
    checkpoint = work_dir / f'epoch_{done + 1}.pth'
    meta = torch.load(checkpoint, weights_only=False)['meta']
    assert (meta['epoch'], meta['iter']) == (done + 1, 4 * (done + 1))

    time.sleep(1)
    out = folder / 'predictions.pkl'
    pictures = folder / 'pictures'
    options = ['--out', out, '--show-dir', pictures, '--max-size', 100]
    process = tool(
        'test.py',
        CONFIG,
        checkpoint,
        *options,
        '--work-dir',
        work_dir,
        '--cfg-options',
        *OPTIONS,
        # So that a hardly trained detector finds something at all.
        'model.test_cfg.score_thr=0.0',
        'model.test_cfg.max_per_img=1000',
        'test_evaluator.metric_items=[AR@1000]',
        f'test_evaluator.outfile_prefix={folder}/dump',
    )
    finish(process)
    sizes = [Image.open(file).size for file in pictures.glob('*')]
    assert sizes == 3 * [(200, 100)]  # of 128 px; truth and prediction
    assert len(pickle.loads(out.read_bytes())) == 3

    # The printed figures are pycocotools' own on the dumped JSON.
    run = max(p for p in work_dir.iterdir() if p.name[0].isdigit())
    metrics = json.loads((run / f'{run.name}.json').read_text())
    truth = COCO('data/shapes/annotations/instances_val.json')
    evaluation = COCOeval(truth, truth.loadRes('dump.bbox.json'), 'bbox')
    evaluation.params.maxDets = [100, 300, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval['recall'][..., 0, -1]
    average = recall[recall > -1].mean()
    assert average > 0
    assert metrics['coco/bbox_AR@1000'] == pytest.approx(average, abs=6e-4)

    # Labels that would mean other classes are refused.
    order = 'test_dataloader.dataset.metainfo.classes=[square,circle,triangle]'
    arguments = [CONFIG, checkpoint, '--cfg-options', *OPTIONS, order]
    assert run_tool('test.py', *arguments) == 1
    said = "trained with the class 'circle' as label 0"
    assert said in capfd.readouterr().err


def launch(*arguments, gpus=1, rank=0, nodes=1, port=0) -> subprocess.Popen:
    """Start `dist_train.sh CONFIG GPUS`, as one of several nodes."""
    return subprocess.Popen(
        ['bash', str(ROOT / 'tools/dist_train.sh'), str(arguments[0])]
        + [str(gpus), '--work-dir', 'work', *map(str, arguments[1:])],
        env={
            **os.environ,
            'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}',
            'CUDA_VISIBLE_DEVICES': '',
            'PORT': str(29500 + os.getpid() % 1000 + port),
            'NNODES': str(nodes),
            'NODE_RANK': str(rank),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_two_cpu_processes(folder):
    """With all that changes a step; SyncBN becomes BN without a GPU."""
    config = folder / 'all_at_once.py'
    config.write_text(
        f"""
_base_ = '{CONFIG}'
optim_wrapper = dict(accumulative_counts=2)
custom_hooks = [
    dict(type='EMAHook', momentum=0.5),
    # Never satisfied: it ends the training at the second AP that it sees.
    dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', rule='greater',
         min_delta=2.0, patience=1),
]
"""
    )
    options = [
        *OPTIONS,
        'model.backbone.norm_cfg.type=SyncBN',
        'train_cfg.max_epochs=20',
        'train_cfg.val_interval=1',
        'default_hooks.heartbeat=None',
    ]
    process = launch(config, '--amp', '--cfg-options', *options, gpus=2)
    output = finish(process)
    # Eight images, two processes of two images each: two iterations.
    log = [x for x in train_log(folder / 'work') if 'loss' in x]
    iterations = [x['iter'] for x in log]
    assert iterations == list(range(1, len(log) + 1))
    assert len(log) < 40
    assert 'SyncBN becomes BN' in output
    assert 'AMP is off' in output
    assert 'the monitored metric did not improve' in output
    last = torch.load(find_latest_checkpoint('work'), weights_only=False)
    weights, averages = last['state_dict'], last['ema_state_dict']
    name = 'bbox_head.atss_cls.weight'
    # One step in two iterations, the mean of which is between both.
    assert not torch.equal(weights[name], averages[f'module.{name}'])


def launch_two_nodes(*options) -> list[subprocess.Popen]:
    arguments = [CONFIG, '--cfg-options', *OPTIONS, *options]
    return [launch(*arguments, rank=rank, nodes=2) for rank in (0, 1)]


def await_third_epoch(node: subprocess.Popen) -> None:
    for line in node.stdout:
        if re.search(r'Epoch\(train\) +\[ *3\]\[1/2\]', line):
            return
    pytest.fail('the training has ended')


def test_two_nodes(folder):
    nodes = launch_two_nodes('default_hooks.heartbeat.interval=1')
    for node in nodes:
        assert 'has not been heard of' not in finish(node)


def test_two_nodes_of_which_one_lacks_the_data(folder):
    """Both end at once, and say why."""
    arguments = [CONFIG, '--cfg-options', *OPTIONS]
    lacking = [*arguments, 'load_from=nowhere.pth']
    nodes = [
        launch(*options, rank=rank, nodes=2)
        for rank, options in enumerate([arguments, lacking])
    ]
    said = 'error: rank 1 has ended: load_from: there is no checkpoint nowhere'
    output, _ = nodes[0].communicate(timeout=60)
    assert said in output
    output, _ = nodes[1].communicate(timeout=60)
    assert 'error: load_from: there is no checkpoint nowhere' in output
    assert nodes[0].returncode and nodes[1].returncode


def test_two_nodes_of_which_one_dies(folder):
    """The other ends soon, says why, and is gone on with alone."""
    arguments = [CONFIG, '--cfg-options', *OPTIONS]
    nodes = launch_two_nodes('train_cfg.max_epochs=500')
    await_third_epoch(nodes[0])
    lost = psutil.Process(nodes[1].pid)
    for process in (lost, *lost.children(recursive=True)):
        process.kill()
    output, _ = nodes[0].communicate(timeout=60)
    nodes[1].communicate(timeout=60)
    assert nodes[0].returncode != 0
    said = 'train.py: error: another process of this run has ended'
    assert output.count(said) == 1
    assert '--resume' in output

    done = int(Path(find_latest_checkpoint('work')).stem.split('_')[1])
    assert done >= 2
    more = [f'train_cfg.max_epochs={done + 1}', '--resume']
    output = finish(launch(*arguments, *more, port=1))
    assert f'work/epoch_{done}.pth' in output
    # Eight images, one process of two images: four iterations.
    assert 'An epoch had 2 iterations and has 4 now' in output
    resumed = [x['iter'] for x in train_log(folder / 'work') if 'loss' in x]
    assert resumed == [4 * done + i for i in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ('rank', 'who'),
    [(1, 'the process of rank 1'), (0, 'the machine 127.0.0.1')],
)
def test_two_nodes_of_which_one_falls_silent(folder, rank, who):
    """As without power: no connection is closed. Rank 0 keeps the store."""
    heartbeat = [
        f'default_hooks.heartbeat.{x}' for x in ('limit=5', 'interval=1')
    ]
    nodes = launch_two_nodes(*heartbeat, 'train_cfg.max_epochs=500')
    await_third_epoch(nodes[0])
    silent, other = nodes[rank], nodes[1 - rank]
    processes = [silent, *psutil.Process(silent.pid).children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    output, _ = other.communicate(timeout=60)
    for process in processes:
        process.kill()
    silent.communicate(timeout=60)
    assert other.returncode != 0
    assert f'{who} has not been heard of for 5 seconds' in output
    assert '--resume' in output


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['configs/none.py'], 'there is no config configs/none.py'),
        ([CONFIG, '--resume'], 'nothing to resume in work'),
        ([CONFIG, '--resume', 'x.pth'], 'there is no checkpoint x.pth'),
        ([CONFIG, '--resume', 'weights.pth'], 'weights.pth has weights alone'),
        (
            [
                CONFIG,
                '--cfg-options',
                'model.backbone.init_cfg.type=Pretrained',
                'model.backbone.init_cfg.checkpoint=none.pth',
            ],
            'checkpoint none.pth does not exist',
        ),
        (
            [
                'configs/det/retinanet_mobilemamba_b1.py',
                '--cfg-options',
                'model.backbone.init_cfg.checkpoint=none.pth',
            ],
            'model.backbone.init_cfg=None model.backbone.norm_eval=False',
        ),
        (
            [
                CONFIG,
                '--cfg-options',
                'train_dataloader.dataset.ann_file=none.json',
            ],
            'data/shapes/none.json does not exist',
        ),
        (
            [CONFIG, '--cfg-options']
            + ['default_hooks.checkpoint.save_best=bbox_mAP'],
            'save_best is bbox_mAP, and the metrics of val_evaluator have '
            'names such as coco/bbox_mAP',
        ),
        (
            [CONFIG, '--cfg-options', 'model.bbox_head.num_classes=80'],
            'model.bbox_head.num_classes is 80',
        ),
        (
            [ROOT / 'configs/det/retinanet_mobilemamba_b1.py']
            + ['--cfg-options', 'model.backbone.init_cfg=None'],
            'data/coco/annotations/instances_train2017.json does not exist',
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_train_refuses_early(folder, run_tool, capsys, arguments, message):
    torch.save({'state_dict': {}}, folder / 'weights.pth')
    assert run_tool('train.py', '--work-dir', 'work', *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert 'Traceback' not in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ('iterations', 'warns'), [(499, True), (500, False), (90000, False)]
)
def test_a_warm_up_that_outlasts_the_training(iterations, warns, monkeypatch):
    """As that of COCO does where an epoch has few images."""
    check = runpy.run_path(str(ROOT / 'tools/train.py'))['check_warm_up']
    cfg = Config.fromfile(ROOT / 'configs/det/retinanet_mobilemamba_b1.py')
    logged = []
    monkeypatch.setitem(
        check.__globals__, 'print_log', lambda text, **_: logged.append(text)
    )
    check(cfg, iterations)
    said = 'ends after 500 iterations, and the training after 499'
    assert [said in text for text in logged] == [True] * warns


def test_evaluators_in_a_list_and_types_that_are_classes():
    IoUMetric = pytest.importorskip('mmseg.evaluation').IoUMetric
    tool = runpy.run_path(str(ROOT / 'tools/test.py'))
    metric = dict(type=IoUMetric)
    cfg = Config(dict(model=dict(type='ATSS'), test_evaluator=metric))
    with pytest.raises(tool['UsageError'], match='IoUMetric knows mIoU'):
        tool['check_metrics'](cfg, ['bbox'])
    cfg.test_evaluator = [dict(type='DumpResults'), metric]
    tool['write_maps'](cfg, 'maps')
    assert [e.get('output_dir') for e in cfg.test_evaluator] == [None, 'maps']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none.pth'], 'there is no checkpoint none.pth'),
        (['here.pth', '--out', 'out.txt'], 'must end in .pkl'),
        (['here.pth', '--out', 'a.pkl'], 'a.pkl cannot be written: Is a dir'),
        (['here.pth', '--out', 'here.pth/b.pkl'], 'cannot be written'),
        (['here.pth', '--cfg-options', 'work_dir'], 'work_dir is not KEY=VAL'),
        (['here.pth', '--eval', 'mAP'], '--eval mAP: CustomCocoMetric knows'),
        (['here.pth', '--eval', 'segm'], '--eval segm: ATSS finds no masks'),
    ],
)
def test_test_refuses_early(folder, run_tool, capsys, arguments, message):
    (folder / 'here.pth').write_bytes(b'')
    (folder / 'a.pkl').mkdir()
    assert run_tool('test.py', CONFIG, *arguments) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    'command', [['test.py', CONFIG], ['image_demo.py', 'photo.jpg', CONFIG]]
)
def test_several_checkpoints(run_tool, capsys, command):
    assert run_tool(*command, 'best_1.pth', 'best_2.pth') == 2
    assert 'best_*.pth fits several' in capsys.readouterr().err


def test_checkpoint_in_the_place_of_the_config(folder, run_tool, capsys):
    (folder / 'here.pth').write_bytes(b'')
    assert run_tool('test.py', 'here.pth', CONFIG) == 1
    assert 'here.pth is no config, such as a .py' in capsys.readouterr().err


def test_broken_image_is_named(folder, data_root, run_tool, capfd):
    """A JPEG that is none passes the size check; loading names it."""
    shapes = folder / 'broken'
    subprocess.run(['cp', '-rL', data_root / 'shapes', shapes], check=True)
    (shapes / 'train/000003.jpg').write_text('no image')
    options = [
        *OPTIONS,
        f'train_dataloader.dataset.data_root={shapes}/',
    ]
    arguments = [CONFIG, '--work-dir', 'work', '--cfg-options', *options]
    assert run_tool('train.py', *arguments) == 1
    assert '000003.jpg' in capfd.readouterr().err.splitlines()[-1]
