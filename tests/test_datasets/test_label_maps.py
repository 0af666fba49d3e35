"""Label maps in all the forms that people have."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmmamba.datasets import DatasetError
from mmmamba.datasets.formats import Source, read_annotated

LABELS = np.array([[0, 1, 2, 2], [0, 1, 255, 1], [3, 3, 3, 3]], np.uint8)
COLORS = np.zeros((256, 3), np.uint8)
COLORS[1:4] = [[128, 0, 0], [0, 128, 0], [0, 0, 128]]
COLORS[255] = 255
NAMES = ['sky', 'road', 'tree', 'car']


def save(path, pixels, palette=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.ravel().tolist())
    image.save(path)


def picture(path, size=LABELS.shape):
    save(
        path,
        np.random.RandomState(0)
        .randint(256, size=(*size, 3))
        .astype(np.uint8),
    )


def read(root, **options):
    return read_annotated(Source(root), **options)


@pytest.fixture
def pair(tmp_path):
    """Write an image and its map; returns the folder."""

    def pair(pixels, palette=None):
        picture(tmp_path / 'images/a.jpg')
        save(tmp_path / 'masks/a.png', pixels, palette)
        return tmp_path

    return pair


# As ADE20K has them: 0 is ignored, 1 is the first class.
WANTED = np.where(LABELS == 255, 0, LABELS + 1)


@pytest.mark.parametrize('form', ['gray', 'palette', 'gray in RGB', '16 bit'])
def test_numbers(pair, form):
    root = pair(
        {
            'gray in RGB': np.stack([LABELS] * 3, -1),
            '16 bit': LABELS.astype(np.uint16),
        }.get(form, LABELS),
        COLORS if form == 'palette' else None,
    )
    found = read(root)
    assert found.classes == ['class_0', 'class_1', 'class_2', 'class_3']
    np.testing.assert_array_equal(found.read_map(found.samples[0]), WANTED)
    assert found.notes == {
        'label 255 (ignored)': ['8.33% of all pixels, as in masks/a.png']
    }
    found = read(root, classes=NAMES)
    assert found.classes == NAMES
    assert found.samples[0].labels == set(NAMES)


@pytest.mark.parametrize('form', ['RGB', 'palette'])
@pytest.mark.parametrize(
    'table',
    ['class_dict.csv', '_classes.csv', 'labelmap.txt', 'label_colors.txt'],
)
def test_colors_with_a_table(pair, form, table):
    root = pair(
        COLORS[LABELS] if form == 'RGB' else LABELS,
        COLORS if form == 'palette' else None,
    )
    rows = dict(zip([*NAMES, 'Void'], COLORS[[0, 1, 2, 3, 255]].tolist()))
    if table == 'labelmap.txt':
        lines = ['# label:color_rgb:parts:actions']
        lines += [f'{n}:{r},{g},{b}::' for n, (r, g, b) in rows.items()]
    elif table == 'label_colors.txt':  # CamVid's
        lines = [f'{r} {g} {b}\t{n}' for n, (r, g, b) in rows.items()]
    else:
        lines = ['name,r,g,b']
        lines += [f'{n},{r},{g},{b}' for n, (r, g, b) in rows.items()]
    (root / table).write_text('\n'.join(lines))
    found = read(root)
    assert found.classes == NAMES
    assert found.palette == COLORS[:4].tolist()
    np.testing.assert_array_equal(found.read_map(found.samples[0]), WANTED)


def test_voc_folders(tmp_path):
    """SegmentationObject and drawings have the names of the images, too."""
    for name in ('a', 'b'):
        picture(tmp_path / f'JPEGImages/{name}.jpg')
        picture(tmp_path / f'SegmentationClassVisualization/{name}.jpg')
        save(tmp_path / f'SegmentationClass/{name}.png', LABELS, COLORS)
        save(tmp_path / f'SegmentationObject/{name}.png', LABELS, COLORS)
    (tmp_path / 'class_names.txt').write_text('\n'.join(NAMES))
    lists = tmp_path / 'ImageSets/Segmentation'
    lists.mkdir(parents=True)
    (lists / 'train.txt').write_text('a\n')
    (lists / 'val.txt').write_text('b\n')
    found = read(tmp_path)
    assert found.classes == NAMES
    assert {s.image.name: s.split for s in found.samples} == {
        'a.jpg': 'train',
        'b.jpg': 'val',
    }
    np.testing.assert_array_equal(found.read_map(found.samples[0]), WANTED)


def test_colors_without_a_table(pair):
    found = read(pair(COLORS[LABELS]))
    assert 'class_128_0_0' in found.classes
    labels = found.read_map(found.samples[0])
    place = found.classes.index('class_128_0_0') + 1
    assert ((labels == place) == (LABELS == 1)).all()


@pytest.mark.parametrize('form', ['RGB', 'gray'])
def test_colors_beside_maps_of_gray_alone(pair, form):
    """White is the color that it is in the other maps, not the number 255."""
    root = pair(COLORS[LABELS])
    picture(root / 'images/b.jpg')
    white = np.full((*LABELS.shape, 3), 255, np.uint8)
    save(root / 'masks/b.png', white if form == 'RGB' else white[..., 0])
    found = read(root)
    assert len(found.classes) == 5
    white = found.classes.index('class_255_255_255') + 1
    first, second = map(found.read_map, found.samples)
    assert ((first == white) == (LABELS == 255)).all()
    assert (second == white).all()


def test_colors_that_no_table_has(pair):
    root = pair(COLORS[LABELS])
    (root / 'class_dict.csv').write_text(
        'name,r,g,b\nsky,0,0,0\nroad,128,0,0\n'
    )
    found = read(root)
    assert len(found.notes) == 3
    assert 'label 0_128_0 without a class (ignored)' in found.notes
    labels = found.read_map(found.samples[0])
    np.testing.assert_array_equal(labels, np.where(LABELS < 2, LABELS + 1, 0))


def test_roboflow_masks(tmp_path):
    for split in ('train', 'valid'):
        picture(tmp_path / split / 'a_l.jpg')
        save(tmp_path / split / 'a_l_mask.png', LABELS)
    (tmp_path / 'train/_classes.csv').write_text(
        'Pixel Value, Class\n'
        + '\n'.join(f'{i}, {n}' for i, n in enumerate(NAMES))
    )
    found = read(tmp_path)
    assert found.classes == NAMES
    assert [s.split for s in found.samples] == ['train', 'val']
    np.testing.assert_array_equal(found.read_map(found.samples[0]), WANTED)
    (tmp_path / 'valid/_classes.csv').write_text(
        '\n'.join(f'{i},{n}' for i, n in enumerate(NAMES[::-1]))
    )
    with pytest.raises(DatasetError, match='classes in different ways'):
        read(tmp_path)


def test_a_blank_line_among_class_names(pair):
    root = pair(LABELS)
    (root / 'classes.txt').write_text('sky\n\nroad\ntree\ncar')
    with pytest.raises(DatasetError, match='classes.txt: line 2 is blank'):
        read(root)


def test_masks_of_0_and_255(pair):
    pixels = np.where(LABELS == 3, 255, 0).astype(np.uint8)
    found = read(pair(pixels))
    assert found.classes == ['background', 'foreground']
    np.testing.assert_array_equal(
        found.read_map(found.samples[0]), np.where(LABELS == 3, 2, 1)
    )
    assert read(pair(pixels), classes=['no', 'yes']).classes == ['no', 'yes']


@pytest.mark.parametrize('smooth', ['antialiased', 'resized'])
def test_blurred_masks_are_refused(pair, smooth):
    side = 64 if smooth == 'resized' else 512
    y, x = np.mgrid[:side, :side] / side - 0.5
    disc = Image.fromarray(np.where(x**2 + y**2 < 0.05, 255, 0).astype('u1'))
    pixels = np.asarray(disc.resize((128, 128), Image.Resampling.BICUBIC))
    root = pair(pixels)
    picture(root / 'images/a.jpg', pixels.shape)
    with pytest.raises(DatasetError, match='blurred edges.*from 128 on 255'):
        read(root)
    pair(np.where(pixels < 128, 0, 255).astype(np.uint8))
    picture(root / 'images/a.jpg', pixels.shape)
    assert read(root).classes == ['background', 'foreground']


def test_rare_classes_beside_0_and_255_are_no_blur(pair):
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:30] = 255
    pixels[40, :12] = np.arange(1, 13)
    root = pair(pixels)
    picture(root / 'images/a.jpg', pixels.shape)
    assert len(read(root).classes) == 13


@pytest.mark.parametrize('levels', [(128,), (127,), (85, 170), (100,)])
def test_gray_levels(pair, levels):
    """White is a class, too; uneven ones need names to tell."""
    levels = [0, *levels, 255]
    root = pair(np.array(levels, np.uint8)[LABELS % len(levels)])
    names = NAMES[: len(levels)]
    found = read(root, classes=names)
    assert found.classes == names
    wanted = LABELS % len(levels) + 1
    np.testing.assert_array_equal(found.read_map(found.samples[0]), wanted)
    found = read(root)
    if levels[1] == 100:
        assert found.classes == ['class_0', 'class_100']
        assert 'label 255 (ignored)' in found.notes
    else:
        assert found.classes == [f'class_{level}' for level in levels]
        ((reason, spelt),) = found.notes.items()
        assert 'gray levels' in reason
        assert spelt == [', '.join(map(str, levels))]
        found = read(root, ignored=(255,))
        assert found.classes == [f'class_{level}' for level in levels[:-1]]


def test_255_in_a_table_is_a_class(pair):
    root = pair(LABELS)
    rows = dict(zip((0, 1, 2, 3, 255), [*NAMES, 'bus']))
    (root / '_classes.csv').write_text(
        '\n'.join(f'{label},{name}' for label, name in rows.items())
    )
    assert read(root).classes == [*NAMES, 'bus']


@pytest.mark.parametrize('bits', [2, 4])
def test_few_bits(pair, bits):
    """Labels, which Pillow takes for shades up to white."""
    labels = np.where(LABELS == 255, 0, LABELS)
    root = pair(labels)
    # Pillow writes them with a palette alone.
    width = labels.shape[1]
    packed = [
        sum(int(n) << (8 - bits - bits * i % 8) for i, n in part)
        for row in labels
        for start in range(0, width, 8 // bits)
        for part in [[*enumerate(row)][start : start + 8 // bits]]
    ]
    rows = np.array(packed, np.uint8).reshape(len(labels), -1)
    chunks = {
        b'IHDR': struct.pack('>IIBBBBB', width, len(labels), bits, *[0] * 4),
        b'IDAT': zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes()),
        b'IEND': b'',
    }
    content = b''.join(
        struct.pack('>I', len(data))
        + kind
        + data
        + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )
    (root / 'masks/a.png').write_bytes(b'\x89PNG\r\n\x1a\n' + content)
    found = read(root)
    assert found.classes == ['class_0', 'class_1', 'class_2', 'class_3']
    labels_read = found.read_map(found.samples[0])
    np.testing.assert_array_equal(labels_read, labels + 1)


def test_palettes_that_differ(pair):
    """As optimizers make them: the number of a color is another each time."""
    root = pair(LABELS, COLORS)
    picture(root / 'images/b.jpg')
    order = np.array([*range(3, -1, -1), *range(4, 256)])
    save(root / 'masks/b.png', order.astype(np.uint8)[LABELS], COLORS[order])
    found = read(root)
    assert len(found.classes) == 5
    first, second = map(found.read_map, found.samples)
    np.testing.assert_array_equal(first, second)
    (clash,) = found.notes['palettes that differ (read by color)']
    assert clash == (
        '0 is (0, 0, 0) in masks/a.png and (0, 0, 128) in masks/b.png'
    )
    # The number as gray is no color: both are numbers.
    save(root / 'masks/b.png', LABELS, np.arange(256).repeat(3))
    assert len(read(root).classes) == 4


@pytest.mark.parametrize(
    ('image', 'label_map', 'split'),
    [
        ('images/training/a.jpg', 'annotations/training/a.png', 'train'),
        ('val/a.png', 'val_labels/a_L.png', 'val'),
        ('test/a.png', 'testannot/a.png', 'test'),
        ('JPEGImages/a.jpg', 'SegmentationClass/a.png', ''),
        ('a.jpg', 'a_mask.png', ''),
        ('img/eye_l.png', 'gt/eye_l.png', ''),
    ],
)
def test_layouts(tmp_path, image, label_map, split):
    picture(tmp_path / image)
    save(tmp_path / label_map, LABELS)
    (sample,) = read(tmp_path).samples
    assert sample.image == tmp_path / image
    assert sample.label_map == tmp_path / label_map
    assert sample.split == split


def test_ignored_labels(pair):
    found = read(pair(LABELS), ignored=(0,), classes=NAMES[1:])
    assert found.classes == NAMES[1:]
    np.testing.assert_array_equal(
        found.read_map(found.samples[0]), np.where(LABELS == 255, 0, LABELS)
    )


def test_class_that_no_image_has(pair):
    """Numbers are not moved: 1 stays the second class."""
    found = read(pair(np.where(LABELS == 0, 3, LABELS)), classes=NAMES)
    assert found.classes == NAMES
    assert found.samples[0].labels == set(NAMES[1:])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(classes=NAMES[:2]), 'names 2 classes, but .* 0, 1, 2, 3, 255'),
        (dict(ignored=(0, 1, 2)), 'have 1 classes'),
    ],
)
def test_options_that_do_not_fit(pair, options, message):
    with pytest.raises(DatasetError, match=message):
        read(pair(LABELS), **options)


def test_blurred_colors(pair):
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    pair(pixels)
    many = np.random.RandomState(0).randint(256, size=(12, 12, 3))
    root = pair(many.astype(np.uint8))
    picture(root / 'images/a.jpg', (12, 12))
    with pytest.raises(DatasetError, match='144 colors.*class_dict.csv'):
        read(root)


@pytest.mark.parametrize('row', ['sky,0,0', 'sky,0,0,256', 'sky,x,0,0'])
def test_bad_table(pair, row):
    root = pair(COLORS[LABELS])
    (root / 'class_dict.csv').write_text(f'name,r,g,b\n{row}\n')
    with pytest.raises(DatasetError, match='class_dict.csv: cannot read'):
        read(root)


@pytest.mark.parametrize(
    ('name', 'text', 'message'),
    [
        ('labelmap.txt', '# label:color\n\nsky', "'' is no color r,g,b"),
        ('labelmap.txt', 'sky:1,2:', "'1,2' is no color r,g,b"),
        ('label_colors.txt', '1 2', "'1,2' is no color r,g,b"),
        ('class_dict.csv', 'x' * 200_000, 'field larger than field limit'),
    ],
)
def test_table_that_cannot_be_read(pair, name, text, message):
    root = pair(COLORS[LABELS])
    (root / name).write_text(text)
    with pytest.raises(DatasetError, match=f'{name}: {message}'):
        read(root)


def test_bad_maps_are_counted(pair):
    root = pair(LABELS)
    for name in 'bcd':
        picture(root / f'images/{name}.jpg')
    save(root / 'masks/b.png', LABELS[:2])
    (root / 'masks/c.png').write_bytes(b'nothing')
    save(root / 'masks/d.png', LABELS.astype(np.uint16) * 200)
    picture(root / 'images/e.jpg')
    save(root / 'masks/e.tif', LABELS.astype(np.float32))
    found = read(root)
    assert len(found.samples) == 1
    assert {
        'image of another size than annotated',
        'label map that has labels beyond 255',
        'label map that has labels that are no whole numbers',
    } < set(found.notes)


def test_jpeg_is_refused_by_name(tmp_path):
    picture(tmp_path / 'images/a.jpg')
    save(tmp_path / 'masks/a.jpg', LABELS)
    message = r'masks/a.jpg is a label map that is JPEG.*export PNG'
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)
    with pytest.raises(DatasetError, match=r'is JPEG.*PNG: masks/a.jpg'):
        read(tmp_path, format='label_maps')
    # Among others, or under another name, it is left out.
    (tmp_path / 'masks/a.jpg').rename(tmp_path / 'masks/a.png')
    for name in 'bc':
        picture(tmp_path / f'images/{name}.jpg')
    save(tmp_path / 'masks/b.jpg', LABELS)
    save(tmp_path / 'masks/c.png', LABELS)
    found = read(tmp_path)
    assert [s.image.name for s in found.samples] == ['c.jpg']
    (reason,) = (reason for reason in found.notes if 'JPEG' in reason)
    assert found.notes[reason] == ['masks/a.png', 'masks/b.jpg']
    unused = found.notes['image without usable annotation']
    assert unused == ['images/a.jpg', 'images/b.jpg']
