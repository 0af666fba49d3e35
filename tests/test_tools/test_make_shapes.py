"""Tests of tools/dataset_tools/make_shapes.py."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

SCRIPT = Path(__file__).parents[2] / 'tools/dataset_tools/make_shapes.py'
OPTIONS = {'train': 3, 'val': 2, 'size': (128, 160), 'seed': 7}


@pytest.fixture(scope='module')
def script():
    """Import the script by its path."""
    spec = importlib.util.spec_from_file_location('make_shapes', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def shapes_dir(script, tmp_path_factory):
    """One data set in both layouts, for the tests that only read."""
    out_dir = tmp_path_factory.mktemp('data') / 'shapes'
    script.make_shapes(out_dir, **OPTIONS, ade=True)
    return out_dir


def run_script(*args) -> subprocess.CompletedProcess:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )


def read_files(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def load(out_dir: Path, split: str) -> COCO:
    """Load a split's annotations."""
    return COCO(out_dir / f'annotations/instances_{split}.json')


@pytest.mark.parametrize('split, count', [('train', 3), ('val', 2)])
def test_coco_layout(shapes_dir, split, count):
    coco = load(shapes_dir, split)
    assert [(c['id'], c['name']) for c in coco.dataset['categories']] == [
        (1, 'circle'),
        (2, 'square'),
        (3, 'triangle'),
    ]
    assert len(coco.imgs) == count == len(list((shapes_dir / split).iterdir()))
    for image in coco.imgs.values():
        pixels = cv2.imread(str(shapes_dir / split / image['file_name']))
        assert pixels.shape == (128, 160, 3)
        assert (image['height'], image['width']) == (128, 160)
        assert 1 <= len(coco.getAnnIds(imgIds=image['id'])) <= 8
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_annotations_fit_their_polygons(shapes_dir, split):
    for annotation in load(shapes_dir, split).anns.values():
        assert annotation['iscrowd'] == 0
        (polygon,) = annotation['segmentation']
        points = np.array(polygon).reshape(-1, 2)
        assert len(points) == {1: 36, 2: 4, 3: 3}[annotation['category_id']]
        assert (points >= 0).all() and (points <= (160, 128)).all()
        low, high = points.min(0), points.max(0)
        np.testing.assert_allclose(
            annotation['bbox'], [*low, *(high - low)], atol=1e-6
        )
        area = cv2.contourArea(points.astype(np.float32))
        assert annotation['area'] == pytest.approx(area, abs=0.1)


@pytest.mark.parametrize(
    'split, ade_split', [('train', 'training'), ('val', 'validation')]
)
def test_ade_labels_agree_with_polygons(shapes_dir, split, ade_split):
    coco = load(shapes_dir, split)
    ade_dir = shapes_dir / 'ade'
    for image in coco.imgs.values():
        name = Path(image['file_name'])
        copy = ade_dir / 'images' / ade_split / name
        assert copy.read_bytes() == (shapes_dir / split / name).read_bytes()

        label_path = ade_dir / 'annotations' / ade_split / f'{name.stem}.png'
        labels = cv2.imread(str(label_path), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint8 and labels.shape == (128, 160)
        expected = np.ones_like(labels)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image['id']))
        masks = [coco.annToMask(ann) for ann in annotations]
        assert sum(masks).max() == 1  # no overlap
        for annotation, mask in zip(annotations, masks, strict=True):
            expected[mask > 0] = annotation['category_id'] + 1
        assert set(np.unique(labels)) == set(np.unique(expected))
        for label in np.unique(expected):
            ours, theirs = labels == label, expected == label
            assert (ours & theirs).sum() / (ours | theirs).sum() > 0.95


def test_picture_shows_what_is_annotated(script):
    rng = np.random.default_rng(0)
    image = np.full((64, 64, 3), 128, np.uint8)
    for shape in script.place_shapes(rng, 64, 64, max_shapes=3):
        before = image.copy()
        script.paint_shape(image, shape, rng)
        labels = script.ade_labels([shape], 64, 64)
        changed = (image != before).any(-1)
        assert changed[labels > 1].mean() > 0.95
        # Anti-aliasing reaches one pixel beyond the outline, no further.
        near = cv2.dilate(labels, np.ones((3, 3), np.uint8)) > 1
        assert not changed[~near].any()
        contrast = image[labels > 1].mean(0) - before[labels > 1].mean(0)
        assert np.linalg.norm(contrast) > script.MIN_CONTRAST / 2


def test_same_seed_same_files(script, shapes_dir, tmp_path):
    script.make_shapes(tmp_path, **OPTIONS, ade=True)
    assert read_files(tmp_path) == read_files(shapes_dir)


def test_seed_and_split_change_the_picture(script, shapes_dir, tmp_path):
    script.make_shapes(tmp_path, **{**OPTIONS, 'seed': 8})
    images = [
        (folder / split / '000000.jpg').read_bytes()
        for folder in (shapes_dir, tmp_path)
        for split in ('train', 'val')
    ]
    assert len(set(images)) == 4


def test_more_images_extend_the_set(script, shapes_dir, tmp_path):
    script.make_shapes(tmp_path, **{**OPTIONS, 'train': 1, 'val': 0})
    more, fewer = (load(d, 'train') for d in (shapes_dir, tmp_path))
    assert fewer.imgs[0] == more.imgs[0]
    assert fewer.imgToAnns[0] == more.imgToAnns[0]
    name = Path('train/000000.jpg')
    assert (tmp_path / name).read_bytes() == (shapes_dir / name).read_bytes()
    assert load(tmp_path, 'val').imgs == {}
    assert not (tmp_path / 'ade').exists()


def test_max_shapes(script, tmp_path):
    script.make_shapes(tmp_path, 4, 0, (64, 64), max_shapes=1)
    anns = load(tmp_path, 'train').imgToAnns
    assert [len(anns[i]) for i in range(4)] == [1] * 4


def test_same_data_set_is_left(script, tmp_path, capsys):
    script.make_shapes(tmp_path, 1, 1, (64, 64))
    (tmp_path / 'train/000000.jpg').write_bytes(b'untouched')
    capsys.readouterr()
    script.make_shapes(tmp_path, 1, 1, (64, 64))
    assert 'already holds this data set' in capsys.readouterr().out
    assert (tmp_path / 'train/000000.jpg').read_bytes() == b'untouched'


def test_other_options_are_refused(script, tmp_path):
    script.make_shapes(tmp_path, 2, 1, (64, 64), ade=True)
    before = read_files(tmp_path)
    with pytest.raises(FileExistsError, match=r'seed is 0, not 1.*overwrite'):
        script.make_shapes(tmp_path, 1, 1, (64, 64), seed=1, ade=True)
    assert read_files(tmp_path) == before


def test_overwrite_removes_only_generated_files(script, tmp_path):
    old, fresh = tmp_path / 'old', tmp_path / 'fresh'
    script.make_shapes(old, 2, 1, (64, 64), ade=True)
    (old / 'train/mine.jpg').write_bytes(b'mine')
    script.make_shapes(old, 1, 1, (64, 64), seed=1, overwrite=True)
    script.make_shapes(fresh, 1, 1, (64, 64), seed=1)
    files = read_files(old)
    assert files.pop('train/mine.jpg') == b'mine'
    assert files == read_files(fresh)


@pytest.mark.parametrize('name', ['notes.txt', 'shapes.json'])
def test_other_files_are_refused(script, tmp_path, name):
    (tmp_path / name).write_text('not ours')
    with pytest.raises(FileExistsError, match='files, but no shapes'):
        script.make_shapes(tmp_path, 1, 1, (64, 64))
    assert read_files(tmp_path) == {name: b'not ours'}


def test_interrupted_run_is_not_complete(script, tmp_path, monkeypatch):
    script.make_shapes(tmp_path, 1, 1, (64, 64))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def interrupt(*args):
            raise KeyboardInterrupt

        patch.setattr(script, 'write_image', interrupt)
        script.make_shapes(tmp_path, 1, 1, (64, 64), overwrite=True)
    with pytest.raises(FileExistsError):
        script.make_shapes(tmp_path, 1, 1, (64, 64))


def test_copies_where_links_fail(script, shapes_dir, tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError

    monkeypatch.setattr(script.os, 'link', refuse)
    script.make_shapes(tmp_path, **OPTIONS, ade=True)
    assert read_files(tmp_path) == read_files(shapes_dir)


@pytest.mark.parametrize(
    'options, message',
    [
        ({'train': -1}, 'train must be a number of images from 0'),
        ({'val': 1_000_001}, 'val must be a number of images from 0'),
        ({'size': (63, 64)}, 'at least 64 pixels, got 63 64'),
        ({'size': (64, 64, 3)}, 'a height and a width'),
        ({'seed': -1}, 'seed must not be negative'),
        ({'max_shapes': 0}, 'max_shapes must be at least 1'),
    ],
)
def test_bad_options(script, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        script.make_shapes(tmp_path / 'out', **options)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_command_line(tmp_path):
    result = run_script('--help')
    assert result.returncode == 0
    assert '--overwrite' in result.stdout

    out_dir = tmp_path / 'out'
    result = run_script(
        out_dir, '--train', 1, '--val', 0, '--size', 64, 96, '--max-shapes', 2
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((out_dir / 'shapes.json').read_text())
    assert record['size'] == [64, 96] and record['max_shapes'] == 2


@pytest.mark.slow
def test_command_line_errors(tmp_path):
    a_file = tmp_path / 'file'
    a_file.touch()
    for args, message in (
        ((tmp_path / 'out', '--size', 32), 'at least 64 pixels, got 32 32'),
        ((a_file,), 'is a file, not a folder'),
        ((tmp_path,), '--overwrite'),
    ):
        result = run_script(*args)
        assert result.returncode != 0
        assert message in result.stderr
        assert 'Traceback' not in result.stderr
