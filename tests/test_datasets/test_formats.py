"""Readers of annotation formats: nothing is lost, moved or believed."""

import json
import os
import unicodedata
from base64 import b64encode
from io import BytesIO

import annotation_formats as formats
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from mmmamba.datasets import DatasetError
from mmmamba.datasets.formats import (
    Source,
    area,
    detect_format,
    read_annotated,
)

WRITERS = {
    'write_coco': 'coco',
    'write_roboflow': 'coco',
    'write_cvat': 'coco',
    'write_cvat_xml': 'cvat',
    'write_voc': 'voc',
    'write_yolo': 'yolo',
    'write_yolo_flat': 'yolo',
    'write_labelme': 'labelme',
    'write_label_studio': 'label_studio',
}


def read(root, **options):
    return read_annotated(Source(root), **options)


def objects(found):
    """Labels and boxes of each image, by its name."""
    return {
        sample.image.name: sorted((i.label, *i.bbox) for i in sample.instances)
        for sample in found.samples
    }


def expected(images):
    return {
        image['name']: sorted((o[0], *o[1]) for o in image['objects'])
        for image in images
    }


def assert_same(found, images):
    boxes, wanted = objects(found), expected(images)
    assert boxes.keys() == wanted.keys()
    for name, own in wanted.items():
        assert [b[0] for b in boxes[name]] == [b[0] for b in own]
        np.testing.assert_allclose(
            [b[1:] for b in boxes[name]], [b[1:] for b in own], atol=1e-6
        )


@pytest.mark.parametrize('writer', WRITERS)
def test_boxes_are_kept(tmp_path, writer):
    images = formats.pictures(outlines=False)
    getattr(formats, writer)(images, tmp_path)
    assert detect_format(Source(tmp_path)) == WRITERS[writer]
    found = read(tmp_path)
    assert_same(found, images)
    assert found.classes == ['big dog', 'cat']
    assert not found.notes
    for sample in found.samples:
        assert (sample.width, sample.height) == (100, 80)


@pytest.mark.parametrize(
    'writer',
    [
        'write_coco',
        'write_cvat_xml',
        'write_yolo',
        'write_labelme',
        'write_label_studio',
    ],
)
def test_polygons_are_kept(tmp_path, writer):
    images = formats.pictures()
    options = {} if writer == 'write_coco' else dict(outlines=True)
    getattr(formats, writer)(images, tmp_path, **options)
    found = read(tmp_path)
    outlines = {i['name']: [o[2] for o in i['objects']] for i in images}
    for sample in found.samples:
        for instance, points in zip(
            sample.instances, outlines[sample.image.name]
        ):
            np.testing.assert_allclose(
                np.reshape(instance.segmentation, (-1, 2)), points, atol=1e-6
            )
            # A triangle, by its determinant.
            sides = np.subtract(points[1:], points[0])
            assert area(instance) == pytest.approx(
                abs(np.linalg.det(sides)) / 2
            )
    assert_same(found, images)


@pytest.mark.parametrize(
    ('writer', 'splits'),
    [
        ('write_coco', dict(train=8, val=2)),
        ('write_roboflow', dict(train=6, val=2, test=2)),
        ('write_cvat', {'': 10}),
        ('write_cvat_xml', dict(train=8, val=2)),
        ('write_yolo', dict(train=8, val=2)),
    ],
)
def test_splits_are_kept(tmp_path, writer, splits):
    getattr(formats, writer)(formats.pictures(), tmp_path)
    found = read(tmp_path)
    assert splits == {
        split: sum(s.split == split for s in found.samples)
        for split in {s.split for s in found.samples}
    }


def test_voc_splits(tmp_path):
    images = formats.pictures()
    for image in images:
        image['name'] = image['name'].replace(' ', '_')
    formats.write_voc(images, tmp_path)
    found = read(tmp_path)
    assert {s.image.stem for s in found.samples if s.split == 'val'} == {
        'img_0',
        'img_1',
    }


def test_voc_beside_drawings(tmp_path):
    """labelme draws the annotations on images of the same name."""
    images = formats.pictures()
    formats.write_voc(images, tmp_path)
    (tmp_path / 'AnnotationsVisualization').mkdir()
    for image in (tmp_path / 'JPEGImages').iterdir():
        drawing = tmp_path / 'AnnotationsVisualization' / image.name
        Image.new('RGB', (100, 80), 'red').save(drawing)
    found = read(tmp_path)
    assert_same(found, images)
    assert {s.image.parent.name for s in found.samples} == {'JPEGImages'}


def test_darknet_lists(tmp_path):
    images = formats.pictures(4)
    formats.write_yolo_flat(images, tmp_path)
    (tmp_path / 'classes.txt').rename(tmp_path / 'obj.names')
    (tmp_path / 'train.txt').write_text(
        'data/obj/img 0.jpg\ndata/obj/img 1.jpg\n'
    )
    (tmp_path / 'valid.txt').write_text('data/obj/img 2.jpg\n')
    found = read(tmp_path)
    assert [s.split for s in found.samples] == ['train', 'train', 'val', '']


@pytest.fixture
def image(tmp_path):
    """One image of 100x80, to be annotated."""
    Image.new('RGB', (100, 80)).save(tmp_path / 'a.jpg')
    return tmp_path


def coco_file(root, annotations, **image):
    entry = dict(id=1, file_name='a.jpg', width=100, height=80, **image)
    content = dict(
        images=[entry],
        categories=[dict(id=1, name='cat')],
        annotations=[
            dict(id=i, image_id=1, category_id=1, **a)
            for i, a in enumerate(annotations)
        ],
    )
    (root / 'coco.json').write_text(json.dumps(content))


GOOD = dict(bbox=[10, 10, 20, 20])


@pytest.mark.parametrize(
    ('annotation', 'reason'),
    [
        (dict(bbox=[10, 10, 0, 20]), 'tiny box'),
        (dict(bbox=[10, 10, 0.5, 20]), 'tiny box'),
        (dict(bbox=[120, 10, 5, 20]), 'outside box'),
        (dict(bbox=[-0.5, 10, 1.2, 20]), 'box below 1 px'),
        (dict(bbox=[float('nan'), 10, 5, 20]), 'no box'),
        (dict(bbox=[0, 0, 1e999, 20]), 'no box'),
        (dict(bbox=[10, 10, 5]), 'no box'),
        (dict(bbox=[10**400, 1, 5, 5]), 'no box'),
    ],
)
def test_bad_annotations_are_counted(image, annotation, reason):
    coco_file(image, [GOOD, annotation])
    found = read(image)
    assert [(k, len(v)) for k, v in found.notes.items()] == [(reason, 1)]
    assert objects(found) == {'a.jpg': [('cat', 10, 10, 20, 20)]}


def test_boxes_that_are_not_of_coco(image):
    """What ``right_coco`` refuses is refused."""
    coco_file(image, [dict(bbox=[0.1, 0.1, 0.2, 0.2])])
    with pytest.raises(DatasetError, match='fractions of the image'):
        read(image)
    coco_file(image, [GOOD, dict(bbox=[10, 10, -5, 20])])
    with pytest.raises(DatasetError, match='negative width'):
        read(image)


@pytest.mark.parametrize(
    ('boxes', 'box', 'outline'),
    [
        ('xyxy', [50, 40, 90, 70], [50, 40, 90, 40, 90, 70]),
        ('xyxy', ['50', 40, 90, 70], None),
        ('normalized', [0.5, 0.5, 0.4, 0.375], None),
        (
            'normalized',
            [0.5, 0.5, 0.4, 0.375],
            [0.5, 0.5, 0.9, 0.5, 0.9, 0.875],
        ),
        ('normalized', [0.5, 0.5, 0.4, 0.375], [50, 40, 90, 40, 90, 70]),
    ],
)
def test_boxes_of_another_kind(image, boxes, box, outline):
    """The check names the option; the first boxes are refused without."""
    annotation = dict(bbox=box)
    annotation['segmentation'] = [outline] if outline else []
    coco_file(image, [annotation])
    with pytest.raises(DatasetError, match=f'--boxes {boxes} converts them'):
        read(image)
    found = read(image, boxes=boxes)
    assert objects(found) == {'a.jpg': [('cat', 50, 40, 40, 30)]}
    if outline:
        (instance,) = found.samples[0].instances
        assert instance.segmentation == [[50, 40, 90, 40, 90, 70]]


def test_boxes_of_another_kind_that_are_broken(image):
    """Counted as those of COCO are."""
    coco_file(
        image,
        [
            dict(bbox=[0.5, 0.5, 0.4, 0.375]),
            dict(bbox=[0.5, None, 0.4, 0.375]),
            dict(bbox=7),
            dict(bbox=[0.5, 0.5, 0.001, 0.1], segmentation=[[1, 2], 'x']),
        ],
    )
    found = read(image, boxes='normalized')
    counts = {reason: len(names) for reason, names in found.notes.items()}
    assert counts == {'no box': 2, 'tiny box': 1, 'segmentation': 1}
    assert len(found.samples[0].instances) == 1


@pytest.mark.parametrize('difficult', ['keep', 'ignore', 'drop'])
def test_difficult_objects(image, difficult):
    voc_file(image)
    text = (image / 'a.xml').read_text()
    hard = text[text.index('<object>') : text.index('</annotation>')]
    hard = hard.replace('<bndbox>', '<difficult>1</difficult><bndbox>')
    hard = hard.replace('>30<', '>40<')
    text = text.replace('</annotation>', f'{hard}</annotation>')
    (image / 'a.xml').write_text(text)
    found = read(image, difficult=difficult)
    crowds = dict(keep=[0, 0], ignore=[0, 1], drop=[0])[difficult]
    assert [i.iscrowd for i in found.samples[0].instances] == crowds
    ((reason, names),) = found.notes.items()
    assert reason.startswith('object marked difficult')
    assert names == ['a.xml: object 2']


def test_boxes_are_cut_at_the_border(image):
    coco_file(
        image,
        [dict(bbox=[-5, 70, 20, 20], segmentation=[[-5, 70, 15, 70, 15, 90]])],
    )
    found = read(image)
    (instance,) = found.samples[0].instances
    assert instance.bbox == (0, 70, 15, 10)
    (outline,) = instance.segmentation
    assert outline == pytest.approx([0, 70, 15, 70, 15, 80, 5, 80, 0, 75])
    assert list(found.notes) == ['box cut at the border of its image (kept)']


@pytest.mark.parametrize(
    'points',
    [
        [(50, 50), (250, 50), (50, 250)],
        [(-30, 10), (40, -20), (130, 60), (20, 110)],
        [(-20, -20), (120, 40), (-20, 100), (50, 40)],
        [(-50, -50), (150, -50), (150, 150), (-50, 150)],
    ],
)
def test_polygons_are_cut_at_the_border(image, points):
    """As pycocotools draws them where they are not cut."""
    labelme_file(image, dict(label='cat', points=points))
    (instance,) = read(image).samples[0].instances
    drawn, wanted = (
        rle.decode(rle.merge(rle.frPyObjects(outline, 80, 100)))
        for outline in (instance.segmentation, [np.ravel(points).tolist()])
    )
    assert (drawn != wanted).mean() < 0.005
    assert area(instance) == pytest.approx(wanted.sum(), rel=0.02)


def test_a_part_outside_of_the_image_is_left_out(image):
    parts = [[10, 10, 30, 10, 30, 30], [-9, 10, -5, 10, -5, 30]]
    coco_file(image, [dict(GOOD, segmentation=parts)])
    (instance,) = read(image).samples[0].instances
    assert instance.segmentation == parts[:1]


def test_masks_and_crowds_are_kept(image):
    pixels = np.zeros((80, 100), np.uint8, order='F')
    pixels[10:30, 10:30] = 1
    encoded = rle.encode(pixels)['counts'].decode()
    counts = [810, *[20, 60] * 19, 20, 8000 - 810 - 20 * 20 - 19 * 60]
    coco_file(
        image,
        [
            dict(
                bbox=[10, 10, 20, 20],
                segmentation=dict(size=[80, 100], counts=value),
                iscrowd=crowd,
            )
            for value, crowd in ((encoded, 0), (counts, 1))
        ],
    )
    instances = read(image).samples[0].instances
    assert [i.iscrowd for i in instances] == [False, True]
    for instance in instances:
        assert area(instance) == 400
        assert (rle.decode(instance.segmentation) == pixels).all()


def test_image_of_another_size(image):
    coco_file(image, [GOOD])
    Image.new('RGB', (50, 40)).save(image / 'a.jpg')
    with pytest.raises(
        DatasetError, match='a.jpg is 50x40, annotated at 100x80'
    ):
        read(image)


@pytest.mark.parametrize('size', [('100', '80'), (100.0, '80.0'), ('x', 1)])
def test_sizes_as_text(image, size):
    shape = dict(label='cat', points=[[10, 10], [30, 10], [30, 30]])
    labelme_file(image, shape, imageWidth=size[0], imageHeight=size[1])
    assert len(read(image).samples) == 1


@pytest.mark.parametrize('stored', [False, True])
@pytest.mark.parametrize('writer', ['coco', 'labelme'])
def test_turned_image(image, writer, stored):
    """The size is that of the pixels that were annotated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    size = (100, 80) if stored else (80, 100)
    Image.new('RGB', size).save(image / 'a.jpg', exif=exif)
    if writer == 'coco':
        coco_file(image, [GOOD])
    else:
        shape = dict(
            label='cat', shape_type='rectangle', points=[[10, 10], [30, 30]]
        )
        labelme_file(image, shape, imageWidth=100, imageHeight=80)
    (sample,) = read(image).samples
    assert (sample.width, sample.height) == (100, 80)
    assert sample.stored == stored
    assert sample.instances[0].bbox == (10, 10, 20, 20)


def test_broken_image(image):
    coco_file(image, [GOOD])
    (image / 'a.jpg').write_bytes(b'nothing')
    with pytest.raises(DatasetError, match='broken image: a.jpg'):
        read(image)


def test_truncated_image(image):
    """Its head alone is right."""
    coco_file(image, [GOOD])
    (image / 'coco.json').rename(image / 'instances.json')
    formats.write_coco(formats.pictures(4), image / 'more')
    path = image / 'a.jpg'
    pixels = np.random.RandomState(0).randint(256, size=(80, 100, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    found = read(image)
    assert len(found.samples) == 4
    (name,) = found.notes['broken image']
    assert name.startswith('a.jpg: truncated')


def test_an_image_beyond_the_limit_of_pillow(image, monkeypatch):
    coco_file(image, [GOOD])
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(DatasetError, match='limit of 2000 .* smaller'):
        read(image)


def test_no_program_is_started_for_an_image(image):
    """Pillow hands EPS to Ghostscript, whatever the file's name is."""
    coco_file(image, [GOOD])
    (image / 'a.jpg').write_bytes(
        b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 80\n%%EndComments\n'
    )
    with pytest.raises(DatasetError, match='broken image'):
        read(image)


@pytest.mark.parametrize(
    'name', ['../a.jpg', '/etc/a.jpg', 'C:\\x\\a.jpg', '..\\..\\a.jpg']
)
def test_names_never_lead_outside(tmp_path, name):
    """The image is the one below the folder, or none."""
    root = tmp_path / 'data'
    root.mkdir()
    Image.new('RGB', (100, 80)).save(tmp_path / 'a.jpg')
    Image.new('RGB', (100, 80)).save(root / 'b.jpg')
    coco_file(root, [GOOD])
    content = json.loads((root / 'coco.json').read_text())
    content['images'][0]['file_name'] = name
    (root / 'coco.json').write_text(json.dumps(content))
    with pytest.raises(DatasetError, match='image not found'):
        read(root)
    Image.new('RGB', (100, 80)).save(root / 'a.jpg')
    (sample,) = read(root).samples
    assert sample.image == root / 'a.jpg'


def test_images_of_the_same_name(tmp_path):
    """The folders of the name decide."""
    for folder in ('x', 'y'):
        (tmp_path / folder).mkdir()
        Image.new('RGB', (100, 80)).save(tmp_path / folder / 'a.jpg')
    coco_file(tmp_path, [GOOD])
    with pytest.raises(DatasetError, match='image not found'):
        read(tmp_path)
    content = json.loads((tmp_path / 'coco.json').read_text())
    content['images'][0]['file_name'] = 'somewhere/y/a.jpg'
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    found = read(tmp_path)
    assert found.samples[0].image == tmp_path / 'y/a.jpg'
    assert found.notes == {'image without usable annotation': ['x/a.jpg']}


def annotate(root, form, names):
    """Of each name one object, of a class that is called like its folder."""
    label = [name.split('/')[0].strip('.') or 'cat' for name in names]
    if form == 'coco':
        content = dict(
            images=[
                dict(id=i, file_name=n, width=100, height=80)
                for i, n in enumerate(names)
            ],
            categories=[dict(id=i, name=n) for i, n in enumerate(label)],
            annotations=[
                dict(id=i, image_id=i, category_id=i, bbox=[10, 10, 20, 20])
                for i, _ in enumerate(names)
            ],
        )
        (root / 'coco.json').write_text(json.dumps(content))
    elif form == 'cvat':
        elements = ''.join(
            f'<image name="{name}"><box label="{label[i]}" xtl="10" ytl="10" '
            'xbr="30" ybr="30"/></image>'
            for i, name in enumerate(names)
        )
        (root / 'a.xml').write_text(f'<annotations>{elements}</annotations>')
    elif form == 'voc':
        for i, name in enumerate(names):
            folder = (root / 'Annotations' / name).parent
            folder.mkdir(parents=True)
            voc_file(folder, name=label[i])
    else:
        box = dict(x=10, y=10, width=20, height=20)
        tasks = [
            dict(
                data=dict(image=f's3://bucket/{name}'),
                annotations=[
                    dict(result=[dict(value={**box, 'rectanglelabels': [n]})])
                ],
            )
            for name, n in zip(names, label)
        ]
        (root / 'a.json').write_text(json.dumps(tasks))


FORMS = ['coco', 'cvat', 'voc', 'label_studio']


@pytest.mark.parametrize('form', FORMS)
def test_a_missing_image_gives_its_objects_to_no_other(tmp_path, form):
    """Of the same name in another folder, which has its own."""
    (tmp_path / 'images/cam2').mkdir(parents=True)
    Image.new('RGB', (100, 80)).save(tmp_path / 'images/cam2/a.jpg')
    annotate(tmp_path, form, ['cam1/a.jpg', 'cam2/a.jpg'])
    found = read(tmp_path)
    (sample,) = found.samples
    assert [i.label for i in sample.instances] == ['cam2']
    assert len(found.notes['image not found']) == 1


def test_uploads_of_one_image_to_two_projects(image):
    """Label Studio numbers the projects: these are no folders of images."""
    label_studio_file(image, dict(x=1, y=1, width=9, height=9, labels=['cat']))
    text = (image / 'export.json').read_text()
    for project in '12':
        address = f'/data/upload/{project}/0123abc{project}-a.jpg'
        own = text.replace('/data/local-files/?d=photos/a.jpg', address)
        (image / f'{project}.json').write_text(own)
    (image / 'export.json').unlink()
    notes = read(image).notes
    assert notes == {'image annotated twice': ['2.json: task 1']}


@pytest.mark.parametrize('form', FORMS)
def test_images_of_one_name_in_two_folders(tmp_path, form):
    for folder in ('cam1', 'cam2'):
        (tmp_path / 'images' / folder).mkdir(parents=True)
        file = tmp_path / 'images' / folder / 'a.jpg'
        Image.new('RGB', (100, 80)).save(file)
    annotate(tmp_path, form, ['cam2/a.jpg', 'cam1/a.jpg'])
    found = read(tmp_path)
    assert {
        sample.image.parent.name: [i.label for i in sample.instances]
        for sample in found.samples
    } == dict(cam1=['cam1'], cam2=['cam2'])
    assert not found.notes


@pytest.mark.parametrize('form', FORMS)
def test_two_names_that_fit_one_image_are_refused(image, form):
    annotate(image, form, ['cam1/a.jpg', 'cam2/a.jpg'])
    with pytest.raises(DatasetError, match=r'cam1/a.*cam2/a.*put the images'):
        read(image)


def test_spellings_of_one_name(image):
    names = ['a.jpg', './a.jpg', 'x//a.jpg', '/home/me/x/a.jpg']
    annotate(image, 'coco', names)
    (sample,) = read(image).samples
    assert {i.label for i in sample.instances} == {'a.jpg', 'cat', 'x'}
    annotate(image, 'coco', [*names, 'D:\\x\\a.jpg'])
    with pytest.raises(DatasetError, match='put the images'):
        read(image)


@pytest.mark.parametrize(
    'name', ['Bär 1.jpg', 'bär 1.JPG', 'x/B%C3%A4r%201.jpg']
)
@pytest.mark.parametrize('form', FORMS)
def test_names_in_other_spellings(tmp_path, form, name):
    """macOS writes the dots of umlauts apart."""
    stem = unicodedata.normalize('NFD', 'Bär 1')
    Image.new('RGB', (100, 80)).save(tmp_path / f'{stem}.jpg')
    annotate(tmp_path, form, [name])
    if form == 'voc':
        (file,) = tmp_path.rglob('a.xml')
        file.rename(file.with_name(name.split('/')[-1]).with_suffix('.xml'))
    assert [s.image.stem for s in read(tmp_path).samples] == [stem]


def test_names_that_differ_in_case(tmp_path):
    """The one that is spelt so, but rather the one in that folder."""
    for name in ('x/A.jpg', 'x/a.jpg', 'y/A.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (100, 80)).save(tmp_path / name)
    source = Source(tmp_path)
    for name, file in {
        'x/a.jpg': 'x/a.jpg',
        'x/A.jpg': 'x/A.jpg',
        'x/A': 'x/A.jpg',
        'y/a.jpg': 'y/A.jpg',
        'a.jpg': 'x/a.jpg',
        'A.JPG': None,
    }.items():
        found = source.find_image(name, tmp_path / 'coco.json')
        assert found == (file and tmp_path / file)


def test_linked_folders_are_read_once(tmp_path):
    formats.write_coco(formats.pictures(), tmp_path / 'real')
    os.symlink(tmp_path / 'real', tmp_path / 'real/loop')
    assert len(read(tmp_path / 'real').samples) == 10


def test_links_to_nothing_are_named(tmp_path):
    """A label file that is gone would make an image background."""
    formats.write_yolo_flat(formats.pictures(), tmp_path)
    (tmp_path / 'new.txt').symlink_to(tmp_path / 'gone.txt')
    with pytest.raises(DatasetError, match='1 files are links.*/new.txt. Co'):
        read(tmp_path)


ENTITIES = """<!DOCTYPE annotation [
<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c SYSTEM "file:///etc/passwd">]>"""


def voc_file(root, prolog='', name='cat', coding='utf-8', more=''):
    text = (
        f'{prolog}<annotation><object><name>{name}</name><bndbox>'
        '<xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>30</ymax>'
        f'</bndbox></object>{more}</annotation>'
    )
    (root / 'a.xml').write_text(text, coding)


def test_voc_counted_from_zero(image):
    """As Label Studio and Datumaro write it: a box at 0 tells."""
    at_zero = (
        '<object><name>dog</name><bndbox><xmin>0</xmin><ymin>5</ymin>'
        '<xmax>7</xmax><ymax>9</ymax></bndbox></object>'
    )
    voc_file(image, more=at_zero)
    found = read(image)
    assert objects(found) == {
        'a.jpg': [('cat', 11, 11, 19, 19), ('dog', 0, 5, 7, 4)]
    }
    assert found.notes == {
        'boxes counted from 0 (kept so)': ['a.xml: object 2']
    }


def test_an_image_annotated_twice(image):
    """What lies beside it wins, then Annotations, whatever sorts first."""
    for folder, label in {
        'Annotations': 'cat',
        'A backup': 'old cat',
        '.': 'the cat',
    }.items():
        (image / folder).mkdir(exist_ok=True)
        voc_file(image / folder, name=label)
        shape = dict(label=label, points=[[1, 1], [9, 1], [9, 9]])
        labelme_file(image / folder, shape)
    for format, suffix in dict(voc='xml', labelme='json').items():
        found = read(image, format=format)
        assert found.classes == ['the cat']
        assert found.notes == {
            'image annotated twice': [
                f'Annotations/a.{suffix}',
                f'A backup/a.{suffix}',
            ]
        }
        (image / f'a.{suffix}').unlink()
        found = read(image, format=format)
        assert found.classes == ['cat']
        assert [len(s.instances) for s in found.samples] == [1]


def test_voc_boxes_with_exchanged_corners(image):
    voc_file(image)
    text = (image / 'a.xml').read_text()
    for side in 'xy':
        text = text.replace(f'{side}min', f'{side}m')
        text = text.replace(f'{side}max', f'{side}min')
        text = text.replace(f'{side}m>', f'{side}max>')
    (image / 'a.xml').write_text(text)
    found = read(image)
    assert objects(found) == {'a.jpg': [('cat', 10, 10, 20, 20)]}
    assert found.notes == {
        'box with exchanged corners (kept)': ['a.xml: object 1']
    }


@pytest.mark.parametrize('coding', ['utf-8', 'utf-16'])
def test_xml_entities_are_refused(image, coding):
    voc_file(image, coding=coding)
    assert objects(read(image)) == {'a.jpg': [('cat', 10, 10, 20, 20)]}
    for name in ('cat', '&b;', '&c;'):
        voc_file(image, ENTITIES, name, coding)
        with pytest.raises(DatasetError, match='broken annotation file'):
            read(image, format='voc')


def yolo_file(root, text, settings='names: [cat, dog]'):
    (root / 'a.txt').write_text(text)
    (root / 'data.yaml').write_text(settings)


@pytest.mark.parametrize(
    ('line', 'reason'),
    [
        ('2 .5 .5 .1 .1', 'unknown class number'),
        ('-1 .5 .5 .1 .1', 'unknown class number'),
        ('0.5 .5 .5 .1 .1', 'unknown class number'),
        ('0 50 50 10 10', 'box that is not in parts of the image'),
        (
            '0 .5 .5 .2 .2 .4 .4 2 .5 .5 1 .6 .6 2',
            'points that are not in parts of the image (if they are key '
            'points, data.yaml needs kpt_shape)',
        ),
        ('0 .5 .5 .1', 'line that is no YOLO label'),
        ('0 .5 nan .1 .1', 'line that is no YOLO label'),
        ('cat .5 .5 .1 .1', 'line that is no YOLO label'),
    ],
)
def test_bad_yolo_lines_are_counted(image, line, reason):
    yolo_file(image, f'1 .5 .5 .2 .25\n{line}\n')
    found = read(image)
    assert found.notes == {reason: ['a.txt: line 2']}
    assert objects(found) == {'a.jpg': [('dog', 40, 30, 20, 20)]}


def test_yolo_labels_without_image_are_counted(image):
    yolo_file(image, '1 .5 .5 .2 .25\n')
    (image / 'gone.txt').write_text('\n1 .5 .5 .2 .25\n')
    (image / 'README.txt').write_text('1 dog')
    assert read(image).notes == {'label file without image': ['gone.txt']}


def test_yolo_lines_with_more_values(image):
    """A score, key points, a polygon with a score."""
    settings = 'names: {1: dog, 0: cat}\nkpt_shape: [2, 3]'
    points = '.1 .1 .3 .1 .3 .5'
    yolo_file(
        image,
        f'1 .5 .5 .2 .25 .9\n0 .5 .5 .2 .25 {"0 " * 6}\n0 {points} .9\n',
        settings,
    )
    found = read(image)
    assert not found.notes
    assert found.classes == ['cat', 'dog']
    boxes = [(i.label, *i.bbox) for i in found.samples[0].instances]
    assert boxes[:2] == [('dog', 40, 30, 20, 20), ('cat', 40, 30, 20, 20)]
    assert boxes[2][1:] == pytest.approx((10, 8, 20, 32))


def test_a_repeated_object_counts_once(image):
    yolo_file(image, '0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n0 .5 .5 .1 .1\n')
    found = read(image)
    assert [label for label, *_ in objects(found)['a.jpg']] == ['cat', 'dog']
    assert found.notes == {'object annotated twice': ['a.txt: line 3']}


def test_yaml_runs_no_code(image):
    target = image / 'made'
    yolo_file(
        image,
        '0 .5 .5 .1 .1',
        f'names: !!python/object/apply:os.mkdir [{target}]',
    )
    read(image)
    assert not target.exists()


def test_yaml_words_are_names(image):
    names = ['yes', 'no', 'null', '1', '1.10', '2024-01-01']
    settings = f'names: [{", ".join(names)}]'
    yolo_file(image, '0 .5 .5 .1 .1', settings)
    assert read(image).classes == names


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ('{0: cat, 2: dog}', 'must be 0 to 1'),
        ('[[cat]]', 'must be a list of names'),
        ('[cat, cat]', "'cat' is there twice"),
        ('[cat, ""]', 'is there twice or empty'),
    ],
)
def test_bad_class_names(image, names, message):
    yolo_file(image, '0 .5 .5 .1 .1', f'names: {names}')
    with pytest.raises(DatasetError, match=message):
        read(image)


def test_yolo_classes_by_option(image):
    (image / 'a.txt').write_text('1 .5 .5 .1 .1')
    with pytest.raises(DatasetError, match='--classes NAME NAME'):
        read(image)
    assert read(image, classes=['cat', 'dog']).classes == ['cat', 'dog']
    (image / 'classes.txt').write_text('a\nb\n')
    with pytest.raises(DatasetError, match='names its classes: a, b'):
        read(image, classes=['cat', 'dog'])


def test_yolo_class_lists_that_differ(image):
    for folder, names in dict(train='cat\ndog\n', val='dog\ncat\n').items():
        (image / folder).mkdir()
        (image / folder / 'classes.txt').write_text(names)
    (image / 'a.txt').write_text('0 .5 .5 .1 .1')
    with pytest.raises(DatasetError, match='classes in different ways'):
        read(image)
    (image / 'val/classes.txt').write_text('cat\ndog')
    wanted = {'a.jpg': [('cat', 45, 36, 10, 8)]}
    assert objects(read(image)) == wanted
    for name in ('val/data.yaml', 'data.yaml'):
        (image / name).write_text('names: [dog, cat]')
        with pytest.raises(DatasetError, match='classes in different ways'):
            read(image)
        (image / name).write_text('names: {0: "cat ", 1: dog}')
        assert objects(read(image)) == wanted


@pytest.mark.parametrize('line', ['\n', ' \n'])
def test_a_blank_line_among_class_names(image, line):
    """Tools differ in whether it has a number; at the end it is harmless."""
    (image / 'a.txt').write_text('1 .5 .5 .1 .1')
    (image / 'classes.txt').write_text(f'cat\ndog\n{line}{line}')
    assert objects(read(image)) == {'a.jpg': [('dog', 45, 36, 10, 8)]}
    (image / 'classes.txt').write_text(f'cat\n{line}dog\n')
    with pytest.raises(DatasetError, match='classes.txt: line 2 is blank'):
        read(image)


@pytest.mark.parametrize('line', ['img 0', 'img 0.jpg', '\ufeffimg 0  -1'])
def test_voc_lists_of_images(tmp_path, line):
    formats.write_voc(formats.pictures(2), tmp_path)
    folder = tmp_path / 'ImageSets/Main'
    folder.mkdir(parents=True, exist_ok=True)
    for name in ('train', 'val', 'test'):
        (folder / f'{name}.txt').unlink(missing_ok=True)
    (folder / 'val.txt').write_text(line + '\n')
    splits = {s.image.stem: s.split for s in read(tmp_path).samples}
    assert splits == {'img 0': 'val', 'img 1': ''}


def test_yolo_image_without_labels_is_background(image):
    Image.new('RGB', (9, 9)).save(image / 'b.jpg')
    yolo_file(image, '0 .5 .5 .1 .1')
    assert [len(s.instances) for s in read(image).samples] == [1, 0]


def test_yolo_labels_of_one_split_are_not_those_of_another(tmp_path):
    """Names may be the same; val's image is background."""
    for split in ('train', 'val'):
        (tmp_path / split / 'images').mkdir(parents=True)
        (tmp_path / split / 'labels').mkdir()
        for name in 'ab':
            file = tmp_path / split / 'images' / f'{name}.jpg'
            Image.new('RGB', (100, 80)).save(file)
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]')
    for file in ('train/labels/a', 'train/labels/b', 'val/labels/a'):
        (tmp_path / f'{file}.txt').write_text('0 .5 .5 .1 .1')
    found = read(tmp_path)
    assert not found.notes
    assert [len(s.instances) for s in found.samples] == [1, 1, 1, 0]


@pytest.mark.parametrize('folders', ['images labels', 'photos txt'])
def test_yolo_labels_of_one_folder_are_not_those_of_another(tmp_path, folders):
    """Cameras number their images alike; without a file is background."""
    images, labels = folders.split()
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]')
    for camera, names in dict(cam1='ab', cam2='a').items():
        for name in 'ab':
            file = tmp_path / images / camera / f'{name}.jpg'
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (100, 80)).save(file)
        for name in names:
            file = tmp_path / labels / camera / f'{name}.txt'
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f'{int(camera[-1]) - 1} .5 .5 .1 .1')
    found = read(tmp_path)
    labels_found = [[i.label for i in s.instances] for s in found.samples]
    assert labels_found == [['cat'], ['cat'], ['dog'], []]
    assert not found.notes


def test_yolo_runs_and_predictions_are_no_labels(tmp_path):
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]')
    run = 'runs/detect/exp2'
    for name in ('images/a.jpg', 'images/b.jpg', f'{run}/b.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (100, 80)).save(tmp_path / name)
    for name in ('labels/a', f'{run}/labels/b', 'found/b'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        score = '' if name == 'labels/a' else ' .3'
        (tmp_path / f'{name}.txt').write_text(f'0 .5 .5 .1 .1{score}')
    found = read(tmp_path)
    assert [len(s.instances) for s in found.samples] == [1, 0]
    assert found.notes == {
        'file of a run of Ultralytics (in runs/)': [
            f'{run}/b.jpg',
            f'{run}/labels/b.txt',
        ],
        'label file of predictions, with scores': ['found/b.txt'],
    }


@pytest.mark.parametrize('labels', ['labels', 'txt'])
def test_yolo_drawings_are_no_background(tmp_path, labels):
    """They have the names of the images, and show the objects."""
    (tmp_path / 'data.yaml').write_text('names: [cat, dog]')
    for folder in ('drawn', 'images', labels):
        (tmp_path / folder).mkdir()
    for folder in ('drawn', 'images'):
        Image.new('RGB', (100, 80)).save(tmp_path / folder / 'a.jpg')
    (tmp_path / labels / 'a.txt').write_text('0 .5 .5 .1 .1')
    found = read(tmp_path)
    assert [s.image.parent.name for s in found.samples] == ['images']
    assert found.notes == {'image named as one in images/': ['drawn/a.jpg']}


def test_yolo_label_file_is_of_one_image(tmp_path):
    """By its stem alone, where it could be of two images, it is of none."""
    yolo_file(tmp_path, '0 .5 .5 .1 .1')
    for name in ('b', 'b.5'):
        (tmp_path / f'{name}.txt').write_text('1 .5 .5 .1 .1')
    for name in ('x/a', 'y/a', 'x/b'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new('RGB', (100, 80)).save(tmp_path / f'{name}.jpg')
    found = read(tmp_path)
    assert [len(s.instances) for s in found.samples] == [0, 1, 0]
    unused = found.notes['label file without image']
    assert unused == ['a.txt', 'b.5.txt']


@pytest.mark.parametrize(
    ('settings', 'splits'),
    [
        ('train: images/day1\nval: images/day2', ['train', 'val', '']),
        (
            'train: /home/me/cells/day1\nval: [D:\\x\\day2]',
            ['train', 'val', ''],
        ),
        ('train: ../images\nval: ../images/day2', ['train', 'val', 'train']),
        # A folder that is not there names none of another split.
        ('train: ../images\nval: ../valid/images', ['train'] * 3),
        ('train: a.txt\nval: lists/b.txt', ['', 'train', 'val']),
        ('train: 5\nval: ../..', ['', '', '']),
    ],
)
def test_yolo_splits(tmp_path, settings, splits):
    for folder in ('day1', 'day2', 'day3'):
        (tmp_path / 'images' / folder).mkdir(parents=True)
        file = tmp_path / 'images' / folder / f'{folder}.jpg'
        Image.new('RGB', (100, 80)).save(file)
        file.with_suffix('.txt').write_text('0 .5 .5 .1 .1')
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'lists/a.txt').write_text('./images/day2/day2.jpg\n')
    (tmp_path / 'lists/b.txt').write_text('./images/day3/day3.jpg\n')
    (tmp_path / 'data.yaml').write_text(f'names: [cat]\n{settings}')
    assert [s.split for s in read(tmp_path).samples] == splits
    (tmp_path / 'autosplit_test.txt').write_text('./images/day1/day1.jpg')
    assert read(tmp_path).samples[0].split == 'test'


def test_coco_file_of_one_split_does_not_list_images_of_another(tmp_path):
    """By its name, if that split has a folder."""
    (tmp_path / 'train').mkdir()
    for name in ('train/a.jpg', 'train/b.jpg'):
        Image.new('RGB', (100, 80)).save(tmp_path / name)
    for split, names in dict(train='a', val='b').items():
        (tmp_path / f'{split}.json').write_text(
            json.dumps(
                dict(
                    images=[dict(id=1, file_name=f'{n}.jpg') for n in names],
                    categories=[dict(id=1, name='cat')],
                    annotations=[
                        dict(
                            id=1, image_id=1, category_id=1, bbox=[1, 1, 9, 9]
                        )
                    ],
                )
            )
        )
    assert {s.image.stem: s.split for s in read(tmp_path).samples} == {
        'a': 'train',
        'b': 'val',
    }
    (tmp_path / 'val').mkdir()
    Image.new('RGB', (100, 80)).save(tmp_path / 'val/c.jpg')
    found = read(tmp_path)
    assert found.notes['image not found'] == ['val.json: b.jpg']
    assert [s.image.stem for s in found.samples] == ['a']


def test_voc_file_of_one_split_is_not_that_of_another(tmp_path):
    for split, names in dict(train='a', val='ab').items():
        (tmp_path / split).mkdir()
        for name in names:
            Image.new('RGB', (100, 80)).save(tmp_path / split / f'{name}.jpg')
        for name in 'ab':
            (tmp_path / split / f'{name}.xml').write_text(
                '<annotation><object><name>cat</name><bndbox><xmin>1</xmin>'
                '<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>'
                '</annotation>'
            )
    found = read(tmp_path)
    assert found.notes == {'image not found': ['train/b.xml']}
    assert [len(s.instances) for s in found.samples] == [1, 1, 1]


def test_xml_of_an_unknown_encoding(tmp_path):
    formats.write_voc(formats.pictures(2), tmp_path)
    (tmp_path / 'Annotations/odd.xml').write_text(
        '<?xml version="1.0" encoding="foo"?><annotation/>'
    )
    notes = read(tmp_path).notes
    assert notes['broken annotation file'] == ['Annotations/odd.xml']


def labelme_file(root, *shapes, **size):
    content = dict(shapes=shapes, imagePath='a.jpg', **size)
    (root / 'a.json').write_text(json.dumps(content))


def test_labelme_shapes(image):
    shape = dict(
        label='cat', shape_type='rectangle', points=[[30, 30], [10, 20]]
    )
    circle = dict(
        label='dog', shape_type='circle', points=[[50, 40], [53, 44]]
    )
    line = dict(label='dog', shape_type='line', points=[[1, 1], [2, 2]])
    broken = dict(label='dog', shape_type='polygon', points=[[1, 1], [2]])
    short = dict(label='dog', shape_type='polygon', points=[[1, 1], [2, 2]])
    labelme_file(image, shape, circle, line, broken, short, 'x')
    found = read(image)
    rectangle, disc = found.samples[0].instances
    assert rectangle.bbox == (10, 20, 20, 10)
    assert disc.bbox == pytest.approx((45, 35, 10, 10))
    assert area(disc) == pytest.approx(np.pi * 25, rel=0.01)
    assert {reason: len(names) for reason, names in found.notes.items()} == {
        'shape of type line': 1,
        'shape without readable points': 3,
    }


def test_labelme_groups(image):
    """Shapes of one label and group are an object, as in labelme2coco."""
    box = dict(shape_type='rectangle', points=[[10, 20], [30, 30]], group_id=1)
    triangle = dict(points=[[40, 10], [60, 10], [50, 20]], group_id=1)
    labelme_file(
        image,
        dict(label='cat', **box),
        dict(label='dog', **box),
        dict(label='cat', **triangle),
        dict(label='cat', **{**triangle, 'group_id': None}),
        dict(label='__ignore__', **triangle),
    )
    found = read(image)
    assert objects(found)['a.jpg'] == [
        ('cat', 10, 10, 50, 20),
        ('cat', 40, 10, 20, 10),
        ('dog', 10, 20, 20, 10),
    ]
    cat = next(i for i in found.samples[0].instances if i.bbox[2] == 50)
    assert area(cat) == 200 + 100
    assert found.notes == {
        'shape joined to another one of its group (kept)': ['a.json: shape 3'],
        'shape that is labelled __ignore__': ['a.json: shape 5'],
    }


def test_labelme_shapes_that_all_have_one_group(image):
    """A slip of the hand, more likely than one object of many parts."""
    boxes = [[[x, 10], [x + 5, 20]] for x in (10, 20, 30)]
    shape = dict(label='cat', shape_type='rectangle', group_id=0)
    labelme_file(image, *(dict(shape, points=points) for points in boxes))
    found = read(image)
    assert len(found.samples[0].instances) == 1
    joined, warning = found.notes
    assert len(found.notes[joined]) == 2
    assert 'one group has all shapes' in warning


def test_labelme_masks(image):
    """A PNG of the box, both corners included; also as a part of a group."""
    mask = np.zeros((3, 4), np.uint8)
    mask[0, 1:3] = mask[2, 3] = 1
    png = BytesIO()
    Image.fromarray(mask * 255).save(png, 'PNG')
    shape = dict(
        label='cat',
        shape_type='mask',
        points=[[10, 20], [13, 22]],
        mask=b64encode(png.getvalue()).decode(),
    )
    box = dict(
        label='dog', shape_type='rectangle', points=[[30, 30], [34, 35]]
    )
    group = dict(label='dog', group_id=1)
    broken = [
        {**shape, 'points': [[10, 20], [30, 30]]},
        {**shape, 'mask': 'no base64!'},
        {**shape, 'mask': b64encode(b'no image').decode()},
    ]
    labelme_file(image, shape, {**shape, **group}, {**box, **group}, *broken)
    found = read(image)
    cat, both = found.samples[0].instances
    pixels = np.zeros((80, 100), np.uint8)
    pixels[20:23, 10:14] = mask
    assert (rle.decode(cat.segmentation) == pixels).all()
    assert cat.bbox == (11, 20, 3, 3)
    pixels[30:35, 30:34] = 1
    assert (rle.decode(both.segmentation) == pixels).all()
    assert both.bbox == (10, 20, 24, 15) or both.bbox == (11, 20, 23, 15)
    assert len(found.notes['shape without readable points']) == 3


def cvat_file(root, *shapes, meta='', width=100, name='x/a.jpg'):
    (root / 'annotations.xml').write_text(
        f'<annotations><meta>{meta}</meta><image id="0" name="{name}" '
        f'width="{width}" height="80">{"".join(shapes)}</image></annotations>'
    )


def test_cvat_shapes(image):
    """Turned clockwise, in degrees, about the center; masks row by row."""
    cvat_file(
        image,
        '<box label="dog" xtl="40" ytl="30" xbr="60" ybr="40" rotation="90"/>',
        '<ellipse label="cat" cx="50" cy="40" rx="20" ry="5" rotation="90"/>',
        '<mask label="cat" left="10" top="20" width="4" height="3" '
        'rle="1, 2, 8, 1"/>',
        '<tag label="dog"/>',
        '<polyline label="dog" points="1,1;2,2"/>',
        '<polygon label="dog" points="1,1;2,x"/>',
        '<box label="" xtl="1" ytl="1" xbr="9" ybr="9"/>',
        '<mask label="cat" left="1" top="2" width="4" height="3" rle="5,2"/>',
        '<mask label="cat" left="1" top="2" width="9999999" height="9999999" '
        'rle="99999980000001"/>',
        meta='<job><labels><label><name>dog</name></label></labels></job>',
    )
    found = read(image)
    assert found.classes == ['dog', 'cat']
    box, ellipse, mask = found.samples[0].instances
    assert box.bbox == pytest.approx((45, 25, 10, 20))
    assert ellipse.bbox == pytest.approx((45, 20, 10, 40))
    pixels = np.zeros((80, 100), np.uint8)
    pixels[20, 11:13] = pixels[22, 13] = 1
    assert (rle.decode(mask.segmentation) == pixels).all()
    assert {reason: len(names) for reason, names in found.notes.items()} == {
        'shape of type polyline': 1,
        'shape without readable label or points': 4,
    }


def test_cvat_absolute_names(image):
    box = '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    cvat_file(image, box, name='/home/me/val/a.jpg')
    assert [s.split for s in read(image).samples] == ['val']


def test_cvat_size_and_broken_files(image):
    cvat_file(image, '<box label="a" xtl="1" ytl="1" xbr="9" ybr="9"/>')
    (image / 'b.xml').write_text('<annotations><image')
    assert 'broken annotation file' in read(image).notes
    cvat_file(image, width=50)
    with pytest.raises(DatasetError, match='another size than annotated'):
        read(image)


def test_cvat_video(image):
    (image / 'annotations.xml').write_text(
        '<annotations><track id="0" label="cat"/></annotations>'
    )
    with pytest.raises(DatasetError, match='CVAT for images'):
        read(image)


def label_studio_file(root, *values, **task):
    results = [dict(value=value, type='x') for value in values]
    task = dict(
        dict(
            id=1,
            data=dict(image='/data/local-files/?d=photos/a.jpg'),
            annotations=[dict(result=results)],
        ),
        **task,
    )
    (root / 'export.json').write_text(json.dumps([task]))


def test_label_studio_image_beside_other_fields(image):
    """A number or a text may be the name of another image, too."""
    Image.new('RGB', (100, 80)).save(image / '12.jpg')
    box = dict(x=5, y=5, width=20, height=10, rectanglelabels=['cat'])
    address = '/data/upload/1/0a1b2c3d-a.jpg'
    label_studio_file(image, box, data=dict(index='12', image=address))
    assert [s.image.name for s in read(image).samples] == ['a.jpg']


def test_label_studio_region_of_two_labels(image):
    box = dict(x=5, y=5, width=20, height=10, rectanglelabels=['cat', 'dog'])
    label_studio_file(image, box)
    found = read(image)
    assert [i.label for s in found.samples for i in s.instances] == ['cat']
    (where,) = found.notes['further label of an object']
    assert where.endswith(': dog')


def test_label_studio_shapes(image):
    turned = dict(
        x=50, y=50, width=20, height=10, rotation=90, rectanglelabels=['cat']
    )
    ellipse = dict(
        x=50, y=50, radiusX=10, radiusY=20, rotation=0, ellipselabels=['dog']
    )
    brush = dict(rle=[1], brushlabels=['dog'])
    label_studio_file(image, turned, ellipse, brush, dict(rectanglelabels=[1]))
    found = read(image)
    first, second = found.samples[0].instances
    # 20 px wide and 8 px high, turned clockwise about (50, 40).
    assert first.bbox == pytest.approx((42, 40, 8, 20))
    assert second.bbox == pytest.approx((40, 24, 20, 32))
    assert set(found.notes) == {
        'result of type x',
        'result without readable shape',
    }


def test_label_studio_shapes_with_labels_apart(image):
    """<Rectangle> and <Labels>: two results of a region have its shape."""
    box = dict(x=10, y=10, width=20, height=20)
    triangle = dict(points=[[50, 50], [70, 50], [50, 75]])
    ellipse = dict(x=50, y=50, radiusX=10, radiusY=20)
    results = [
        dict(id=name, type=kind, value=value)
        for name, shape in dict(
            rectangle=box, polygon=triangle, ellipse=ellipse
        ).items()
        for kind, value in (
            (name, shape),
            ('labels', dict(shape, labels=['cat'])),
        )
    ]
    results.append(dict(id='none', type='rectangle', value=box))
    label_studio_file(image, annotations=[dict(result=results)])
    found = read(image)
    boxes = [i.bbox for i in found.samples[0].instances]
    assert boxes[:2] == [(10, 8, 20, 16), (50, 40, 20, 20)]
    assert boxes[2] == pytest.approx((40, 24, 20, 32))
    assert list(found.notes) == ['result of type rectangle']


def test_label_studio_tasks(image):
    """Cancelled annotations do not count; of several the first one does."""
    box = dict(x=10, y=10, width=20, height=20, rectanglelabels=['cat'])
    good = dict(result=[dict(value=box)])
    label_studio_file(
        image, annotations=[dict(good, was_cancelled=True), good, good]
    )
    found = read(image)
    assert objects(found) == {'a.jpg': [('cat', 10, 8, 20, 16)]}
    assert list(found.notes) == [
        'further annotation of a task (the first is used)'
    ]
    label_studio_file(image, annotations=[])
    with pytest.raises(DatasetError, match='task without annotation'):
        read(image)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (dict(annotations=3), 'task without annotation'),
        (dict(data=7), 'image not found'),
        (
            dict(annotations=[dict(result=5)]),
            'result without readable shape',
        ),
        (None, 'task that cannot be read'),
    ],
)
def test_a_broken_label_studio_task_does_not_end_the_others(
    image, change, reason
):
    box = dict(x=10, y=10, width=20, height=20, rectanglelabels=['cat'])
    good = dict(
        data=dict(image='a.jpg'), annotations=[dict(result=[dict(value=box)])]
    )
    Image.new('RGB', (100, 80)).save(image / 'b.jpg')
    broken = dict(good, data=dict(image='b.jpg')) | (change or {})
    tasks = [broken if change else change, good]
    (image / 'export.json').write_text(json.dumps(tasks))
    found = read(image)
    assert objects(found)['a.jpg'] == [('cat', 10, 8, 20, 16)]
    assert len(found.notes[reason]) == 1


def test_entries_that_cannot_be_read_are_counted(image):
    """An annotation file that is no JSON, too."""
    coco_file(image, [GOOD])
    content = json.loads((image / 'coco.json').read_text())
    content['images'] += [dict(id=2), 'a.jpg']
    content['annotations'].append(None)
    (image / 'coco.json').write_text(json.dumps(content))
    (image / 'more.json').write_text('{"images": [')
    found = read(image)
    assert objects(found) == {'a.jpg': [('cat', 10, 10, 20, 20)]}
    assert {reason: len(names) for reason, names in found.notes.items()} == {
        'entry of images that cannot be read': 2,
        'entry of annotations that cannot be read': 1,
        'broken annotation file': 1,
    }


def test_polygons_are_cut_where_their_box_is_not(image):
    """Or their area would be infinite."""
    outline = [10, 10, 1e308, 10, 30, 1e308]
    coco_file(image, [dict(GOOD, segmentation=[outline])])
    (instance,) = read(image).samples[0].instances
    assert instance.segmentation == [
        pytest.approx([10, 10, 100, 10, 100, 80, 10, 80], abs=0.02)
    ]


def test_label_studio_minimal_export(image):
    box = dict(x=10, y=10, width=20, height=20, rectanglelabels=['cat'])
    task = dict(id=1, image='/data/upload/1/0123abcd-a.jpg', label=[box])
    (image / 'export.json').write_text(json.dumps([task]))
    assert objects(read(image)) == {'a.jpg': [('cat', 10, 8, 20, 16)]}


@pytest.mark.parametrize(
    'content', ['{', '[' * 100000, '[1]', '{"images": [1]}', '\xff', 'null']
)
def test_broken_json(image, content):
    (image / 'a.json').write_text(content, 'latin-1')
    with pytest.raises(DatasetError, match='no annotations in a format'):
        read(image)
    for format in ('coco', 'labelme', 'label_studio'):
        with pytest.raises(DatasetError, match='no usable annotations'):
            read(image, format=format)


def test_ids_of_any_type(image):
    """Text is a number, too; lists and dicts are no ids of anything."""
    boxes = [dict(bbox=[1, 1, 9, size]) for size in (5, 6, 7, 8)]
    coco_file(image, boxes)
    content = json.loads((image / 'coco.json').read_text())
    content['annotations'][0]['image_id'] = '1'
    content['annotations'][1]['image_id'] = [1]
    content['annotations'][2]['category_id'] = {}
    content['categories'].append(dict(id=[], name='x'))
    (image / 'coco.json').write_text(json.dumps(content))
    found = read(image)
    assert len(found.samples[0].instances) == 2
    assert {'unknown image', 'unknown category'} <= set(found.notes)


@pytest.mark.parametrize('form', ['coco', 'labelme', 'label_studio'])
def test_blanks_and_case_in_class_names(image, form):
    names = [' cat', 'cat ', 'Cat']
    if form == 'coco':
        coco_file(image, [dict(bbox=[1, 1, 9, n]) for n in (5, 6, 7)])
        content = json.loads((image / 'coco.json').read_text())
        content['categories'] = [
            dict(id=n, name=name) for n, name in enumerate(names)
        ]
        for n, annotation in enumerate(content['annotations']):
            annotation['category_id'] = n
        (image / 'coco.json').write_text(json.dumps(content))
    elif form == 'labelme':
        corners = [[1, 1], [9, 9]]
        shape = dict(shape_type='rectangle', points=corners)
        labelme_file(image, *(dict(shape, label=name) for name in names))
    else:
        box = dict(x=1, y=1, width=9, height=9)
        label_studio_file(
            image, *(dict(box, rectanglelabels=[name]) for name in names)
        )
    found = read(image)
    assert sorted(found.classes) == ['Cat', 'cat']
    (pair,) = found.notes[
        'class name that differs from another in case alone (kept)'
    ]
    assert sorted(pair.split(', ')) == ['Cat', 'cat']


def test_several_formats(image):
    coco_file(image, [GOOD])
    voc_file(image)
    with pytest.raises(DatasetError, match=r'\(coco, voc\).*--format coco'):
        read(image)
    assert read(image, format='voc').format == 'Pascal VOC'


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(classes=['cat']), '--classes is for YOLO and label maps'),
        (dict(ignored=(0,)), '--ignore is for label maps'),
        (dict(difficult='drop'), '--difficult is for Pascal VOC'),
        (dict(format='yolo', boxes='xyxy'), '--boxes is for the format coco'),
    ],
)
def test_options_that_do_not_fit(image, options, message):
    coco_file(image, [GOOD])
    with pytest.raises(DatasetError, match=message):
        read(image, **options)


def test_unknown_format_is_named(image):
    (image / 'other.xml').write_text('<dataset/>')
    with pytest.raises(DatasetError, match=r'other\.xml is in none'):
        read(image)


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('via.json', '{"a.jpg9": {"region_attributes": {}}}', 'is VIA.*COCO'),
        ('via.csv', 'filename,region_attributes\n', 'is VIA.*COCO'),
        ('a.jpg.json', '{"objects": [{"classTitle": "cat"}]}', 'Supervisely'),
        (
            'a.json',
            '[{"image": "a.jpg", "annotations": [{"coordinates": {}}]}]',
            'is CreateML.*Pascal VOC',
        ),
        (
            '_annotations.csv',
            'filename,width,height,class,xmin,ymin,xmax,ymax\n',
            'a CSV of boxes.*Pascal VOC',
        ),
        ('masks/object_1.png', '', 'no image has its name; if each file'),
    ],
)
def test_formats_that_are_not_read(image, name, text, message):
    (image / 'masks').mkdir()
    (image / name).write_text(text)
    with pytest.raises(DatasetError, match=message):
        read(image)


def test_labelme_with_the_images_inside(tmp_path):
    (tmp_path / 'a.json').write_text('{"shapes": [], "imageData": "AAAA"}')
    with pytest.raises(DatasetError, match='labelme with the images inside'):
        Source(tmp_path)


def test_lvis_names_images_by_their_address(image):
    coco_file(image, [GOOD])
    content = json.loads((image / 'coco.json').read_text())
    del content['images'][0]['file_name']
    content['images'][0]['coco_url'] = 'http://images.org/train2017/a.jpg'
    (image / 'coco.json').write_text(json.dumps(content))
    assert objects(read(image)) == {'a.jpg': [('cat', 10, 10, 20, 20)]}


def test_source_without_images(tmp_path):
    with pytest.raises(DatasetError, match='is no folder'):
        Source(tmp_path / 'none')
    (tmp_path / 'a.zip').write_bytes(b'')
    with pytest.raises(DatasetError, match='has no images'):
        Source(tmp_path)


def test_notes_cannot_steer_a_terminal(image):
    coco_file(image, [GOOD])
    content = json.loads((image / 'coco.json').read_text())
    content['images'].append(dict(id=2, file_name='\x1b[2J.jpg'))
    (image / 'coco.json').write_text(json.dumps(content))
    (name,) = read(image).notes['image not found']
    assert name == 'coco.json: ?[2J.jpg'
