"""Write one small data set in every format that prepare.py reads.

The formats are written as their own documentation has them, and never with
the code under test. An image is ``dict(name, size, objects)``; an object is
``(label, (x, y, width, height), points or None)`` in pixels.
"""

import json
import shutil
import zlib
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image


def pictures(number=10, size=(100, 80), outlines=True):
    """Images with one or two objects of fractional boxes each."""
    rng = np.random.RandomState(0)
    images = []
    for i in range(number):
        objects = []
        for label in ['cat', 'big dog'][: 1 + i % 2]:
            x, y = rng.uniform(2, 40, 2).tolist()
            width, height = rng.uniform(5, 35, 2).tolist()
            points = None
            if outlines:
                points = [
                    (x, y),
                    (x + width, y + height / 3),
                    (x + width / 4, y + height),
                ]
            objects.append((label, (x, y, width, height), points))
        images.append(dict(name=f'img {i}.jpg', size=size, objects=objects))
    return images


def save_images(images, folder, source=None):
    """Noise, so that no two are alike, or links to real images."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in images:
        target = folder / image['name']
        if source:
            shutil.copyfile(source / image['name'], target)
            continue
        rng = np.random.RandomState(zlib.crc32(image['name'].encode()))
        width, height = image['size']
        pixels = rng.randint(256, size=(height // 4, width // 4, 3))
        Image.fromarray(pixels.astype(np.uint8)).resize((width, height)).save(
            target
        )


def labels_of(images):
    return sorted({o[0] for i in images for o in i['objects']})


def coco_content(images, first_id=1):
    names = labels_of(images)
    content = dict(
        images=[],
        annotations=[],
        categories=[
            dict(id=i, name=n, supercategory='')
            for i, n in enumerate(names, first_id)
        ],
    )
    for image_id, image in enumerate(images, 7):
        width, height = image['size']
        content['images'].append(
            dict(
                id=image_id,
                file_name=image['name'],
                width=width,
                height=height,
            )
        )
        for label, box, points in image['objects']:
            content['annotations'].append(
                dict(
                    id=len(content['annotations']),
                    image_id=image_id,
                    category_id=names.index(label) + first_id,
                    bbox=list(box),
                    area=box[2] * box[3],
                    segmentation=[list(sum(points, ()))] if points else [],
                    iscrowd=0,
                )
            )
    return content


def write_coco(images, root, source=None):
    """instances_train.json and instances_val.json beside train/ and val/."""
    (root / 'annotations').mkdir(parents=True)
    for split, part in dict(train=images[2:], val=images[:2]).items():
        save_images(part, root / split, source)
        (root / f'annotations/instances_{split}.json').write_text(
            json.dumps(coco_content(part))
        )


def write_roboflow(images, root, source=None):
    """_annotations.coco.json in train/, valid/, test/; a group as class 0."""
    parts = dict(train=images[4:], valid=images[2:4], test=images[:2])
    for split, part in parts.items():
        save_images(part, root / split, source)
        content = coco_content(part)
        for category in content['categories']:
            category['supercategory'] = 'animals'
        group = dict(id=0, name='animals', supercategory='none')
        content['categories'].insert(0, group)
        (root / split / '_annotations.coco.json').write_text(
            json.dumps(content)
        )
    (root / 'README.roboflow.txt').write_text('1 2 3 4 5\n')


def write_cvat(images, root, source=None):
    """annotations/instances_default.json and images/default/."""
    save_images(images, root / 'images/default', source)
    (root / 'annotations').mkdir()
    (root / 'annotations/instances_default.json').write_text(
        json.dumps(coco_content(images))
    )


def write_cvat_xml(images, root, source=None, outlines=False):
    """annotations.xml and images/; subsets name the splits."""
    save_images(images, root / 'images', source)
    labels = ''.join(
        f'<label><name>{escape(name)}</name></label>'
        for name in labels_of(images)
    )
    lines = []
    for i, image in enumerate(images):
        width, height = image['size']
        lines.append(
            f'<image id="{i}" name="{image["name"]}" width="{width}" '
            f'height="{height}" subset="{"Validation" if i < 2 else "Train"}">'
        )
        for label, (x, y, w, h), points in image['objects']:
            if outlines and points:
                text = ';'.join(f'{px!r},{py!r}' for px, py in points)
                lines.append(f'<polygon label="{label}" points="{text}"/>')
            else:
                lines.append(
                    f'<box label="{label}" occluded="0" xtl="{x!r}" '
                    f'ytl="{y!r}" xbr="{x + w!r}" ybr="{y + h!r}"></box>'
                )
        lines.append('</image>')
    (root / 'annotations.xml').write_text(
        '<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1'
        f'</version><meta><job><labels>{labels}</labels></job></meta>'
        + ''.join(lines)
        + '</annotations>'
    )


def write_voc(images, root, source=None, split=True):
    """Annotations/, JPEGImages/, ImageSets/Main; pixels count from 1."""
    save_images(images, root / 'JPEGImages', source)
    (root / 'Annotations').mkdir()
    for image in images:
        width, height = image['size']
        objects = ''.join(
            f'<object><name>{escape(label)}</name><difficult>0</difficult>'
            f'<bndbox><xmin>{x + 1!r}</xmin><ymin>{y + 1!r}</ymin>'
            f'<xmax>{x + w!r}</xmax><ymax>{y + h!r}</ymax></bndbox></object>'
            for label, (x, y, w, h), _ in image['objects']
        )
        (root / f'Annotations/{Path(image["name"]).stem}.xml').write_text(
            f'<annotation><folder>x</folder><filename>{image["name"]}'
            f'</filename><size><width>{width}</width><height>{height}</height>'
            f'<depth>3</depth></size>{objects}</annotation>'
        )
    if split:
        (root / 'ImageSets/Main').mkdir(parents=True)
        for name, part in dict(train=images[2:], val=images[:2]).items():
            stems = [Path(i['name']).stem.replace(' ', '_') for i in part]
            (root / f'ImageSets/Main/{name}.txt').write_text('\n'.join(stems))


def yolo_lines(image, names, outlines):
    width, height = image['size']
    for label, (x, y, w, h), points in image['objects']:
        if outlines and points:
            values = [
                v for px, py in points for v in (px / width, py / height)
            ]
        else:
            values = [
                (x + w / 2) / width,
                (y + h / 2) / height,
                w / width,
                h / height,
            ]
        yield ' '.join(
            [str(names.index(label)), *map(repr, map(float, values))]
        )


def write_yolo(images, root, source=None, outlines=False):
    """data.yaml; train/images, train/labels, and the same for valid."""
    names = labels_of(images)
    for split, part in dict(train=images[2:], valid=images[:2]).items():
        save_images(part, root / split / 'images', source)
        (root / split / 'labels').mkdir()
        for image in part:
            text = '\n'.join(yolo_lines(image, names, outlines))
            stem = Path(image['name']).stem
            (root / split / f'labels/{stem}.txt').write_text(text)
    lines = [
        'train: ../train/images',
        'val: ../valid/images',
        f'nc: {len(names)}',
        f'names: {json.dumps(names)}',
    ]
    (root / 'data.yaml').write_text('\n'.join(lines))


def write_yolo_flat(images, root, source=None):
    """Images and labels side by side, with classes.txt, as labelImg does."""
    names = labels_of(images)
    save_images(images, root, source)
    for image in images:
        text = '\n'.join(yolo_lines(image, names, False))
        (root / f'{Path(image["name"]).stem}.txt').write_text(text)
    (root / 'classes.txt').write_text('\n'.join(names) + '\n')


def write_labelme(images, root, source=None, outlines=False):
    """A JSON beside each image, as saved on Windows."""
    save_images(images, root, source)
    for image in images:
        shapes = []
        for label, (x, y, w, h), points in image['objects']:
            polygon = outlines and points
            corners = points if polygon else [(x, y), (x + w, y + h)]
            shapes.append(
                dict(
                    label=label,
                    points=corners,
                    shape_type='polygon' if polygon else 'rectangle',
                    group_id=None,
                    flags={},
                )
            )
        content = dict(
            version='5.5.0',
            flags={},
            shapes=shapes,
            imagePath=f'..\\photos\\{image["name"]}',
            imageData=None,
            imageHeight=image['size'][1],
            imageWidth=image['size'][0],
        )
        (root / f'{Path(image["name"]).stem}.json').write_text(
            json.dumps(content)
        )


def write_label_studio(images, root, source=None, outlines=False):
    """One list of tasks; uploads have a prefix that the images have not."""
    save_images(images, root / 'images', source)
    tasks = []
    for number, image in enumerate(images):
        width, height = image['size']
        results = []
        for label, (x, y, w, h), points in image['objects']:
            if outlines and points:
                kind = 'polygonlabels'
                value = dict(
                    points=[
                        [100 * px / width, 100 * py / height]
                        for px, py in points
                    ]
                )
            else:
                kind = 'rectanglelabels'
                value = dict(
                    x=100 * x / width,
                    y=100 * y / height,
                    width=100 * w / width,
                    height=100 * h / height,
                    rotation=0,
                )
            results.append(
                dict(
                    original_width=width,
                    original_height=height,
                    value={**value, kind: [label]},
                    type=kind,
                    to_name='image',
                    from_name='label',
                )
            )
        name = image['name'].replace(' ', '%20')
        tasks.append(
            dict(
                id=number,
                data=dict(image=f'/data/upload/1/0123abcd-{name}'),
                annotations=[dict(result=results, was_cancelled=False)],
                predictions=[],
            )
        )
    (root / 'project-1.json').write_text(json.dumps(tasks))
