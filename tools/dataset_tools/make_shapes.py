"""Draw a small COCO-format data set of circles, squares and triangles.

It needs no download, so demos and tests can train on it anywhere. What is
written::

    OUT_DIR/
      train/000000.jpg ...  val/000000.jpg ...
      annotations/instances_train.json  instances_val.json
      ade/                         only with --ade: the ADE20K layout
        images/training/000000.jpg ...       validation/000000.jpg ...
        annotations/training/000000.png ...  validation/000000.png ...
      shapes.json                  the options; written last

COCO categories: 1 circle, 2 square, 3 triangle. Shapes never overlap, so a
polygon is the whole outline of what one sees. The ADE20K label maps hold 1
for background and the category plus one for a shape; 0, which
``reduce_zero_label=True`` turns into "ignore", does not occur.
mmseg's ``BaseSegDataset`` loads them; its ``ADE20KDataset`` takes no other
class names than its own.
"""

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rich.progress import track

# Raise it whenever the same options give other files than before.
VERSION = 1
RECORD = 'shapes.json'
# What ADE20K calls each split. The order also seeds the random numbers.
SPLITS = {'train': 'training', 'val': 'validation'}
MAX_COUNT = 1_000_000  # file names have six digits
MIN_SIZE = 64

# Categories in the order of their ids, with the corners of their polygons.
CORNERS = {'circle': 36, 'square': 4, 'triangle': 3}
# Diameter of a shape's circumcircle, over the image's shorter side.
DIAMETERS = (0.18, 0.45)
MIN_DIAMETER = 12  # pixels; in tiny images the outline would be lost
MIN_CONTRAST = 90  # distance in BGR from the mean of what a shape covers
GAP = 2  # pixels between two shapes


class Shape(NamedTuple):
    """A shape at its place.

    Attributes:
        category_id (int): Its COCO category.
        polygon (np.ndarray): Corners ``(N, 2)`` as x, y in COCO's
            coordinates, where the first pixel spans 0..1.
        window (tuple): Row and column slices of the image around it.
        coverage (np.ndarray): Share of each of the window's pixels that lies
            inside the polygon.
    """

    category_id: int
    polygon: np.ndarray
    window: tuple[slice, slice]
    coverage: np.ndarray


def draw_background(
    rng: np.random.Generator, height: int, width: int
) -> np.ndarray:
    """Draw smooth colors, soft blotches and grain: uint8 ``(H, W, 3)``."""
    image = 6 * rng.standard_normal((height, width, 3), np.float32)
    image += rng.uniform(40, 215, 3).astype(np.float32)
    for cells, contrast in ((3, 35), (16, 8)):
        coarse = rng.normal(0, contrast, (cells, cells, 3))
        image += cv2.resize(
            coarse.astype(np.float32),
            (width, height),
            interpolation=cv2.INTER_CUBIC,
        )
    return image.clip(0, 255).astype(np.uint8)


def draw_clutter(image: np.ndarray, rng: np.random.Generator) -> None:
    """Draw what a detector must learn to pass over, in place."""
    kinds = (draw_line, draw_dots, draw_ellipse, draw_scribble)
    for _ in range(rng.integers(4, 13)):
        draw = kinds[rng.integers(len(kinds))]
        height, width = image.shape[:2]
        center = rng.integers((0, 0), (width, height))
        pen = {
            'color': rng.integers(0, 256, 3).tolist(),
            'lineType': cv2.LINE_AA,
        }
        draw(image, center, min(height, width), pen, rng)


def draw_line(image, center, side, pen, rng) -> None:
    """Draw a straight line through the image."""
    step = rng.integers(-side, side + 1, 2)
    thickness = rng.integers(1, max(2, side // 80) + 1)
    cv2.line(image, center - step, center + step, thickness=thickness, **pen)


def draw_dots(image, center, side, pen, rng) -> None:
    """Draw a loose group of dots, far smaller than any circle."""
    for step in rng.normal(0, side / 10, (rng.integers(3, 13), 2)):
        place = center + step.astype(int)
        radius = rng.integers(1, max(2, side // 100) + 1)
        cv2.circle(image, place, radius, thickness=cv2.FILLED, **pen)


def draw_ellipse(image, center, side, pen, rng) -> None:
    """Draw the outline of an ellipse."""
    axes = rng.integers(side // 20, side // 5, 2)
    angle = rng.uniform(0, 180)
    thickness = rng.integers(1, max(2, side // 100) + 1)
    cv2.ellipse(image, center, axes, angle, 0, 360, thickness=thickness, **pen)


def draw_scribble(image, center, side, pen, rng) -> None:
    """Draw a row of strokes that looks like handwriting."""
    cell = rng.integers(max(3, side // 40), side // 16 + 1)
    glyphs = rng.integers(0, cell + 1, (rng.integers(4, 13), 4, 2))
    glyphs[..., 0] += (np.arange(len(glyphs)) * (cell + 2))[:, None]
    strokes = (glyphs + center).astype(np.int32)
    cv2.polylines(image, list(strokes), isClosed=False, **pen)


def place_shapes(
    rng: np.random.Generator, height: int, width: int, max_shapes: int
) -> list[Shape]:
    """Sample 1 to ``max_shapes`` shapes inside the image, none touching.

    Fewer than drawn by lot come back where the image is too full for them.
    """
    side = min(height, width)
    taken = np.zeros((height, width), bool)
    kernel = np.ones((2 * GAP + 1, 2 * GAP + 1), np.uint8)
    shapes: list[Shape] = []
    count = rng.integers(1, max_shapes + 1)
    for _ in range(10 * count):
        category_id = int(rng.integers(len(CORNERS))) + 1
        diameter = max(MIN_DIAMETER, side * rng.uniform(*DIAMETERS))
        # Keeps the window of `rasterize` inside the image as well.
        border = diameter / 2 + GAP + 2
        center = rng.uniform(border, (width - border, height - border))
        polygon = sample_polygon(rng, category_id, center, diameter / 2)
        window, coverage = rasterize(polygon)
        if taken[window][cv2.dilate(coverage, kernel) > 0].any():
            continue
        taken[window] |= coverage > 0
        shapes.append(Shape(category_id, polygon, window, coverage))
        if len(shapes) == count:
            break
    return shapes


def sample_polygon(
    rng: np.random.Generator,
    category_id: int,
    center: np.ndarray,
    radius: float,
) -> np.ndarray:
    """Put a category's corners on a circle, at a random rotation.

    The corners are rounded as the annotation file holds them, so that the
    picture is drawn from exactly what is annotated.
    """
    corners = list(CORNERS.values())[category_id - 1]
    angles = np.arange(corners) / corners * 2 * np.pi
    angles += rng.uniform(0, 2 * np.pi)
    if corners == 3:  # not only equilateral ones
        angles += rng.uniform(-0.3, 0.3, 3)
    steps = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return (center + steps).round(2)


def rasterize(
    polygon: np.ndarray, oversampling: int = 8
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a window around a polygon and the polygon's coverage of it.

    OpenCV's own anti-aliasing fattens a polygon; this draws it enlarged and
    averages instead, which keeps to the outline.
    """
    left, top = np.floor(polygon.min(0)).astype(int) - GAP - 1
    right, bottom = np.ceil(polygon.max(0)).astype(int) + GAP + 1
    width, height = right - left, bottom - top
    # OpenCV's pixel centers are whole numbers, COCO's lie halfway between.
    points = (polygon - (left, top)) * oversampling - 0.5
    canvas = np.zeros((height * oversampling, width * oversampling), np.uint8)
    shift = 4
    points = np.round(points * 2**shift).astype(np.int32)
    cv2.fillConvexPoly(canvas, points, 255, shift=shift)
    coverage = cv2.resize(
        canvas, (width, height), interpolation=cv2.INTER_AREA
    )
    window = (slice(top, bottom), slice(left, right))
    return window, coverage.astype(np.float32) / 255


def paint_shape(
    image: np.ndarray, shape: Shape, rng: np.random.Generator
) -> None:
    """Fill a shape with a slightly textured color, in place."""
    behind = image[shape.window].astype(np.float32)
    mean = behind[shape.coverage > 0].mean(0)
    while True:
        color = rng.uniform(0, 255, 3)
        if np.linalg.norm(color - mean) >= MIN_CONTRAST:
            break
    # Lit from one side, with a little grain.
    height, width = shape.coverage.shape
    slope = rng.uniform(-0.15, 0.15, 2)
    light = 1 + rng.normal(0, 0.03, (height, width))
    light += slope[0] * np.linspace(-1, 1, height)[:, None]
    light += slope[1] * np.linspace(-1, 1, width)
    filled = (color * light[..., None]).clip(0, 255)
    image[shape.window] = np.round(
        behind + shape.coverage[..., None] * (filled - behind)
    )


def draw_sample(
    rng: np.random.Generator, height: int, width: int, max_shapes: int
) -> tuple[np.ndarray, list[Shape]]:
    """Draw one image.

    Args:
        rng (np.random.Generator): Source of everything random in it.
        height (int): Height in pixels.
        width (int): Width in pixels.
        max_shapes (int): Most shapes to put in.

    Returns:
        tuple[np.ndarray, list[Shape]]: The BGR image and what it shows.
    """
    image = draw_background(rng, height, width)
    draw_clutter(image, rng)
    shapes = place_shapes(rng, height, width, max_shapes)
    for shape in shapes:
        paint_shape(image, shape, rng)
    return image, shapes


def coco_annotation(shape: Shape) -> dict:
    """Describe a shape as COCO does, less its own id and its image's."""
    x, y = shape.polygon.T
    corner, extent = shape.polygon.min(0), np.ptp(shape.polygon, axis=0)
    # The shoelace formula.
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return {
        'category_id': shape.category_id,
        'bbox': [*corner.tolist(), *extent.round(2).tolist()],
        'area': round(float(area), 2),
        'segmentation': [shape.polygon.ravel().tolist()],
        'iscrowd': 0,
    }


def ade_labels(shapes: list[Shape], height: int, width: int) -> np.ndarray:
    """Label each pixel as ADE20K does: uint8 ``(H, W)``, background 1."""
    labels = np.ones((height, width), np.uint8)
    for shape in shapes:
        labels[shape.window][shape.coverage >= 0.5] = shape.category_id + 1
    return labels


def write_split(
    out_dir: Path,
    split: str,
    count: int,
    size: Sequence[int],
    seed: int,
    max_shapes: int,
    ade: bool,
) -> None:
    """Draw and write one split, its annotation file after its images."""
    image_dir = out_dir / split
    ade_image_dir = out_dir / 'ade/images' / SPLITS[split]
    ade_label_dir = out_dir / 'ade/annotations' / SPLITS[split]
    annotation_dir = out_dir / 'annotations'
    folders = [image_dir, annotation_dir]
    for folder in folders + [ade_image_dir, ade_label_dir] * ade:
        folder.mkdir(parents=True, exist_ok=True)

    images, annotations = [], []
    height, width = size
    for index in track(range(count), f'Drawing {split}', disable=not count):
        # One seed per image: a larger data set extends a smaller one.
        rng = np.random.default_rng([seed, list(SPLITS).index(split), index])
        image, shapes = draw_sample(rng, height, width, max_shapes)
        path = image_dir / f'{index:06d}.jpg'
        write_image(path, image)
        if ade:
            link_or_copy(path, ade_image_dir / path.name)
            labels = ade_labels(shapes, height, width)
            write_image(ade_label_dir / f'{path.stem}.png', labels)
        images.append(
            {
                'id': index,
                'file_name': path.name,
                'height': height,
                'width': width,
            }
        )
        for shape in shapes:
            # From 1: pycocotools takes the id 0 for "no match".
            ids = {'id': len(annotations) + 1, 'image_id': index}
            annotations.append(ids | coco_annotation(shape))

    content = {
        'info': {'description': f'Drawn shapes, {split}'},
        'licenses': [],
        'images': images,
        'annotations': annotations,
        'categories': [
            {'id': i, 'name': name, 'supercategory': 'shape'}
            for i, name in enumerate(CORNERS, start=1)
        ],
    }
    path = annotation_dir / f'instances_{split}.json'
    path.write_text(json.dumps(content))


def write_image(path: Path, image: np.ndarray) -> None:
    """Encode and write an image.

    ``cv2.imwrite`` would only return False where, say, the disk is full.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == '.jpg' else []
    path.write_bytes(cv2.imencode(path.suffix, image, options)[1].tobytes())


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_options(options: dict) -> None:
    """Raise a ValueError that names the first option out of its range."""
    for split in SPLITS:
        if not 0 <= options[split] <= MAX_COUNT:
            raise ValueError(
                f'{split} must be a number of images from 0 to {MAX_COUNT}, '
                f'got {options[split]}'
            )
    size = options['size']
    if len(size) != 2 or min(size) < MIN_SIZE:
        raise ValueError(
            'size must be one side or a height and a width, each of at least '
            f'{MIN_SIZE} pixels, got {" ".join(map(str, size))}'
        )
    if options['seed'] < 0:
        raise ValueError(f'seed must not be negative, got {options["seed"]}')
    if options['max_shapes'] < 1:
        raise ValueError(
            f'max_shapes must be at least 1, got {options["max_shapes"]}'
        )


def is_complete(out_dir: Path, options: dict) -> bool:
    """Tell whether a folder already holds the data set of these options.

    Args:
        out_dir (Path): The folder; it need not exist.
        options (dict): What the record of the data set says.

    Returns:
        bool: True where it does, False where the folder is empty or missing.

    Raises:
        FileExistsError: If the folder holds anything else.
    """
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return False
    try:
        record = json.loads((out_dir / RECORD).read_text())
    except (FileNotFoundError, ValueError):  # missing, or not ours
        record = None
    if record == options:
        return True
    if isinstance(record, dict):
        found = 'shapes of other options: ' + ', '.join(
            f'{name} is {record.get(name)}, not {value}'
            for name, value in options.items()
            if record.get(name) != value
        )
    else:
        found = f'files, but no {RECORD} of a finished data set'
    raise FileExistsError(
        f'{out_dir} holds {found}. Choose another folder, or pass '
        '--overwrite (overwrite=True) to replace what is there'
    )


def remove_generated(out_dir: Path) -> None:
    """Remove what an earlier run wrote, and no file of another name."""
    # First, for without it the folder no longer counts as complete.
    (out_dir / RECORD).unlink(missing_ok=True)
    digits = '[0-9]' * 6
    for split, ade_split in SPLITS.items():
        for pattern in (
            f'annotations/instances_{split}.json',
            f'{split}/{digits}.jpg',
            f'ade/images/{ade_split}/{digits}.jpg',
            f'ade/annotations/{ade_split}/{digits}.png',
        ):
            for path in out_dir.glob(pattern):
                path.unlink()


def make_shapes(
    out_dir: str | Path,
    train: int = 1000,
    val: int = 60,
    size: Sequence[int] = (320, 320),
    seed: int = 0,
    *,
    max_shapes: int = 8,
    ade: bool = False,
    overwrite: bool = False,
) -> None:
    """Draw the data set, unless the folder holds the very same already.

    Image ``i`` of a split depends on ``i``, ``seed``, ``size`` and
    ``max_shapes`` only, not on how many images there are.

    Args:
        out_dir (str | Path): Folder to write to.
        train (int): Images to train on. Defaults to 1000.
        val (int): Images to validate on. Defaults to 60.
        size (Sequence[int]): Height and width of every image. Defaults to
            (320, 320).
        seed (int): Seed of everything random. Defaults to 0.
        max_shapes (int): Most shapes in an image; the least is one.
            Defaults to 8.
        ade (bool): Whether to write the ADE20K layout too. Defaults to
            False.
        overwrite (bool): Whether to replace what another run left in the
            folder; files of other names stay. Defaults to False.

    Raises:
        ValueError: If an option is out of its range.
        FileExistsError: If the folder holds something else and ``overwrite``
            is False.
    """
    out_dir = Path(out_dir)
    options = {
        'train': train,
        'val': val,
        'size': list(size),
        'seed': seed,
        'max_shapes': max_shapes,
        'ade': ade,
    }
    check_options(options)
    options['version'] = VERSION
    if out_dir.exists() and not out_dir.is_dir():
        raise NotADirectoryError(f'{out_dir} is a file, not a folder')

    if overwrite:
        remove_generated(out_dir)
    elif is_complete(out_dir, options):
        print(f'{out_dir} already holds this data set; left as it is')
        return

    for split, count in (('train', train), ('val', val)):
        write_split(out_dir, split, count, size, seed, max_shapes, ade)
    # Last, so that an interrupted run does not pass for a finished one.
    (out_dir / RECORD).write_text(json.dumps(options) + '\n')
    print(f'Wrote {train} training and {val} validation images to {out_dir}')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description='Draw a small COCO-format data set of circles, squares '
        'and triangles for demos and tests. The same options always give the '
        'same files; more images extend the set.'
    )
    parser.add_argument('out_dir', type=Path, help='folder to write to')
    parser.add_argument(
        '--train',
        type=int,
        default=1000,
        metavar='N',
        help='number of training images (default: %(default)s)',
    )
    parser.add_argument(
        '--val',
        type=int,
        default=60,
        metavar='N',
        help='number of validation images (default: %(default)s)',
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs='+',
        default=[320],
        metavar='PIXELS',
        help='side of the images, or their height and width; at least '
        f'{MIN_SIZE} each (default: 320)',
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=0,
        help='seed of everything random (default: %(default)s)',
    )
    parser.add_argument(
        '--max-shapes',
        type=int,
        default=8,
        metavar='N',
        help='most shapes in an image; the least is one '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--ade',
        action='store_true',
        help='also write the images and label maps (1 background, 2 circle, '
        '3 square, 4 triangle) in the layout of ADE20K, under OUT_DIR/ade',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace what another run left in the folder; files of other '
        'names stay',
    )
    return parser.parse_args()


def main() -> None:
    """Run the command line."""
    args = parse_args()
    if len(args.size) == 1:
        args.size *= 2
    try:
        make_shapes(**vars(args))
    except (ValueError, OSError) as error:
        raise SystemExit(f'make_shapes.py: error: {error}') from None


if __name__ == '__main__':
    main()
