"""Tests of tools/dataset_tools/check_dataset.py."""

import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip('mmdet')
pytestmark = pytest.mark.slow
CONFIG = 'configs/demo/retinanet_mobilemamba_t2_bccd.py'
CLASSES = ('RBC', 'WBC', 'Platelets')


def write_data(root, box=(5, 5, 20, 20)):
    """Two images in each split, with an object of each class."""
    for split in ('train', 'val'):
        (root / split).mkdir(parents=True)
        (root / 'annotations').mkdir(exist_ok=True)
        content = dict(
            images=[
                dict(id=i, file_name=f'{split}{i}.jpg', width=64, height=48)
                for i in range(2)
            ],
            categories=[
                dict(id=i, name=name) for i, name in enumerate(CLASSES)
            ],
            annotations=[
                dict(id=3 * i + c, image_id=i, category_id=c, bbox=box)
                for i in range(2)
                for c in range(3)
            ],
        )
        for i in range(2):
            image = Image.new('RGB', (64, 48), (20 * i, 0, 0))
            image.save(root / split / f'{split}{i}.jpg')
        path = root / f'annotations/instances_{split}.json'
        path.write_text(json.dumps(content))
    return root


def check(run_tool, root, *options) -> int:
    """Run the tool on the data set; returns its exit status."""
    sources = [
        f'{split}_dataloader.dataset.data_root={root}/'
        for split in ('train', 'val', 'test')
    ]
    truth = [
        f'{split}_evaluator.ann_file={root}/annotations/instances_val.json'
        for split in ('val', 'test')
    ]
    return run_tool(
        'dataset_tools/check_dataset.py',
        *(CONFIG, '--json', root / 'report.json', '--work-dir', root / 'run'),
        *(*options, '--cfg-options', *sources, *truth),
    )


def test_good_data(run_tool, tmp_path, capsys):
    root = write_data(tmp_path)
    assert check(run_tool, root) == 0
    report = json.loads((root / 'report.json').read_text())
    assert report['splits']['train'] == dict(
        images=2,
        images_used=2,
        images_without_objects=0,
        annotations_used=6,
        classes=dict.fromkeys(CLASSES, 2),
    )
    # What was made right is said: the ids from 0, the missing areas.
    kinds = {(f['severity'], f['kind']) for f in report['findings']}
    assert kinds == {('info', 'annotation_id'), ('info', 'area')}
    printed = capsys.readouterr().out
    assert 'Platelets' in printed
    assert 'images used' in printed


def test_errors_are_the_exit_status(run_tool, tmp_path, capsys):
    root = write_data(tmp_path, box=(20, 20, -5, -5))
    assert check(run_tool, root, '--sample', '1') == 1
    findings = json.loads((root / 'report.json').read_text())['findings']
    assert {f['split'] for f in findings} == {'train', 'val'}
    assert findings[0]['severity'] == 'error'
    assert findings[0]['kind'] == 'negative_box'
    assert findings[0]['count'] == 6
    assert 'negative width or height' in capsys.readouterr().out


def test_an_image_that_decoded_is_not_decoded_again(run_tool, tmp_path):
    root = write_data(tmp_path)
    check(run_tool, root)
    memory = root / 'run/decoded_images.json'
    known = json.loads(memory.read_text())
    assert len(known) == 4
    broken = root / 'train/train0.jpg'
    content = broken.read_bytes()
    # Of the same size, but changed: it is opened again.
    broken.write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert check(run_tool, root) == 1
    memory.write_text('damaged')
    broken.write_bytes(content)
    assert check(run_tool, root) == 0


def test_pictures(run_tool, tmp_path):
    root = write_data(tmp_path)
    assert check(run_tool, root, '--show-dir', root / 'pictures') == 0
    drawn = sorted(path.name for path in (root / 'pictures').iterdir())
    assert drawn == ['histograms.png', 'train.png', 'val.png']
    pixels = np.asarray(Image.open(root / 'pictures/val.png').convert('RGB'))
    # The images are black and dark red; their boxes are drawn in colours.
    colours = {tuple(c) for c in pixels.reshape(-1, 3)[::7]}
    assert any(blue > red for red, _, blue in colours)
