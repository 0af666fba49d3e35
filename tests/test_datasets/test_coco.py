"""Tests of mmmamba/datasets/coco.py: files of real annotation tools."""

import copy
import json
import math
import random

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmmamba.datasets import (
    DatasetError,
    inspect_datasets,
    read_coco,
    right_coco,
)
from mmmamba.datasets.findings import SEVERITIES

WIDTH, HEIGHT = 60, 40


def coco_file() -> dict:
    """Three images of two objects each, of two categories."""
    boxes = ([2, 3, 20, 10], [30.5, 10, 12, 25.5])
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT)
            for i in (1, 2, 3)
        ],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
        annotations=[
            dict(
                id=2 * image + n - 1,
                image_id=image,
                category_id=n + 1,
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=0,
            )
            for image in (1, 2, 3)
            for n, box in enumerate(boxes)
        ],
    )


@pytest.fixture
def folder(tmp_path):
    """A folder with the images of :func:`coco_file`."""
    (tmp_path / 'images').mkdir()
    for i in (1, 2, 3):
        pixels = np.full((HEIGHT, WIDTH, 3), 50 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{i}.png')
    return tmp_path / 'images'


def righted(content: dict, folder) -> tuple[dict, dict[str, str]]:
    """Right a file; returns it and the severity of each kind found."""
    before = copy.deepcopy(content)
    result, findings = right_coco(content, 'file.json', str(folder))
    assert content == before  # the caller's stays as it is
    for finding in findings:
        assert finding.severity in SEVERITIES
        assert 'file.json' in finding.message
    return result, {f.kind: f.severity for f in findings}


def test_a_good_file_stays_as_it_is(folder):
    content, found = righted(coco_file(), folder)
    assert content == coco_file()
    assert not found


# ---------------------------------------------------------------------------
# What can be right is made right
# ---------------------------------------------------------------------------

RIGHT = {}


def made_right(kind):
    """A change of the file after which it is what it was before."""

    def register(change):
        RIGHT[change.__name__] = change, kind
        return change

    return register


@made_right('annotation_id')
def ids_from_zero(content):
    for n, annotation in enumerate(content['annotations']):
        annotation['id'] = n


@made_right('annotation_id')
def no_ids(content):
    for annotation in content['annotations']:
        del annotation['id']


@made_right('annotation_id')
def ids_twice(content):
    for annotation in content['annotations']:
        annotation['id'] = 7


@made_right('area')
def area_zero(content):
    for annotation, area in zip(content['annotations'], (0, None, '', -1)):
        annotation['area'] = area


@made_right('area')
def no_area(content):
    for annotation in content['annotations']:
        del annotation['area']


@made_right(None)
def no_iscrowd(content):
    del content['annotations'][0]['iscrowd']
    content['annotations'][1]['iscrowd'] = None
    content['annotations'][2]['iscrowd'] = '0'


@made_right(None)
def numbers_as_text(content):
    for annotation in content['annotations']:
        annotation['bbox'] = [str(n) for n in annotation['bbox']]
        annotation['area'] = str(annotation['area'])
        annotation['image_id'] = str(annotation['image_id'])
        annotation['category_id'] = str(annotation['category_id'])


@made_right('image_size_missing')
def no_image_sizes(content):
    content['images'][0]['width'] = 0
    del content['images'][1]['height']
    content['images'][2]['width'] = None


@made_right('image_size_wrong')
def image_sizes_swapped(content):
    for image in content['images']:
        image['width'], image['height'] = HEIGHT, WIDTH


@made_right('image_size_wrong')
def image_sizes_too_small(content):
    for image in content['images']:
        image['width'], image['height'] = 30, 20


@made_right('file_name')
def backslashes(content):
    for image in content['images']:
        image['file_name'] = f'train\\images\\{image["file_name"]}'


@made_right('file_name')
def whole_paths(content):
    for image in content['images']:
        image['file_name'] = f'/home/me/x/{image["file_name"]}'


@made_right('file_name')
def suffix_in_capitals(content):
    content['images'][0]['file_name'] = '1.PNG'


@made_right('image_twice')
def an_image_twice(content):
    content['images'].append(dict(content['images'][0], id=9))
    content['annotations'][0]['image_id'] = 9


@made_right('annotation_twice')
def an_annotation_twice(content):
    for number, annotation in enumerate(content['annotations'][:2], 7):
        content['annotations'].append(dict(annotation, id=number))


@made_right('category_twice')
def a_category_twice(content):
    content['categories'].append(dict(id=9, name='dog'))
    content['annotations'][1]['category_id'] = 9


@pytest.mark.parametrize('name', RIGHT)
def test_made_right(name, folder):
    change, kind = RIGHT[name]
    content = coco_file()
    change(content)
    result, found = righted(content, folder)
    assert result['images'] == coco_file()['images']
    assert result['categories'] == coco_file()['categories']
    assert result['annotations'] == coco_file()['annotations']
    assert list(found) == ([kind] if kind else [])
    assert 'error' not in found.values()


@pytest.mark.parametrize(
    'change',
    [
        dict(category_id=2),
        dict(bbox=[2, 3, 20, 11]),
        dict(iscrowd=1),
        dict(segmentation=[[2, 3, 22, 3, 22, 13]]),
    ],
)
def test_what_differs_is_no_repetition(folder, change):
    content = coco_file()
    another = content['annotations'][0] | dict(id=7) | change
    content['annotations'].append(another)
    result, found = righted(content, folder)
    assert 'annotation_twice' not in found
    assert len(result['annotations']) == 7


def test_an_image_twice_with_the_same_annotations(folder):
    content = coco_file()
    content['images'].append(dict(content['images'][0], id=9))
    for number, annotation in enumerate(content['annotations'][:2], 7):
        content['annotations'].append(dict(annotation, id=number, image_id=9))
    result, found = righted(content, folder)
    assert result == coco_file()
    assert set(found) == {'image_twice', 'annotation_twice'}


def test_an_image_twice_in_other_spellings(folder):
    content = coco_file()
    names = './1.png', 'x//1.png', '/home/me/x/1.png', 'me\\x\\1.PNG'
    for number, name in enumerate(names, 7):
        again = dict(content['images'][0], id=number, file_name=name)
        content['images'].append(again)
    content['annotations'][0]['image_id'] = 9
    result, found = righted(content, folder)
    assert result == coco_file()
    assert found == dict(image_twice='warning', file_name='info')


def test_ids_that_are_text(folder):
    content = coco_file()
    for entry in (*content['images'], *content['categories']):
        entry['id'] = f'x{entry["id"]}'
    for annotation in content['annotations']:
        for name in ('image_id', 'category_id'):
            annotation[name] = f'x{annotation[name]}'
    result, found = righted(content, folder)
    assert found == {'image_id_text': 'info'}
    assert result['images'] == [
        dict(image, given_id=f'x{image["id"]}')
        for image in coco_file()['images']
    ]
    assert result['annotations'] == coco_file()['annotations']


def test_an_underscore_is_no_part_of_a_number(folder):
    """Python takes 1_12 and 11_2 for 112."""
    content = coco_file()
    ids = dict(zip((1, 2, 3), ('1_12', '11_2', '112')))
    for image in content['images']:
        image['id'] = ids[image['id']]
    for annotation in content['annotations']:
        annotation['image_id'] = ids[annotation['image_id']]
    content['annotations'][0]['bbox'][0] = '1_0'
    result, found = righted(content, folder)
    assert found == {'image_id_text': 'info', 'no_box': 'warning'}
    shown = [annotation['image_id'] for annotation in result['annotations']]
    assert shown == [1, 2, 2, 3, 3]


def test_the_box_of_a_polygon(folder):
    content = coco_file()
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        triangle = [x, y, x + width, y, x, y + height]
        annotation['segmentation'] = triangle  # without the list around it
        annotation['bbox'] = None
        annotation['area'] = 0
    result, found = righted(content, folder)
    assert found == {'box_of_polygon': 'info', 'area': 'info'}
    for new, old in zip(result['annotations'], coco_file()['annotations']):
        assert new['bbox'] == old['bbox']
        assert new['area'] == old['area'] / 2
        assert [len(part) for part in new['segmentation']] == [6]


def test_objects_without_polygon_among_others(folder):
    content = coco_file()
    content['annotations'][0]['segmentation'] = [[2, 3, 22, 3, 22, 13]]
    result, found = righted(content, folder)
    assert found == {'no_polygon': 'info'}
    second = result['annotations'][1]['segmentation']
    assert second == [[30.5, 10, 42.5, 10, 42.5, 35.5, 30.5, 35.5]]


@pytest.mark.parametrize('orientation', [6, 8])
def test_photos_that_exif_turns(folder, orientation):
    """Their annotations may be of the stored pixels, or of what is shown."""
    image = Image.open(folder / '1.png')
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(folder / '1.png', exif=exif)
    content = coco_file()
    result, found = righted(content, folder)
    assert found == {'exif': 'info'}
    assert result['images'][0] == dict(content['images'][0], turned=True)

    content['images'][0].update(width=HEIGHT, height=WIDTH)
    content['annotations'][1]['bbox'] = [10, 30, 25, 12]
    result, found = righted(content, folder)
    assert not found
    assert result['images'] == content['images']


# ---------------------------------------------------------------------------
# What cannot be is left out and counted, or an error
# ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    'change, kind',
    [
        (dict(image_id=99), 'unknown_image'),
        (dict(image_id=None), 'unknown_image'),
        (dict(category_id=99), 'unknown_category'),
        (dict(bbox=None), 'no_box'),
        (dict(bbox=[1, 2, 3]), 'no_box'),
        (dict(bbox=[1, 2, None, 3]), 'no_box'),
        (dict(bbox=[1, 2, math.nan, 3]), 'no_box'),
        (dict(bbox=[1, math.inf, 2, 3]), 'no_box'),
        (dict(bbox='1 2 3 4'), 'no_box'),
        (dict(bbox=[1, 2, 10, 0]), 'tiny_box'),
        (dict(bbox=[70, 2, 10, 5]), 'outside_box'),
        (dict(bbox=[-30, 2, 10, 5]), 'outside_box'),
    ],
)
def test_left_out(folder, change, kind):
    content = coco_file()
    content['annotations'][2].update(change)
    result, found = righted(content, folder)
    assert found == {kind: 'warning'}
    ids = [annotation['id'] for annotation in result['annotations']]
    assert ids == [1, 2, 4, 5, 6]


@pytest.mark.parametrize('flag', [dict(ignore=1), dict(iscrowd=1)])
def test_ignored_objects_count_neither_way(folder, flag):
    content = coco_file()
    content['annotations'][2].update(flag)
    result, found = righted(content, folder)
    assert found == {'ignored': 'info'}
    (finding,) = right_coco(content, 'file.json').findings
    assert 'learn them as background' in finding.message
    assert [a['iscrowd'] for a in result['annotations']] == [0, 0, 1, 0, 0, 0]


ERRORS = {}


def is_error(kind):
    """A change of the file that makes training on it senseless."""

    def register(change):
        ERRORS[change.__name__] = change, kind
        return change

    return register


@is_error('normalised_boxes')
def fractions(content):
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [
            *(x / WIDTH, y / HEIGHT),
            *(width / WIDTH, height / HEIGHT),
        ]


@is_error('corner_boxes')
def corners(content):
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        annotation['bbox'] = [x, y, x + width, y + height]


@is_error('corner_boxes')
def corners_that_never_reach_the_border(content):
    content['annotations'] = content['annotations'][::2]
    corners(content)


@is_error('negative_box')
def negative(content):
    content['annotations'][0]['bbox'] = [22, 13, -20, -10]


@is_error('all_ignored')
def all_ignored(content):
    for annotation in content['annotations']:
        annotation['ignore'] = 1


@is_error('nothing_left')
def all_outside(content):
    for annotation in content['annotations']:
        annotation['bbox'][0] += 100


@is_error('nothing_left')
def all_null(content):
    for annotation in content['annotations']:
        annotation['bbox'] = [None] * 4


@is_error('image_size_other')
def annotated_at_twice_the_size(content):
    for image in content['images']:
        image['width'], image['height'] = 2 * WIDTH, 2 * HEIGHT
    for annotation in content['annotations']:
        annotation['bbox'] = [2 * n for n in annotation['bbox']]


@is_error('image_id')
def two_images_of_one_id(content):
    content['images'][1]['id'] = 1


@is_error('category_id')
def two_categories_of_one_id(content):
    content['categories'][1]['id'] = 1


@is_error('image_name')
def two_images_of_one_file(content):
    for number, image in enumerate(content['images'][:2], 1):
        image['file_name'] = f'seq{number}/1.png'


@is_error('missing_image')
def image_missing(content):
    content['images'][1]['file_name'] = 'other.png'


@pytest.mark.parametrize('name', ERRORS)
def test_errors(name, folder):
    change, kind = ERRORS[name]
    content = coco_file()
    change(content)
    _, found = righted(content, folder)
    assert found[kind] == 'error'


@pytest.mark.parametrize(
    'head, reason',
    [
        (b'', 'the file is empty'),
        (b'<!DOCTYPE html><html>', 'a web page'),
        (b'\0\0\0\x18ftypheic', 'a HEIC photo'),
        (b'hello', 'not an image'),
    ],
)
def test_broken_images(folder, head, reason):
    (folder / '2.png').write_bytes(head)
    _, findings = right_coco(coco_file(), 'file.json', str(folder))
    assert [f.severity for f in findings] == ['error']
    assert f'2.png ({reason}' in findings[0].message


@pytest.mark.parametrize(
    'content, message',
    [
        (b'[]', 'not in COCO format'),
        (b'{"images": [], "categories": [], "annotations": []}', 'no images'),
        (b'[' * 100000, 'not valid JSON'),
        (b'\xff\xfe', 'not valid JSON'),
    ],
)
def test_no_coco_file(tmp_path, content, message):
    (tmp_path / 'file.json').write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_coco(tmp_path / 'file.json')


def test_a_folder_is_no_annotation_file(tmp_path):
    with pytest.raises(DatasetError, match='is a folder'):
        read_coco(tmp_path)


def test_byte_order_mark(tmp_path):
    text = json.dumps(coco_file())
    (tmp_path / 'file.json').write_text(text, encoding='utf-8-sig')
    assert read_coco(tmp_path / 'file.json') == coco_file()


VALUES = (
    *(None, 0, -1, 1e300, math.nan, math.inf, True, '', 'x', '3', [], [[]]),
    *({}, [1], [1, 2, 3, 4], {'a': 1}, ['a', None], 10**400),
)


def mutate(node, generator: random.Random) -> None:
    """Replace, drop or repeat one thing somewhere in the content."""
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        if not len(keys):
            return
        key = generator.choice(keys)
        if isinstance(node[key], (dict, list)) and generator.random() < 0.8:
            node = node[key]
            continue
        action = generator.randrange(3)
        if action == 0:
            node[key] = copy.deepcopy(generator.choice(VALUES))
        elif action == 1:
            del node[key]
        elif isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        return


@pytest.mark.parametrize('seed', range(200))
def test_mutations_never_end_in_a_traceback(folder, tmp_path, seed):
    generator = random.Random(seed)
    content = coco_file()
    content['annotations'][0]['segmentation'] = [[2, 3, 22, 3, 22, 13]]
    content['annotations'][1]['segmentation'] = dict(
        size=[HEIGHT, WIDTH], counts=[0, 100, HEIGHT * WIDTH - 100]
    )
    for _ in range(generator.randrange(1, 4)):
        mutate(content, generator)
    (tmp_path / 'file.json').write_text(json.dumps(content))
    try:
        content = read_coco(tmp_path / 'file.json')
    except DatasetError:
        return
    result, findings = right_coco(content, 'file.json', str(folder))
    if not any(f.severity == 'error' for f in findings):
        for annotation in result['annotations']:
            assert all(math.isfinite(n) for n in annotation['bbox'])
            assert annotation['area'] > 0


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['CustomCocoDataset', 'CocoDataset'])
def test_mutations_are_findings_of_the_check(folder, tmp_path, kind):
    pytest.importorskip('mmmamba.datasets.detection')
    dataset = dict(
        type=kind,
        ann_file=str(tmp_path / 'file.json'),
        data_prefix=dict(img=f'{folder}/'),
        metainfo=dict(classes=('cat', 'dog')),
    )
    cfg = Config(
        dict(
            model=dict(bbox_head=dict(num_classes=2)),
            train_dataloader=dict(dataset=dataset),
        )
    )
    severities = set()
    for seed in range(50):
        generator = random.Random(1000 + seed)
        content = coco_file()
        for _ in range(generator.randrange(4)):
            mutate(content, generator)
        (tmp_path / 'file.json').write_text(json.dumps(content))
        with DefaultScope.overwrite_default_scope('mmdet'):
            report = inspect_datasets(cfg, ('train',))
        severities |= {f.severity for f in report.findings} or {'none'}
    assert {'error', 'none'} <= severities
