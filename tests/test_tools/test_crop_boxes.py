"""Tests of tools/dataset_tools/crop_boxes.py."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

TOOL = 'dataset_tools/crop_boxes.py'


def picture(height, width):
    """An image in which every pixel's color says where it is."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], -1).astype(np.uint8)


@pytest.fixture
def content(tmp_path):
    """A data set of two images; returns what its annotation file holds."""
    folder = tmp_path / 'images/sub'
    folder.mkdir(parents=True)
    for name, size in (('a.png', (96, 128)), ('sub/b.png', (64, 80))):
        path = str(tmp_path / 'images' / name)
        assert cv2.imwrite(path, picture(*size))
    boxes = [
        (10, 1, 7, [20, 30, 20, 10]),
        (11, 1, 3, [50, 20, 40, 41]),
        (12, 1, 7, [-5, 60, 30, 30]),
        (13, 2, 7, [10, 10, 20, 20]),
        (14, 2, 3, [30.4, 5.2, 44.1, 50.6]),
        (15, 2, 7, [40, 40, 16, 16]),
        (16, 1, 7, [80, 30, 16, 16]),
    ]
    return dict(
        images=[
            dict(id=1, file_name='a.png', width=128, height=96),
            dict(id=2, file_name='sub/b.png', width=80, height=64),
        ],
        categories=[dict(id=7, name='cat'), dict(id=3, name='big dog')],
        annotations=[
            dict(id=i, image_id=image, category_id=c, bbox=box, iscrowd=0)
            for i, image, c, box in boxes
        ],
    )


@pytest.fixture
def crop(run_tool, content, tmp_path, monkeypatch):
    """Write the annotation file and run the tool; returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def crop(*options, out='out'):
        Path('coco.json').write_text(json.dumps(content))
        return run_tool(TOOL, 'coco.json', 'images', out, *options)

    return crop


@pytest.fixture
def refusal(crop, capsys):
    """Run the tool, which must refuse; returns its one line."""

    def refusal(*options, out='out'):
        capsys.readouterr()
        assert crop(*options, out=out) == 1
        message = capsys.readouterr().err
        assert message.startswith('crop_boxes.py: error: ')
        assert message.count('\n') == 1
        return message

    return refusal


def files(folder='out'):
    """Every file below a folder with its bytes, less the record."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob('*')
        if path.is_file() and path.name != 'crop_boxes.json'
    }


def row(out, name):
    """The numbers of a class in the printed table."""
    (line,) = (x for x in out.splitlines() if x.startswith(f'│ {name} '))
    return [int(cell) for cell in line.split('│')[2:-1]]


def assert_shows(path, rows, columns):
    """Check that a crop shows these rows and columns of its image."""
    found = cv2.imread(str(path)).astype(int)
    expected = picture(200, 200)[np.ix_(rows, columns)].astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 12  # JPEG


def test_layout_and_counts(crop, content, capsys):
    extra = [
        dict(id=20, category_id=7, bbox=[0, 0, 90, 90], iscrowd=1),
        dict(id=21, category_id=7, bbox=[200, 10, 20, 20]),
        dict(id=22, category_id=7, bbox=[10, -30, 20, 30]),
        dict(id=23, category_id=7, bbox=[10, 10, 40, 7]),
        dict(id=24, category_id=3, bbox=[125, 10, 40, 40]),
        dict(id=25, category_id=3, bbox=[10, 10, 0, 0]),
    ]
    content['annotations'] += [dict(e, image_id=1) for e in extra]
    assert crop() == 0
    assert sorted(files()) == [
        'big dog/a_11.jpg',
        'big dog/b_14.jpg',
        'cat/a_10.jpg',
        'cat/a_12.jpg',
        'cat/a_16.jpg',
        'cat/b_13.jpg',
        'cat/b_15.jpg',
    ]
    out = capsys.readouterr().out
    # crowd, too small, over the maximum, written
    assert row(out, 'cat') == [1, 1, 0, 5]
    assert row(out, 'big dog') == [0, 1, 0, 2]
    assert 'warning: 2 boxes of coco.json are outside' in out
    assert 'warning: 1 boxes of coco.json are less than one pixel' in out
    assert 'Wrote 7 crops to out' in out


def test_crops_are_squares_around_the_boxes(crop):
    assert crop('--context', 0.1) == 0
    # 20x10 at (20, 30), 2 px of context: 24x24 around (30, 35)
    assert_shows('out/cat/a_10.jpg', range(23, 47), range(18, 42))
    # Clipped to 25x30 at (0, 60); 36x36, moved inside.
    assert_shows('out/cat/a_12.jpg', range(60, 96), range(0, 36))
    # 50.6 and context are 61 pixels, moved inside.
    assert_shows('out/big dog/b_14.jpg', range(0, 61), range(19, 80))


def test_a_crop_larger_than_its_image_repeats_the_border(crop):
    assert crop('--context', 1.0) == 0
    # 41 px and twice as much context are 123: 128 columns hold it, 96 rows
    # do not; 21 rows are missing above, 6 below.
    rows = np.clip(np.arange(-21, 102), 0, 95)
    assert_shows('out/big dog/a_11.jpg', rows, np.clip(range(5, 128), 5, 127))


def test_max_per_class_is_a_seeded_lot(crop, capsys):
    for out, seed in (('one', 0), ('two', 0)):
        assert crop('--max-per-class', 2, '--seed', seed, out=out) == 0
    assert files('one') == files('two')
    assert row(capsys.readouterr().out.split('Wrote')[0], 'cat')[2:] == [3, 2]
    assert len(files('one')) == 4

    lots = set()
    for seed in range(8):
        options = ('--max-per-class', 2, '--seed', seed, '--overwrite')
        assert crop(*options) == 0
        lots.add(tuple(sorted(files())))
    assert len(lots) > 1

    # The lot of a class does not depend on the other classes.
    assert crop('--max-per-class', 2, '--classes', 'cat', out='cats') == 0
    assert files('cats').items() <= files('one').items()


def test_files_that_training_takes(crop, content):
    """Ids as text or repeated, another system's paths, no sizes."""
    assert crop(out='plain') == 0
    content['annotations'].append(dict(content['annotations'][0], bbox=None))
    for annotation in content['annotations']:
        annotation.update(id=1, image_id=str(annotation['image_id']))
    first, second = content['images']
    first.update(file_name='D:\\images\\A.PNG')
    del first['width'], second['height']
    assert crop() == 0
    assert sorted(files().values()) == sorted(files('plain').values())


def test_a_photo_that_exif_turns(crop, content):
    """Annotated on its stored pixels, as all of this file are."""
    assert crop(out='plain') == 0
    for name in ('a.png', 'sub/b.png'):
        with Image.open(f'images/{name}') as image:
            exif = image.getexif()
            exif[0x0112] = 6
            image.save(f'images/{name}', exif=exif)
    assert crop() == 0
    assert files() == files('plain')


def test_classes_and_empty_folders(crop, content):
    content['categories'].append(dict(id=9, name='bird'))
    assert crop('--classes', 'bird', 'big dog') == 0
    assert sorted(files()) == ['big dog/a_11.jpg', 'big dog/b_14.jpg']
    # mmpretrain numbers the classes by the folders, and so needs them all.
    assert Path('out/bird').is_dir() and not Path('out/cat').exists()


def test_mmpretrain_reads_it(crop):
    datasets = pytest.importorskip('mmpretrain.datasets')
    assert crop() == 0
    data = datasets.CustomDataset('out')
    assert list(data.CLASSES) == ['big dog', 'cat']
    assert sorted(data.get_gt_labels()) == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    'name, folder',
    [
        ('a/b', 'a_b'),
        ('../../up', '__.._up'),
        ('/tmp/x', '_tmp_x'),
        ('..', '_'),
        ('.hidden', '_hidden'),
        ('C:\\x\0\n', 'C__x__'),
        ('', '_'),
        ('naïve [red]', 'naïve [red]'),
    ],
)
def test_class_names_stay_inside(crop, content, tmp_path, name, folder):
    content['categories'][0]['name'] = name
    assert crop(out='deep/er/out') == 0
    assert len(files(Path('deep/er/out', folder))) == 5
    assert len(files('deep')) == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'coco.json',
        'deep',
        'images',
    ]


# ---------------------------------------------------------------------------
# Running again
# ---------------------------------------------------------------------------


def test_overwrite_replaces_only_its_own_files(crop, refusal):
    assert crop() == 0
    before = files()
    assert 'pass --overwrite' in refusal()
    assert files() == before

    Path('out/cat/mine.jpg').write_bytes(b'mine')
    Path('out/notes.txt').write_bytes(b'notes')
    assert crop('--classes', 'cat', '--max-per-class', 1, '--overwrite') == 0
    after = files()
    assert len(after) == 3
    assert after['cat/mine.jpg'] == b'mine' and after['notes.txt'] == b'notes'
    assert not Path('out/big dog').exists()


def test_other_peoples_folders_are_left_alone(refusal):
    Path('out').mkdir()
    Path('out/x').write_text('x')
    for options in ([], ['--overwrite']):
        assert 'choose another folder' in refusal(*options)
    assert files() == {'x': b'x'}
    assert 'is a file' in refusal(out='coco.json')


def test_a_record_cannot_remove_files_elsewhere(crop, refusal):
    assert crop() == 0
    record = json.loads(Path('out/crop_boxes.json').read_text())
    for name in ('../images/a.png', str(Path('images/a.png').resolve())):
        record['files'] = [name]
        Path('out/crop_boxes.json').write_text(json.dumps(record))
        assert 'not below' in refusal('--overwrite')
    Path('out/crop_boxes.json').write_text('{}')
    assert 'is damaged' in refusal('--overwrite')
    assert Path('images/a.png').is_file() and len(files()) == 7


def test_a_failure_leaves_no_part_behind(refusal):
    path = Path('images/sub/b.png')
    path.write_bytes(path.read_bytes()[:-12])  # its head is right
    assert 'images/sub/b.png is damaged or no image' in refusal()
    assert list(Path('out').iterdir()) == []


# ---------------------------------------------------------------------------
# Refusals
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    'options, part',
    [
        (['--context', -0.1], '--context -0.1 must be within'),
        (['--context', 'nan'], '--context nan must be within'),
        (['--min-size', 0], '--min-size 0 must be at least 1'),
        (['--max-per-class', 0], '--max-per-class 0 must be at least 1'),
        (['--classes', 'cat', 'cow'], 'cow: coco.json has no such category'),
        (['--min-size', 500], 'no box to cut out'),
    ],
)
def test_options_that_are_refused(refusal, options, part):
    assert part in refusal(*options)
    assert not Path('out').exists()


def change(part, index, **values):
    """Make a case of a change to one entry of the file."""
    return lambda content: content[part][index].update(values)


CASES = {
    'no COCO': (
        lambda content: content.pop('categories'),
        'not in COCO format: it has no list of categories',
    ),
    'image outside': (
        change('images', 0, file_name='../outside.png'),
        "lists the image '../outside.png', which is not below IMG_DIR",
    ),
    'absolute image': (
        lambda content: content['images'][0].update(
            file_name=str(Path('outside.png').resolve())
        ),
        "outside.png', which is not below IMG_DIR",
    ),
    'negative box': (
        change('annotations', 2, bbox=[9, 9, -4, 4]),
        'negative width or height: annotation 12',
    ),
    'missing image': (
        change('images', 0, file_name='c.png'),
        'missing or empty: images/c.png',
    ),
    'other size': (
        change('images', 0, width=256, height=192),
        'a.png is 128x96, annotated at 256x192',
    ),
    'one folder for two': (
        lambda content: content['categories'].extend(
            [dict(id=8, name='a/b'), dict(id=9, name='a_b')]
        ),
        "'a/b' and 'a_b' would share the folder a_b",
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_data_that_is_refused(refusal, content, case, tmp_path, monkeypatch):
    edit, part = CASES[case]
    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (128, 96)).save('outside.png')
    edit(content)
    assert part in refusal()
    assert not Path('out').exists() or not any(Path('out').iterdir())


def test_missing_inputs_are_refused(run_tool, tmp_path, capsys):
    (tmp_path / 'text.json').write_text('no json')
    for args, part in (
        (('none.json', '.', 'out'), 'no annotation file none.json'),
        ((tmp_path / 'text.json', 'none', 'out'), 'no image folder none'),
        ((tmp_path / 'text.json', tmp_path, 'out'), 'is not valid JSON'),
    ):
        assert run_tool(TOOL, *args) == 1
        error = capsys.readouterr().err
        assert part in error and error.count('\n') == 1
