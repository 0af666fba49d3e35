"""Tests of mmmamba/datasets/check.py: data that cannot serve."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmmamba.datasets import DatasetError, check, check_datasets

pytest.importorskip('mmdet')
pytest.importorskip('mmmamba.datasets.detection')  # registers ours
CLASSES = ('circle', 'square')
RLE = dict(counts=[2, 8, 38], size=[6, 8])


def coco_file():
    """Two images, one object each."""
    return dict(
        images=[
            dict(id=10, file_name='a.jpg', width=8, height=6),
            dict(id=11, file_name='b.jpg', width=8, height=6),
        ],
        categories=[
            dict(id=3, name='circle', supercategory='shape'),
            dict(id=7, name='square'),
        ],
        annotations=[
            dict(
                id=1,
                image_id=10,
                category_id=3,
                bbox=[0, 0, 4, 4],
                area=16,
                iscrowd=0,
            ),
            dict(
                id=2,
                image_id=11,
                category_id=7,
                bbox=[1, 1, 2, 3.5],
                area=7,
                iscrowd=0,
            ),
        ],
    )


def write_image(path: Path) -> None:
    """An image of the size that the file gives."""
    Image.new('RGB', (8, 6)).save(path, 'JPEG')


class Case:
    """A config with its data set on disk; tests break one of the two.

    Attributes:
        root (Path): The data root.
        cfg (Config): RetinaNet's config, as far as it is looked at.
        train, val (dict): Content of the annotation files.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.train = coco_file()
        self.val = coco_file()
        for split in ('train', 'val'):
            (root / split).mkdir()
            for name in 'ab':
                write_image(root / split / f'{name}.jpg')
        self.cfg = Config(
            dict(
                model=dict(
                    type='RetinaNet',
                    backbone=dict(type='MobileMamba', arch='t2'),
                    bbox_head=dict(type='RetinaHead', num_classes=2),
                ),
                train_dataloader=dict(dataset=self.dataset('train')),
                val_dataloader=dict(dataset=self.dataset('val')),
                val_evaluator=dict(
                    type='CocoMetric', ann_file=str(root / 'val.json')
                ),
                train_pipeline=[],
            )
        )

    def dataset(self, split: str) -> dict:
        """A data set's config."""
        return dict(
            type='CocoDataset',
            data_root=str(self.root),
            ann_file=f'{split}.json',
            data_prefix=dict(img=f'{split}/'),
            metainfo=dict(classes=CLASSES),
            backend_args=None,
        )

    def check(self, splits=('train', 'val')) -> None:
        """Write the annotation files and run the check."""
        for split in ('train', 'val'):
            content = getattr(self, split)
            if content is not None:
                if not isinstance(content, (str, bytes)):
                    content = json.dumps(content)
                if isinstance(content, str):
                    content = content.encode()
                (self.root / f'{split}.json').write_bytes(content)
        check_datasets(self.cfg, splits)


@pytest.fixture(autouse=True)
def first_process(monkeypatch):
    """Run as the only process, in mmdet's scope, as the tools do."""
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


@pytest.mark.slow
def test_whole_data_set_passes(case):
    case.check()


# Each breaks one thing, and names what the message must say.
REFUSALS = {}


def refused(*parts, splits=('train', 'val')):
    """Register a case; ``{root}`` in ``parts`` is the data root."""

    def register(breaks):
        REFUSALS[breaks.__name__] = (breaks, parts, splits)
        return breaks

    return register


@refused(
    'train_dataloader: ann_file {root}/train.json does not exist',
    'docs/dataset_prepare.md',
    'README',
)
def annotation_file_missing(case):
    case.train = None


@refused('val_dataloader: ann_file {root}/val.json does not exist')
def val_file_missing(case):
    case.val = None


@refused('{root}/train.json (0 bytes) is not valid JSON')
def annotation_file_empty(case):
    case.train = b''


@refused('{root}/train.json', 'is not valid JSON', 'line 1')
def not_json(case):
    case.train = '<html></html>'


@refused('{root}/train.json (100 bytes) is not valid JSON')
def truncated_json(case):
    case.train = json.dumps(case.train)[:100]


@refused('{root}/train.json (4 bytes) is not valid JSON')
def not_text(case):
    case.train = b'\x89PNG'


@refused('{root}/train.json is not in COCO format', 'images and categories')
def a_list(case):
    case.train = [1, 2]


@refused('{root}/train.json is not in COCO format', 'no list of images')
def without_images_list(case):
    del case.train['images']


@refused('{root}/train.json is not in COCO format', 'no list of categories')
def categories_by_number(case):
    case.train['categories'] = {'3': 'circle', '7': 'square'}


@refused('{root}/train.json is not in COCO format', 'categories')
def categories_as_names(case):
    case.train['categories'] = list(CLASSES)


@refused('{root}/train.json', 'categor', 'id')
def category_without_id(case):
    del case.train['categories'][0]['id']


@refused('{root}/train.json is not in COCO format', 'images')
def images_as_numbers(case):
    case.train['images'] = [10, 11]


@refused('{root}/train.json is not in COCO format', 'annotations')
def annotations_by_number(case):
    case.train['annotations'] = {'1': case.train['annotations'][0]}


@refused('{root}/train.json lists no images')
def no_images(case):
    case.train['images'] = []


@refused('{root}/train.json has no annotations')
def no_annotations_in_train(case):
    case.train['annotations'] = []


@refused('{root}/train.json has no annotations')
def no_annotations_list_in_train(case):
    del case.train['annotations']


@refused('{root}/train.json', 'have no width or height: b.jpg')
def image_without_width(case):
    del case.train['images'][1]['width']


@refused('{root}/val.json', 'an image has no file_name', "'id': 11")
def image_without_name_and_height(case):
    del case.val['images'][1]['file_name']
    del case.val['images'][1]['height']


@refused(
    '1 annotations of {root}/train.json are for images which the file does '
    'not list',
    'annotation 2 is for image 99. CocoDataset does not make that right',
)
def annotation_of_unknown_image(case):
    case.train['annotations'][1]['image_id'] = 99


@refused(
    '1 annotations of {root}/train.json are of categories which the file '
    'does not list',
    'annotation 2 is of category 5',
)
def annotation_of_unknown_category(case):
    case.train['annotations'][1]['category_id'] = 5


@refused(
    '1 objects of {root}/val.json have no bbox [x, y, width, height]',
    'annotation 1 has None',
)
def annotation_without_bbox(case):
    del case.val['annotations'][0]['bbox']


@refused('{root}/train.json have no bbox', 'annotation 1 has [1, 2, 3]')
def annotation_with_three_numbers(case):
    case.train['annotations'][0]['bbox'] = [1, 2, 3]


@refused('annotation 1 of {root}/train.json has no area')
def annotation_without_area(case):
    del case.train['annotations'][0]['area']


@refused(
    '{root}/val.json', 'square are in the config only', "classes=('circle',)"
)
def class_the_file_lacks(case):
    case.val['categories'].pop()
    case.val['annotations'].pop()


@refused('Circle are in the file only', 'circle are in the config only')
def category_in_another_case(case):
    case.train['categories'][0]['name'] = 'Circle'


@refused('{root}/train.json', 'another order', "classes=('square', 'circle')")
def categories_in_another_order(case):
    case.train['categories'].reverse()


@refused(
    'of {root}/train.json are not the classes of the config',
    'circle, square are in the file only',
    'and 77 more are in the config only',
)
def coco_classes_by_default(case):
    del case.cfg.train_dataloader.dataset['metainfo']
    case.cfg.model.bbox_head.num_classes = 80


@refused(
    'model.bbox_head.num_classes is 80, but the data set has 2 classes',
    'circle, square',
    'model.bbox_head.num_classes=2',
)
def head_of_coco(case):
    case.cfg.model.bbox_head.num_classes = 80


@refused('model.roi_head.bbox_head.1.num_classes is 3', '2 classes')
def one_head_of_a_cascade(case):
    case.cfg.model = dict(
        rpn_head=dict(num_classes=1),
        roi_head=dict(
            bbox_head=[dict(num_classes=2), dict(num_classes=3)],
            mask_head=dict(num_classes=2),
        ),
    )


@refused('model.roi_head.mask_head.num_classes is 80')
def mask_head(case):
    case.cfg.model = dict(
        roi_head=dict(
            bbox_head=dict(num_classes=2), mask_head=dict(num_classes=80)
        )
    )


@refused('2 of the 2 images of {root}/train.json', '{root}/train/a.jpg')
def both_images_missing(case):
    for name in 'ab':
        (case.root / f'train/{name}.jpg').unlink()


@refused(
    '1 of the 2 images of {root}/train.json are missing or empty',
    '{root}/train/b.jpg',
)
def image_missing(case):
    (case.root / 'train/b.jpg').unlink()


@refused('1 of the 2 images', 'missing or empty', '{root}/val/a.jpg')
def image_of_no_bytes(case):
    (case.root / 'val/a.jpg').write_bytes(b'')


@refused('1 of the 2 images', '{root}/train/b.jpg')
def image_is_a_broken_link(case):
    (case.root / 'train/b.jpg').unlink()
    (case.root / 'train/b.jpg').symlink_to(case.root / 'nowhere.jpg')


@refused('1 of the 2 images', '{root}/train/2024/c.jpg')
def image_in_a_missing_subfolder(case):
    case.train['images'][1]['file_name'] = '2024/c.jpg'


@refused('1 file names of {root}/train.json are spelt another way', '2024/b.j')
def image_of_another_folder(case):
    case.train['images'][1]['file_name'] = '2024/b.jpg'


@refused('1 photos of {root}/train.json are turned by EXIF', 'a.jpg')
def photo_that_is_annotated_as_stored(case):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (8, 6)).save(case.root / 'train/a.jpg', exif=exif)


@refused('annotated at another size than they have', 'b.jpg is 4x3, annotated')
def image_that_was_made_smaller(case):
    Image.new('RGB', (4, 3)).save(case.root / 'train/b.jpg')


@refused('train_dataloader: data_prefix.img {root}/pictures', 'not exist')
def image_folder_missing(case):
    case.cfg.train_dataloader.dataset.data_prefix.img = 'pictures'


@refused(
    'val_evaluator.ann_file is {root}/train.json',
    'val_dataloader reads {root}/val.json',
)
def evaluator_reads_another_file(case):
    case.cfg.val_evaluator.ann_file = str(case.root / 'train.json')


@refused(
    'val_evaluator.ann_file is {root}/val.json',
    'val_dataloader reads {root}/train.json, {root}/val.json',
    'merge the files',
)
def evaluator_reads_one_file_of_two(case):
    case.cfg.val_dataloader.dataset = dict(
        type='ConcatDataset',
        datasets=[case.dataset('train'), case.dataset('val')],
    )


@refused('val_evaluator.ann_file is data/coco/annotations/val.json')
def second_evaluator_reads_another_file(case):
    case.cfg.val_evaluator = [
        case.cfg.val_evaluator,
        dict(type='CocoMetric', ann_file='data/coco/annotations/val.json'),
    ]


@refused(
    'test_dataloader: ann_file {root}/test.json does not exist',
    splits=('test',),
)
def file_of_test_missing(case):
    case.cfg.test_dataloader = dict(dataset=case.dataset('test'))


@refused('{root}/val.json lists no images')
def bad_child_of_a_wrapper(case):
    case.val['images'] = []
    case.cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(
            type='ConcatDataset',
            datasets=[case.dataset('train'), case.dataset('val')],
        ),
    )


@refused("unknown data set type 'CocoDatset'")
def misspelt_data_set(case):
    case.cfg.train_dataloader.dataset.type = 'CocoDatset'


@refused('num_classes is 2, but the data set has 80 classes')
def same_file_with_other_classes(case):
    """Validating on the training data does not hide val's own settings."""
    dataset = case.dataset('train')
    del dataset['metainfo']
    case.cfg.val_dataloader.dataset = dataset
    case.cfg.val_evaluator.ann_file = str(case.root / 'train.json')


@refused("'circle'", 'classes')
def classes_without_a_comma(case):
    """``('circle')`` is a text, and no list of six classes."""
    case.cfg.train_dataloader.dataset.metainfo.classes = 'circle'


@pytest.mark.parametrize('name', REFUSALS)
def test_refusal(name, case):
    breaks, parts, splits = REFUSALS[name]
    breaks(case)
    with pytest.raises(DatasetError) as error:
        case.check(splits)
    for part in parts:
        assert part.format(root=case.root) in str(error.value)


# Each changes something that is no fault.
PASSES = {}


def passes(changes):
    """Register a case."""
    PASSES[changes.__name__] = changes
    return changes


@passes
def images_without_annotations(case):
    case.train['annotations'].pop()
    case.val['annotations'].clear()


@passes
def val_without_a_list_of_annotations(case):
    """As COCO's ``image_info_test-dev2017.json``."""
    del case.val['annotations']


@passes
def crowd_and_masks(case):
    crowd, plain = case.train['annotations']
    crowd.update(iscrowd=1, segmentation=RLE)
    plain.update(segmentation=[[1, 1, 3, 1, 3, 4]])


@passes
def other_keys(case):
    case.train.update(info={}, licenses=[], extra=None)
    case.train['images'][0].update(coco_url='', license=1)


@passes
def names_in_unicode(case):
    """Not escaped in the file."""
    classes = ('círculo', '方形')
    for content in (case.train, case.val):
        for category, name in zip(content['categories'], classes):
            category['name'] = name
        content['images'][0]['file_name'] = 'фото a.jpg'
    for split in ('train', 'val'):
        content = getattr(case, split)
        setattr(case, split, json.dumps(content, ensure_ascii=False))
        case.cfg[f'{split}_dataloader'].dataset.metainfo.classes = classes
        folder = case.root / split
        (folder / 'a.jpg').rename(folder / 'фото a.jpg')


@passes
def images_in_subfolders_and_by_link(case):
    (case.root / 'train/2024').mkdir()
    (case.root / 'train/a.jpg').rename(case.root / 'train/2024/a.jpg')
    case.train['images'][0]['file_name'] = '2024/a.jpg'
    (case.root / 'train/b.jpg').rename(case.root / 'elsewhere.jpg')
    (case.root / 'train/b.jpg').symlink_to(case.root / 'elsewhere.jpg')


@passes
def broken_link_beside_the_images(case):
    (case.root / 'train/c.jpg').symlink_to(case.root / 'nowhere.jpg')


@passes
def another_spelling_of_a_path(case):
    case.train['images'][0]['file_name'] = './a.jpg'


@passes
def absolute_paths_without_a_root(case):
    for split in ('train', 'val'):
        dataset = case.cfg[f'{split}_dataloader'].dataset
        dataset.ann_file = str(case.root / f'{split}.json')
        dataset.data_prefix.img = str(case.root / split)
        del dataset['data_root']


@passes
def wrappers(case):
    repeat = dict(type='RepeatDataset', times=2, dataset=case.dataset('train'))
    both = [repeat, case.dataset('val')]
    case.cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=dict(type='ConcatDataset', datasets=both),
    )


@passes
def evaluator_of_a_wrapped_data_set(case):
    case.cfg.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[case.dataset('val')]
    )
    case.cfg.val_evaluator = [
        dict(type='VOCMetric'),
        case.cfg.val_evaluator,
    ]


@passes
def evaluator_by_another_spelling(case):
    path = case.root / 'train' / '..' / 'val.json'
    case.cfg.val_evaluator.ann_file = str(path)


@passes
def three_classes_that_are_not_coco(case):
    """As many as the model's, in COCO's format and not of COCO's number."""
    for content in (case.train, case.val):
        content['categories'].append(dict(id=90, name='star'))
    for split in ('train', 'val'):
        metainfo = case.cfg[f'{split}_dataloader'].dataset.metainfo
        metainfo.classes = [*CLASSES, 'star']
    case.cfg.model.bbox_head.num_classes = 3


@passes
def classes_in_a_file(case):
    file = case.root / 'classes.txt'
    file.write_text('circle\nsquare\n')
    for split in ('train', 'val'):
        metainfo = case.cfg[f'{split}_dataloader'].dataset.metainfo
        metainfo.classes = str(file)


@passes
def region_proposals_of_one_class(case):
    case.cfg.model.rpn_head = dict(type='RPNHead', num_classes=1)


@passes
def semantic_head_of_other_classes(case):
    """HTC's learns COCO-Stuff beside the objects."""
    case.cfg.model.roi_head = dict(
        type='HybridTaskCascadeRoIHead', semantic_head=dict(num_classes=183)
    )


@passes
def no_val(case):
    case.cfg.val_dataloader = None
    case.cfg.val_evaluator = None


@passes
def remote_data(case):
    for split in ('train', 'val'):
        dataset = case.cfg[f'{split}_dataloader'].dataset
        dataset.data_root = 's3://bucket/data'
        dataset.backend_args = dict(backend='petrel')
    case.cfg.val_evaluator.ann_file = 's3://bucket/data/val.json'


@passes
def panoptic(case):
    """Its boxes are in the segments, and only things have a box head."""
    segment = dict(id=1, category_id=3, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
    case.train['annotations'] = [
        dict(image_id=10, file_name='a.png', segments_info=[segment])
    ]
    for category in case.train['categories']:
        category['isthing'] = int(category['name'] == 'circle')
    (case.root / 'maps').mkdir()
    dataset = case.cfg.train_dataloader.dataset
    dataset.type = 'CocoPanopticDataset'
    dataset.data_prefix.seg = 'maps/'
    dataset.metainfo.thing_classes = CLASSES[:1]
    dataset.metainfo.stuff_classes = CLASSES[1:]
    case.cfg.model.bbox_head.num_classes = 1
    case.cfg.model.semantic_head = dict(num_classes=2)
    case.cfg.val_dataloader = None


@passes
def category_the_config_lacks(case):
    """As mmdet documents it: a subset of the categories."""
    case.train['categories'].append(dict(id=8, name='star'))


@passes
def annotations_in_mmengine_format(case):
    """A ``.json`` file need not be COCO's."""
    case.train = dict(
        metainfo=dict(classes=CLASSES),
        data_list=[dict(img_path='a.jpg', height=6, width=8, instances=[])],
    )
    dataset = case.cfg.train_dataloader.dataset
    dataset.type = 'BaseDetDataset'
    dataset.data_prefix = dict(img_path='train/')


@pytest.mark.parametrize('name', PASSES)
def test_pass(name, case):
    PASSES[name](case)
    case.check()


def test_only_the_splits_asked_for_are_checked(case):
    case.val = 'not JSON'
    case.cfg.val_evaluator.ann_file = 'nowhere.json'
    case.check(splits=('train',))
    case.cfg.train_dataloader = None
    with pytest.raises(DatasetError, match='not valid JSON'):
        case.check(splits=('val',))


def test_a_file_is_read_once(case, monkeypatch):
    """COCO's takes seconds."""
    read = []
    original = check.read_coco

    def read_coco(file):
        read.append(Path(file).name)
        return original(file)

    monkeypatch.setattr(check, 'read_coco', read_coco)
    case.cfg.test_dataloader = case.cfg.val_dataloader
    case.check(splits=('train', 'val', 'test'))
    assert read == ['train.json', 'val.json']


@pytest.mark.parametrize('name', ['RANK', 'SLURM_PROCID'])
def test_only_the_first_process_checks(name, case, monkeypatch):
    case.train = None
    monkeypatch.setenv(name, '0')
    with pytest.raises(DatasetError, match='does not exist'):
        case.check()
    monkeypatch.setenv(name, '1')
    case.check()


# ---------------------------------------------------------------------------
# Data sets of the other toolboxes
# ---------------------------------------------------------------------------


@pytest.fixture
def segmentation(tmp_path):
    """A segmentor's config and folders; no annotation file."""
    pytest.importorskip('mmseg')
    for folder in ('images', 'maps'):
        (tmp_path / folder).mkdir()
    cfg = dict(
        model=dict(
            decode_head=dict(num_classes=2),
            auxiliary_head=[dict(num_classes=2)],
        ),
        train_dataloader=dict(
            dataset=dict(
                type='BaseSegDataset',
                data_root=str(tmp_path),
                data_prefix=dict(img_path='images', seg_map_path='maps'),
                metainfo=dict(classes=CLASSES),
            )
        ),
    )
    with DefaultScope.overwrite_default_scope('mmseg'):
        yield Config(cfg)


def test_segmentation_passes(segmentation, tmp_path):
    image = np.zeros((4, 4), np.uint8)
    for name in ('images/a.jpg', 'maps/a.png'):
        Image.fromarray(image).save(tmp_path / name)
    check_datasets(segmentation, ('train',))


@pytest.mark.parametrize('kind', ['BaseSegDataset', 'CustomSegDataset'])
def test_jpeg_label_maps(segmentation, tmp_path, kind):
    image = np.zeros((4, 4), np.uint8)
    for name in ('images/a.jpg', 'maps/a.jpg'):
        Image.fromarray(image).save(tmp_path / name)
    dataset = segmentation.train_dataloader.dataset
    pytest.importorskip('mmmamba.datasets.segmentation')  # registers ours
    dataset.update(type=kind, seg_map_suffix='.jpg')
    with pytest.raises(DatasetError, match=r'maps/a.jpg is JPEG.*export PNG'):
        check_datasets(segmentation, ('train',))


@pytest.mark.parametrize(
    'key, folder', [('img_path', 'images'), ('seg_map_path', 'maps')]
)
def test_segmentation_folder_missing(segmentation, key, folder, tmp_path):
    (tmp_path / folder).rmdir()
    with pytest.raises(DatasetError) as error:
        check_datasets(segmentation, ('train',))
    assert (
        f'train_dataloader: data_prefix.{key} {tmp_path}/{folder} '
        'does not exist'
    ) in str(error.value)


@pytest.mark.parametrize('data_set', [True, False])
@pytest.mark.parametrize('pipeline', [True, False, None])
def test_zero_label_of_data_set_and_pipeline(
    segmentation, tmp_path, data_set, pipeline
):
    for name in ('images/a.jpg', 'maps/a.png'):
        Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / name)
    step = dict(type='LoadAnnotations', reduce_zero_label=pipeline)
    dataset = segmentation.train_dataloader.dataset
    dataset.update(reduce_zero_label=data_set, pipeline=[step])
    if pipeline in (None, data_set):
        check_datasets(segmentation, ('train',))
    else:
        with pytest.raises(DatasetError, match=f'is {data_set} in the train'):
            check_datasets(segmentation, ('train',))


def test_a_data_set_that_reduces_the_zero_label(segmentation, tmp_path):
    """By default: its labels of six classes are 1 to 6."""
    for name in ('images/a.png', 'maps/a.png'):
        Image.fromarray(np.full((4, 4), 6, np.uint8)).save(tmp_path / name)
    segmentation.model = dict(decode_head=dict(num_classes=6))
    dataset = segmentation.train_dataloader.dataset
    del dataset['metainfo']
    dataset.type = 'PotsdamDataset'
    check_datasets(segmentation, ('train',))


def test_a_subset_of_the_classes(segmentation, tmp_path):
    """mmseg numbers the labels of the others away when it loads a map."""
    for name in ('images/a.jpg', 'maps/a.png'):
        labels = np.array([[0, 1, 3, 150]] * 4, np.uint8)
        Image.fromarray(labels).save(tmp_path / name)
    dataset = segmentation.train_dataloader.dataset
    dataset.update(
        type='ADE20KDataset', metainfo=dict(classes=('sky', 'wall'))
    )
    report = check.inspect_datasets(segmentation, ('train',))
    assert not report.findings
    assert report.splits['train'].classes == dict(sky=4, wall=4)


def test_label_maps_beside_their_images(segmentation, tmp_path):
    """Without data_prefix: found by suffixes alone."""
    for name in ('a.jpg', 'a_mask.png'):
        Image.new('L', (4, 4)).save(tmp_path / name)
    dataset = segmentation.train_dataloader.dataset
    del dataset['data_prefix']
    dataset.seg_map_suffix = '_mask.png'
    report = check.inspect_datasets(segmentation, ('train',))
    assert [f.kind for f in report.findings] == ['class_without_objects']


@pytest.mark.parametrize(
    ('labels', 'error'),
    [
        (dict(train=(0, 1, 2, 3), val=(0, 1, 2)), False),
        (dict(train=(0, 1, 2), val=(0, 1, 2, 3)), False),
        (dict(train=(0, 1, 2), val=(0, 1, 2)), True),
        (dict(val=(0, 1, 2)), False),
    ],
)
def test_a_last_class_that_is_rare(segmentation, tmp_path, labels, error):
    """A split without it does not mean that 0 is a class."""
    segmentation.model = dict(decode_head=dict(num_classes=3))
    dataset = segmentation.pop('train_dataloader').dataset
    dataset.metainfo.classes = [*CLASSES, 'star']
    dataset.reduce_zero_label = True
    for split, numbers in labels.items():
        folders = dict(img_path=f'{split}/i', seg_map_path=f'{split}/m')
        for folder in folders.values():
            (tmp_path / folder).mkdir(parents=True)
            pixels = np.array([numbers], np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / 'a.png')
        loader = dict(
            dataset=dict(dataset, data_prefix=folders, img_suffix='.png')
        )
        segmentation[f'{split}_dataloader'] = loader
    report = check.inspect_datasets(segmentation, tuple(labels))
    kinds = [f.kind for f in report.findings if f.severity == 'error']
    assert kinds == ['reduce_zero_label'] * error


def test_segmentation_num_classes(segmentation):
    segmentation.model.auxiliary_head[0].num_classes = 150
    with pytest.raises(DatasetError) as error:
        check_datasets(segmentation, ('train',))
    assert 'model.auxiliary_head.0.num_classes is 150' in str(error.value)


@pytest.fixture
def classification(tmp_path):
    """A classifier's config, on folders by class."""
    for name in CLASSES:
        (tmp_path / 'train' / name).mkdir(parents=True)
        write_image(tmp_path / 'train' / name / 'a.jpg')
    cfg = dict(
        model=dict(head=dict(num_classes=2)),
        train_dataloader=dict(
            dataset=dict(
                type='CustomDataset',
                data_root=str(tmp_path),
                data_prefix='train',
                classes=CLASSES,
            )
        ),
    )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield Config(cfg)


def test_classification_passes(classification):
    check_datasets(classification, ('train',))


def test_classification_folder_missing(classification, tmp_path):
    shutil.rmtree(tmp_path / 'train')
    with pytest.raises(DatasetError, match=r'data_prefix.* does not exist'):
        check_datasets(classification, ('train',))


@pytest.mark.parametrize('kind', ['CIFAR10', 'MNIST'])
def test_data_sets_that_download_themselves(classification, kind, tmp_path):
    dataset = classification.train_dataloader.dataset
    dataset.clear()
    dataset.update(type=kind, data_root=str(tmp_path / 'new'), split='train')
    classification.model.head.num_classes = 10
    check_datasets(classification, ('train',))
    dataset.download = False
    with pytest.raises(DatasetError, match='new does not exist'):
        check_datasets(classification, ('train',))


def test_classification_num_classes(classification):
    classification.model.head.num_classes = 1000
    with pytest.raises(DatasetError, match='num_classes is 1000'):
        check_datasets(classification, ('train',))


def add_val(classification, folders):
    """A val split of these folders, each with an image."""
    train = classification.train_dataloader.dataset
    root = Path(train.data_root, 'val')
    for name in folders:
        (root / name).mkdir(parents=True)
        write_image(root / name / 'b.jpg')
    dataset = dict(train, data_prefix='val')
    classification.val_dataloader = dict(dataset=dataset)


@pytest.mark.parametrize('classes', [CLASSES, ['Circles', 'Squares'], None])
def test_other_class_folders_in_val(classification, classes):
    """Label 1 would be a square in training and a triangle in validation."""
    classification.train_dataloader.dataset.classes = classes
    add_val(classification, ['circle', 'triangle'])
    with pytest.raises(DatasetError) as error:
        check_datasets(classification, ('train', 'val'))
    said = 'val has other folders than' if classes != CLASSES else 'no classes'
    assert said in str(error.value)
    assert 'triangle' in str(error.value)


def test_the_same_class_folders_in_val(classification):
    classification.train_dataloader.dataset.classes = ['Circles', 'Squares']
    add_val(classification, CLASSES)
    check_datasets(classification, ('train', 'val'))


def test_images_of_a_suffix_that_is_not_read(classification, tmp_path):
    folder = tmp_path / 'train/circle'
    write_image(folder / 'b.WEBP')
    report = check.inspect_datasets(classification, ('train',))
    (found,) = report.findings
    assert (found.severity, found.count) == ('warning', 1)
    assert "set extensions=['.jpg', '.webp']" in found.message
    dataset = classification.train_dataloader.dataset
    dataset.extensions = ['.jpg', '.webp']
    assert not check.inspect_datasets(classification, ('train',)).findings


def test_images_without_labels(classification, tmp_path):
    (tmp_path / 'flat').mkdir()
    write_image(tmp_path / 'flat/a.jpg')
    dataset = classification.train_dataloader.dataset
    dataset.update(data_prefix='flat', with_label=False)
    classification.test_dataloader = dict(dataset=dataset)
    check_datasets(classification, ('test',))


@pytest.mark.parametrize('topk', [5, (1, 5)])
def test_more_than_all_classes(classification, topk):
    """mmpretrain says so after the first epoch."""
    evaluator = dict(type='Accuracy', topk=topk)
    classification.val_dataloader = classification.train_dataloader
    classification.val_evaluator = evaluator
    with pytest.raises(DatasetError, match='set val_evaluator.topk=1'):
        check_datasets(classification, ('val',))
    classification.val_evaluator = [dict(type='Accuracy', topk=(1, 2))]
    check_datasets(classification, ('val',))


@pytest.mark.parametrize('classes', [CLASSES, None])
@pytest.mark.parametrize('label', [-1, 2])
def test_classification_labels(classification, tmp_path, classes, label):
    (tmp_path / 'train.txt').write_text(
        f'circle/a.jpg 0\nsquare/a.jpg {label}\n'
    )
    dataset = classification.train_dataloader.dataset
    dataset.update(ann_file='train.txt', classes=classes)
    message = f'train.txt has the labels {label}; those of the 2 classes are 0'
    with pytest.raises(DatasetError, match=message):
        check_datasets(classification, ('train',))


def test_classification_json(classification, tmp_path):
    """Annotations of several labels are a ``.json`` file and not COCO's."""
    entry = dict(img_path='circle/a.jpg', gt_label=[0])
    content = dict(metainfo={}, data_list=[entry])
    (tmp_path / 'train.json').write_text(json.dumps(content))
    dataset = classification.train_dataloader.dataset
    dataset.update(type='MultiLabelDataset', ann_file='train.json')
    check_datasets(classification, ('train',))


@pytest.mark.parametrize(
    ('step', 'least'),
    [
        (dict(type='Resize', scale=(32, 8), keep_ratio=True), 65),
        (dict(type='Resize', scale=(32, 8)), None),
        (
            dict(
                type='RandomResize',
                scale=(64, 64),
                ratio_range=(0.5, 2.0),
                keep_ratio=True,
            ),
            65,
        ),
        (
            dict(
                type='RandomChoiceResize',
                scales=[(64, 64), (32, 32)],
                keep_ratio=True,
            ),
            65,
        ),
        (dict(type='Resize', scale_factor=0.5, keep_ratio=True), None),
    ],
)
def test_strips_that_resizing_leaves_nothing_of(
    segmentation, tmp_path, step, least
):
    """Beyond twice the longer side to 1; mmcv's resizing would fail."""
    width = (least or 1000) - 1
    segmentation.train_dataloader.dataset.pipeline = [step]
    for _ in range(2):
        for name in ('images/a.jpg', 'maps/a.png'):
            Image.new('L', (width, 1)).save(tmp_path / name)
        if width == least:
            with pytest.raises(DatasetError, match=r'a\.jpg is 65x1\. Cut'):
                check_datasets(segmentation, ('train',))
        else:
            check_datasets(segmentation, ('train',))
        width += 1


def test_dark_images_are_counted(case):
    """Once more from what is remembered of those that decoded."""
    case.cfg.work_dir = str(case.root / 'run')
    dark = Image.fromarray(np.full((6, 8), 4095, np.uint16))
    dark.save(case.root / 'train/a.jpg', 'PNG')
    (case.root / 'train.json').write_text(json.dumps(case.train))
    for _ in range(2):
        (found,) = check.inspect_datasets(case.cfg, ('train',)).findings
        assert (found.severity, found.kind) == ('warning', 'dark_image')
        assert found.count == 1


def test_indices_are_named(case):
    (case.root / 'train.json').write_text(json.dumps(case.train))
    case.cfg.train_dataloader.dataset.type = 'CustomCocoDataset'
    case.cfg.train_dataloader.dataset.indices = [0]
    findings = check.inspect_datasets(case.cfg, ('train',)).findings
    (found,) = (f for f in findings if f.kind == 'image_filtered')
    assert '1 of the 2 images' in found.message
    assert 'indices of the data set names the others' in found.message


@pytest.mark.parametrize('most', [1, 2])
def test_sizes_of_a_large_data_set_are_taken_as_given(case, most):
    """To look at each image of COCO takes long on a disk over the network."""
    (case.root / 'train.json').write_text(json.dumps(case.train))
    image_that_was_made_smaller(case)
    findings = check.inspect_datasets(case.cfg, ('train',), most).findings
    assert [f.kind for f in findings] == ['image_size_other'] * (most == 2)


@pytest.mark.parametrize('kind', ['CocoDataset', 'CustomCocoDataset'])
def test_repeated_annotations_are_counted(case, kind):
    """mmdet's data set uses both."""
    again = dict(case.train['annotations'][0], id=3)
    case.train['annotations'].append(again)
    (case.root / 'train.json').write_text(json.dumps(case.train))
    case.cfg.train_dataloader.dataset.type = kind
    report = check.inspect_datasets(case.cfg, ('train',))
    (found,) = (f for f in report.findings if f.kind == 'annotation_twice')
    assert (found.severity, found.count) == ('warning', 1)
    plain = kind == 'CocoDataset'
    assert ('CocoDataset does not' in found.message) == plain


@pytest.mark.parametrize('kind', [str, float])
def test_objects_of_a_category_without_class_are_counted(case, kind):
    """Ids of pandas are floats, those of the categories are not."""
    case.train['categories'].append(dict(id=9, name='extra'))
    case.train['annotations'][0]['category_id'] = 9
    for annotation in case.train['annotations']:
        annotation['category_id'] = kind(annotation['category_id'])
    (case.root / 'train.json').write_text(json.dumps(case.train))
    case.cfg.train_dataloader.dataset.type = 'CustomCocoDataset'
    report = check.inspect_datasets(case.cfg, ('train',))
    (found,) = (f for f in report.findings if f.kind == 'unused_category')
    assert (found.severity, found.count) == ('warning', 1)
