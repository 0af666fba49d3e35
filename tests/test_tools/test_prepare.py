"""Tests of tools/dataset_tools/prepare.py."""

import glob
import json
import shlex
import sys
from pathlib import Path

import annotation_formats as formats
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.runner import Runner
from PIL import Image
from pycocotools import mask as rle

from mmmamba.utils.starter_config import BOX_METHODS, MAP_METHODS

TOOL = 'dataset_tools/prepare.py'


@pytest.fixture
def prepare(run_tool, tmp_path, monkeypatch):
    """Run the tool from SOURCE ``in`` to DST ``out``; its exit code."""
    monkeypatch.chdir(tmp_path)

    def prepare(*options, source='in', out='out'):
        return run_tool(TOOL, source, out, '--no-check', *options)

    return prepare


@pytest.fixture
def refusal(prepare, capsys):
    """Run the tool, which must refuse and leave nothing; its one line."""

    def refusal(*options, **folders):
        before = sorted(Path().rglob('*'))
        capsys.readouterr()
        assert prepare(*options, **folders) == 1
        assert sorted(Path().rglob('*')) == before
        message = capsys.readouterr().err
        assert message.startswith('prepare.py: error: ')
        return message

    return refusal


@pytest.fixture
def boxes(tmp_path):
    """Ten images with polygons; two of them for validation."""
    images = formats.pictures()
    formats.write_coco(images, tmp_path / 'in')
    return images


@pytest.fixture
def maps(tmp_path):
    """Ten images with label maps of three classes; their labels."""
    labels = np.zeros((64, 96), np.uint8)
    labels[:20], labels[:, :30] = 1, 2
    for i in range(10):
        for folder, pixels in (
            ('images', np.full((64, 96, 3), 20 * i, np.uint8)),
            ('masks', labels),
        ):
            path = tmp_path / 'in' / folder / f'{i}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return labels


def content(split, root='out'):
    return json.loads(
        Path(root, f'annotations/instances_{split}.json').read_text()
    )


def boxes_of(content):
    names = {c['id']: c['name'] for c in content['categories']}
    images = {i['id']: i['file_name'] for i in content['images']}
    return sorted(
        (images[a['image_id']], names[a['category_id']], *a['bbox'])
        for a in content['annotations']
    )


def test_coco_layout(prepare, boxes, capsys):
    assert prepare() == 0
    for split in ('train', 'val'):
        written = content(split)
        original = json.loads(
            Path(f'in/annotations/instances_{split}.json').read_text()
        )
        assert boxes_of(written) == boxes_of(original)
        assert [c['name'] for c in written['categories']] == [
            'big dog',
            'cat',
        ]
        for entries in written.values():
            assert [e['id'] for e in entries] == list(
                range(1, len(entries) + 1)
            )
        for image in written['images']:
            path = Path('out', split, image['file_name'])
            assert path.is_symlink()
            with Image.open(path) as file:
                assert file.size == (image['width'], image['height'])
        for annotation in written['annotations']:
            height, width = 80, 100
            outline = rle.frPyObjects(
                annotation['segmentation'], height, width
            )
            # By pixels, the area of a small outline is rough.
            assert annotation['area'] == pytest.approx(
                float(rle.area(outline)[0]), abs=25
            )
    output = capsys.readouterr().out
    assert 'Nothing was left out' in output
    for tool in ('train.py', 'test.py', 'image_demo.py'):
        assert f'{tool} ' in output


@pytest.mark.parametrize('through', ['yolo', 'voc'])
def test_there_and_back(prepare, tmp_path, through):
    """COCO to YOLO or VOC, by other code, and back: to 0.01 px."""
    images = formats.pictures(outlines=False)
    getattr(formats, f'write_{through}')(images, tmp_path / 'in')
    assert prepare() == 0
    found = boxes_of(content('train')) + boxes_of(content('val'))
    wanted = sorted(
        (i['name'], label, *box)
        for i in images
        for label, box, _ in i['objects']
    )
    assert len(found) == len(wanted)
    for own, reference in zip(sorted(found), wanted):
        assert own[:2] == reference[:2]
        assert own[2:] == pytest.approx(reference[2:], abs=0.01)


def test_copies(prepare, boxes):
    assert prepare('--copy') == 0
    for split, number in dict(train=8, val=2).items():
        files = list(Path('out', split).iterdir())
        assert len(files) == number
        for file in files:
            assert not file.is_symlink()
            assert (
                file.read_bytes() == Path('in', split, file.name).read_bytes()
            )


def test_links_that_do_not_work(prepare, boxes, monkeypatch):
    """As on Windows without the right to link."""

    def fail(*args, **kwargs):
        raise OSError('no links here')

    monkeypatch.setattr('os.symlink', fail)
    monkeypatch.setattr('os.link', fail)
    assert prepare() == 0
    assert not any(p.is_symlink() for p in Path('out').rglob('*'))


def test_smaller_images(prepare, tmp_path, capsys):
    images = formats.pictures(size=(200, 100))
    formats.write_coco(images, tmp_path / 'in')
    photo = tmp_path / 'in/train' / images[2]['name']
    with Image.open(photo) as picture:  # as phones write it: two in one file
        picture.save(photo, 'MPO', save_all=True, append_images=[picture])
    mask = np.zeros((100, 200), np.uint8, order='F')
    mask[20:60, 40:120] = 1
    file = tmp_path / 'in/annotations/instances_train.json'
    original = json.loads(file.read_text())
    encoded = rle.encode(mask)
    original['annotations'][0].update(
        bbox=[40, 20, 80, 40],
        segmentation=dict(size=[100, 200], counts=encoded['counts'].decode()),
    )
    file.write_text(json.dumps(original))
    assert prepare('--max-size', 100) == 0
    written = content('train')
    qualities = set()
    for image in written['images']:
        assert (image['width'], image['height']) == (100, 50)
        with Image.open(Path('out/train', image['file_name'])) as small:
            assert small.size == (100, 50)
            qualities.add(str(small.quantization))
    assert len(qualities) == 1
    for own, other in zip(written['annotations'], original['annotations']):
        assert own['bbox'] == pytest.approx(np.array(other['bbox']) / 2)
        if isinstance(own['segmentation'], list):
            np.testing.assert_allclose(
                own['segmentation'], np.array(other['segmentation']) / 2
            )
    small = rle.decode(written['annotations'][0]['segmentation'])
    assert (small == mask[::2, ::2]).all()
    assert written['annotations'][0]['area'] == 800
    assert 's less an epoch' in capsys.readouterr().out


def test_what_smaller_images_lose_is_told(prepare, boxes, capsys):
    """Boxes below a pixel, which training would leave out, and masks."""
    file = Path('in/annotations/instances_train.json')
    original = json.loads(file.read_text())
    mask = np.zeros((80, 100), np.uint8, order='F')
    mask[20, 11:50] = 1
    encoded = rle.encode(mask)
    runs = dict(size=[80, 100], counts=encoded['counts'].decode())
    first, second, *_ = original['annotations']
    first.update(bbox=[10, 20, 40, 1.2], segmentation=[])
    second.update(bbox=[10, 20, 40, 2], segmentation=runs)
    file.write_text(json.dumps(original))
    assert prepare('--max-size', 64) == 0
    output = capsys.readouterr().out
    for reason in ('box below 1 px by', 'mask of no pixel by'):
        (line,) = (line for line in output.splitlines() if reason in line)
        assert ' 1 ' in line
    written = content('train')
    number = len(original['annotations'])
    assert len(written['annotations']) == number - 1
    assert min(min(a['bbox'][2:]) for a in written['annotations']) >= 1


def test_classes_that_smaller_label_maps_lose(prepare, maps, capsys):
    maps[1, 1] = 3  # a class of one pixel
    Image.fromarray(maps).save('in/masks/0.png')
    assert prepare('--max-size', 64) == 0
    assert 'label map of which --max-size' in capsys.readouterr().out


def test_label_maps(prepare, maps):
    assert prepare('--classes', 'sky', 'road', 'car') == 0
    images = sorted(Path('out/images').rglob('*.png'))
    assert len(images) == 10
    for image in images:
        path = Path('out/annotations', image.parent.name, image.name)
        with Image.open(path) as file:
            assert file.mode == 'L'
            np.testing.assert_array_equal(np.asarray(file), maps + 1)
    assert len(list(Path('out/images/validation').iterdir())) == 2


def test_smaller_label_maps(prepare, maps):
    assert prepare('--max-size', 64) == 0
    for path in Path('out/annotations').rglob('*.png'):
        with Image.open(path) as file:
            assert file.size == (64, 43)
            assert set(np.unique(file)) == {1, 2, 3}


def test_label_maps_of_equal_names(prepare, maps):
    """a.jpg and a.png must not share a.png's map."""
    Path('in/masks/x').mkdir()
    Path('in/images/x').mkdir()
    with Image.open('in/images/0.png') as image:
        image.transpose(Image.Transpose.ROTATE_180).save('in/images/x/0.jpg')
    Image.fromarray(2 - maps).save('in/masks/x/0.png')
    assert prepare() == 0
    assert len(list(Path('out/images').rglob('*.*'))) == 11
    assert len(list(Path('out/annotations').rglob('*.*'))) == 11


def test_equal_names(prepare, tmp_path):
    """Images of the same name in two folders both stay."""
    images = formats.pictures(6)
    for folder in ('x', 'y'):
        formats.write_labelme(images, tmp_path / 'in' / folder)
    for i, path in enumerate(sorted(Path('in/x').glob('*.jpg'))):
        Image.new('RGB', (100, 80), (i, 0, 0)).save(path)
    assert prepare('--val-fraction', 0.5) == 0
    names = [
        p.name for s in ('train', 'val') for p in Path('out', s).iterdir()
    ]
    assert len(names) == len(set(names)) == 12


@pytest.mark.skipif(sys.platform == 'win32', reason='no such names')
@pytest.mark.parametrize('name', ['b\\..\\x.jpg', 'a:b.jpg', 'x\n.jpg'])
def test_names_that_lead_elsewhere_on_other_systems(prepare, tmp_path, name):
    images = formats.pictures(4)
    images[0]['name'] = name
    formats.write_yolo_flat(images, tmp_path / 'in')
    assert prepare('--copy') == 0
    names = {
        p.name for s in ('train', 'val') for p in Path('out', s).iterdir()
    }
    assert len(names) == 4
    for own in names:
        assert not set(own) & set('\\/:\n')


def test_what_is_left_out_is_told(prepare, boxes, capsys):
    file = Path('in/annotations/instances_train.json')
    broken = json.loads(file.read_text())
    broken['annotations'][3]['bbox'] = [1, 1, 0, 0]
    file.write_text(json.dumps(broken))
    assert prepare() == 0
    output = capsys.readouterr().out
    assert 'tiny box' in output
    assert 'Nothing was left out' not in output


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--val-fraction', 1], '--val-fraction 1.0 must be between'),
        (['--max-size', 10], '--max-size 10 must be at least 64'),
        (['--image-size', 10], '--image-size 10 must be at least 96'),
        (['--method', 'fpn'], 'fpn does not learn from boxes'),
        (['--method', 'ssdlite', '--image-size', 640], 'anchors of ssdlite'),
        (['--format', 'voc'], 'no usable annotations in the format voc'),
    ],
)
def test_refusals(refusal, boxes, options, message):
    assert message in refusal(*options)


def test_mask_rcnn_without_polygons(refusal, tmp_path):
    formats.write_voc(formats.pictures(), tmp_path / 'in')
    message = refusal('--method', 'mask_rcnn')
    assert 'all objects have a box alone' in message


def test_method_for_label_maps(refusal, maps):
    assert 'atss does not learn from label maps' in refusal('--method', 'atss')


def test_refused_folders(refusal, boxes):
    Path('out').mkdir()
    Path('out/mine.txt').write_text('')
    assert 'not empty' in refusal()
    assert 'no config.py' in refusal('--overwrite')
    Path('out/config.py').write_text('model = dict()')
    assert 'out/config.py' in refusal('--overwrite')
    assert 'inside SOURCE' in refusal(out='in/out')
    assert 'is inside DST' in refusal(out='in', source='in/train')
    assert 'is a file' in refusal(out='out/mine.txt')
    assert 'is no folder' in refusal(source='none', out='new')


def test_overwrite(prepare, refusal, boxes):
    """What the tool made is replaced, and nothing else."""
    assert prepare() == 0
    assert '--overwrite replaces it' in refusal()
    assert prepare('--overwrite', '--arch', 't4') == 0
    assert Config.fromfile('out/config.py').model.backbone.arch == 't4'
    assert sorted(p.name for p in Path().iterdir()) == ['in', 'out']
    Path('linked').symlink_to('out')
    assert 'it is a link' in refusal('--overwrite', out='linked')
    Path('out/notes.txt').write_text('mine')
    assert '(notes.txt)' in refusal('--overwrite')


def test_overwrite_keeps_the_images_of_the_source(prepare, refusal, boxes):
    assert prepare('--copy') == 0
    Path('links/annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        Path('links', split).symlink_to(Path('out', split).resolve())
        file = f'annotations/instances_{split}.json'
        Path('links', file).write_bytes(Path('out', file).read_bytes())
    message = refusal('--overwrite', source='links')
    assert 'has images of SOURCE' in message


def test_nothing_is_left_of_a_failure(prepare, boxes, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('shutil.copyfile', fail)
    assert prepare('--copy') == 1
    assert sorted(p.name for p in Path().iterdir()) == ['in']


def test_config_is_data(prepare, tmp_path):
    """Class names cannot become code or templates of the config."""
    images = formats.pictures(8)
    names = ["'), __import__('os').mkdir('made'), ('", '{{ fileDirname }}']
    for image in images:
        image['objects'] = [
            (names[i], *o[1:]) for i, o in enumerate(image['objects'])
        ]
    formats.write_label_studio(images, tmp_path / 'in')
    assert prepare() == 0
    cfg = Config.fromfile('out/config.py')
    assert cfg.metainfo.classes == tuple(sorted(names))
    assert not Path('made').exists()


def test_config_moves_with_its_data(prepare, boxes):
    assert prepare() == 0
    Path('elsewhere').mkdir()
    Path('out').rename('elsewhere/data')
    cfg = Config.fromfile('elsewhere/data/config.py')
    assert Path(cfg.train_dataloader.dataset.data_root).resolve() == (
        Path('elsewhere/data').resolve()
    )


@pytest.mark.slow
@pytest.mark.parametrize('method', BOX_METHODS)
def test_config_of_boxes(prepare, boxes, method):
    assert prepare('--method', method, '--arch', 'b1') == 0
    cfg = Config.fromfile('out/config.py')
    assert cfg.model.backbone.arch == 'b1'
    heads = cfg.model.get('roi_head') or dict(bbox_head=cfg.model.bbox_head)
    assert heads['bbox_head'].num_classes == 2
    assert cfg.train_dataloader.batch_size == 2  # of eight images
    for loader, split in (
        (cfg.train_dataloader, 'train'),
        (cfg.val_dataloader, 'val'),
    ):
        dataset = loader.dataset
        dataset = dataset.get('dataset', dataset)
        assert dataset.ann_file == f'annotations/instances_{split}.json'
        assert dataset.data_prefix.img == f'{split}/'
        scales = [s.scale for s in dataset.pipeline if 'scale' in s]
        size = (320, 320) if method == 'ssdlite' else (320, 256)
        assert scales == [size]
    assert cfg.train_cfg.max_epochs == 500  # of four iterations
    assert cfg.param_scheduler[0].end <= 200
    assert cfg.val_evaluator.classwise
    assert cfg.test_dataloader == cfg.val_dataloader
    assert cfg.work_dir == './work_dirs/out'


def test_test_split_is_tested(prepare, tmp_path):
    formats.write_roboflow(formats.pictures(), tmp_path / 'in')
    assert prepare() == 0
    cfg = Config.fromfile('out/config.py')
    assert cfg.test_evaluator.ann_file.endswith('instances_test.json')
    dataset = cfg.test_dataloader.dataset
    assert dataset.ann_file == 'annotations/instances_test.json'
    assert dataset.data_prefix.img == 'test/'
    assert cfg.val_dataloader.dataset.data_prefix.img == 'val/'


@pytest.mark.slow
@pytest.mark.parametrize('method', MAP_METHODS)
def test_config_of_label_maps(prepare, maps, method):
    assert prepare('--method', method) == 0
    cfg = Config.fromfile('out/config.py')
    assert cfg.model.decode_head.num_classes == 3
    assert cfg.model.get('auxiliary_head', {}).get('num_classes', 3) == 3
    dataset = cfg.train_dataloader.dataset
    steps = {step.type: step for step in dataset.pipeline}
    assert steps['RandomResize'].scale == (2048, 96)
    assert steps['RandomCrop'].crop_size == (64, 64)
    assert cfg.model.data_preprocessor.size == (64, 64)
    assert len(dataset.metainfo.palette) == 3
    assert cfg.train_cfg.max_iters == 2000
    assert cfg.default_hooks.checkpoint.save_best == 'mIoU'


@pytest.mark.slow
@pytest.mark.parametrize('method', [*BOX_METHODS, *MAP_METHODS])
def test_config_builds(prepare, request, method):
    """The model builds, and learns from a batch of the data."""
    request.getfixturevalue('boxes' if method in BOX_METHODS else 'maps')
    assert prepare('--method', method) == 0
    cfg = Config.fromfile('out/config.py')
    init_default_scope(cfg.default_scope)
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 2
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = model.data_preprocessor(next(iter(loader)), training=True)
    losses = model(**data, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()


@pytest.mark.slow
def test_prepare_train_predict(prepare, boxes, capsys, run_tool):
    """The three commands that are printed, shortened."""
    assert prepare() == 0
    commands = capsys.readouterr().out.splitlines()[-3:]
    short = (
        ' --cfg-options train_cfg.max_epochs=1 train_cfg.val_interval=1'
        ' param_scheduler.0.end=1'
        ' model.test_cfg.score_thr=0'  # or nothing is found so early
    )
    for command, more in zip(commands, (short, '', ' --device cpu')):
        python, tool, *rest = shlex.split(command + more)
        assert python == 'python'
        rest = [glob.glob(x) if '*' in x else [x] for x in rest]
        assert run_tool(Path(tool).resolve(), *sum(rest, [])) == 0
    (best,) = Path('work_dirs/out').glob('best_*.pth')
    assert len(list(Path('outputs').rglob('*.jpg'))) == 2
