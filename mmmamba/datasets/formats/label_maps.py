"""Label maps of segmentation: numbers, palettes, colors or 0/255 masks."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..findings import DatasetError
from ..images import open_image, progress
from ..label_maps import find_clash, used_colors
from .sample import Annotated, Notes, Sample
from .source import Source, agreed, common, differ, read_names

_LOSSLESS = ('.png', '.bmp', '.tif', '.tiff')
_BLURRED = ('.jpg', '.jpeg', '.jfif')
_MAP_FOLDER = re.compile(
    r'(?:(?:train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?)[ _-]?)?'
    r'(?:segmentation)?(?:masks?|labels?|annot(?:ation)?s?|gt|ground_?truth'
    r'|label_?maps?|segmentation(?:class)?|segmentationclass(?:aug|png)?)'
)
_MAP_NAME = re.compile(
    r'(.+?)_(?:mask|labels?|labelids|l|gt|seg|segmentation)', re.IGNORECASE
)
_JPEG = 'is JPEG, which blurs the edges of classes; export PNG'
# In the color tables of data sets; their pixels belong to no class.
_NOTHING = ('void', 'unlabelled', 'unlabeled', 'ignore')
_MOST_CLASSES = 254
_MOST_COLORS = 64  # of maps without a table; more come from blurred edges
# Labels that are 0 or 255 so often, and these grays, are a blurred mask.
_MOSTLY = 0.8
_FEWEST_GRAYS = 8
# What Pillow multiplies the labels of such PNGs with.
_SCALES = {'L;2': 85, 'L;4': 17}


@dataclass
class _Table:
    """Names by label: a number, or a color as ``r << 16 | g << 8 | b``."""

    names: dict[int, str]
    colors: bool


def is_here(source: Source) -> bool:
    """Whether a folder holds annotations in this format."""
    return any(_pairs(source))


def read(
    source: Source,
    names: list[str] | None = None,
    ignored: Iterable[int] = (),
) -> Annotated:
    """Read a data set.

    Args:
        source (Source): Its files.
        names (list[str], optional): Class names in the order of their
            labels, where no table has them.
        ignored (Iterable[int]): Labels that are no class. Nor is 255, save
            in 0/255 masks, as the highest of gray levels, or in a table.

    Returns:
        Annotated: With ``read_map``.

    Raises:
        DatasetError: If the maps cannot be label maps, or do not have the
            classes that are named.
    """
    notes = Notes()
    table = _find_table(source)
    pairs, jpegs = _pairs(source), _pairs(source, _BLURRED)
    by_color = table.colors if table else _are_colors(source, pairs, notes)
    samples, present = _look(source, pairs, by_color, notes)
    for path in jpegs.values():
        notes.add(f'label map that {_JPEG}', source.name(path))
    pixels = sum(present.values(), Counter())
    found = set(pixels)
    colors = by_color or any(label > 255 for label in found)
    if not found:
        reasons = '; '.join(f'{k}: {v[0]}' for k, v in notes.items())
        raise DatasetError(
            f'{source.root}: no image has a usable label map '
            f'({reasons or "docs/prepare.md shows where they may lie"})'
        )
    if not colors:
        _refuse_blurred(source, pixels)
    ignored = set(ignored)
    levels = not (colors or table) and _are_levels(found, names)
    if levels and len(found) > 2:
        spelt = ', '.join(map(str, sorted(found)))
        notes.add('gray levels (255 is a class, too; see --ignore)', spelt)
    elif not (colors or levels or (table and 255 in table.names)):
        share = pixels[255] / pixels.total()
        for sample in samples:
            if 255 in ignored or 255 not in present[sample.image]:
                continue
            notes.add(
                'label 255 (ignored)',
                f'{share:.2%} of all pixels, as in '
                f'{source.name(sample.label_map or sample.image)}',
            )
        ignored.add(255)
    if table is None:
        table = _make_table(source, found, colors, levels, names, ignored)
    elif names:
        raise DatasetError(
            f'--classes: {source.root} has a table of its classes: '
            f'{", ".join(table.names.values())}'
        )
    kept = {
        label: name
        for label, name in table.names.items()
        if label not in ignored and name.lower() not in _NOTHING
    }
    if not 2 <= len(kept) <= _MOST_CLASSES:
        raise DatasetError(
            f'{source.root}: the label maps have {len(kept)} classes '
            f'({", ".join(kept.values()) or "none"}); a segmentor needs two '
            f'to {_MOST_CLASSES}, the background included: --ignore must '
            'leave two'
        )
    # A table may give several labels one name.
    classes = list(dict.fromkeys(kept.values()))
    numbers = {label: classes.index(kept[label]) + 1 for label in kept}
    for sample in samples:
        inside = present[sample.image]
        sample.labels = frozenset(kept[i] for i in inside if i in kept)
        for label in sorted(set(inside) - set(table.names) - ignored):
            notes.add(
                f'label {_spell(label, colors)} without a class (ignored)',
                source.name(sample.label_map or sample.image),
            )
    source.note_unused(samples, notes, [*pairs.values(), *jpegs.values()])

    def read_map(sample: Sample) -> np.ndarray:
        assert sample.label_map is not None
        labels = _load(sample.label_map, by_color)
        known, places = np.unique(labels, return_inverse=True)
        lookup = np.array([numbers.get(int(k), 0) for k in known], np.uint8)
        return lookup[places].reshape(labels.shape)

    palette = None
    if colors:
        palette = [
            [label >> 16, label >> 8 & 255, label & 255]
            for label in (
                next(k for k in kept if kept[k] == name) for name in classes
            )
        ]
    return Annotated('label maps', classes, samples, notes, palette, read_map)


def _look(
    source: Source, pairs: dict[Path, Path], by_color: bool, notes: Notes
) -> tuple[list[Sample], dict[Path, Counter[int]]]:
    """The usable pairs, and how many pixels of each label they have."""
    samples, present = [], {}
    splits = source.listed_splits()
    items = sorted(pairs.items())
    for image, path in progress(items, len(items), 'Reading label maps'):
        sample = source.open(image, notes, splits.get(image.stem, ''))
        if sample is None:
            continue
        name = source.name(path)
        try:
            labels = _load(path, by_color)
        except (OSError, Image.DecompressionBombError) as error:
            notes.add('broken label map', f'{name}: {error}')
            continue
        except ValueError as error:
            notes.add(f'label map that {error}', name)
            continue
        height, width = labels.shape
        if not source.has_size(sample, width, height, notes):
            continue
        sample.label_map = path
        samples.append(sample)
        values, counts = np.unique(labels, return_counts=True)
        present[image] = Counter(dict(zip(values.tolist(), counts.tolist())))
    return samples, present


def blurred(source: Source) -> str:
    """Say which file seems to be a label map in JPEG, if there is one."""
    for path in _pairs(source, _BLURRED).values():
        return f'{source.name(path)} is a label map that {_JPEG}'
    return ''


def unmatched(source: Source) -> str:
    """Say which file is where label maps are, but is that of no image."""
    for path in _maps(source, _LOSSLESS):
        return (
            f'{source.name(path)} seems to be a label map, but no image has '
            'its name; if each file is the mask of one object, join those of '
            'an image to one label map, or write COCO'
        )
    return ''


def _maps(source: Source, suffixes: tuple[str, ...]) -> dict[Path, str]:
    """What may be label maps by folder or name, and their image's stem."""
    maps = {}
    stems = {image.stem for image in source.images}
    for file in source.with_suffix(*suffixes):
        parent = file.relative_to(source.root).parts[:-1]
        marked = _MAP_NAME.fullmatch(file.stem)
        in_folder = any(_MAP_FOLDER.fullmatch(p.lower()) for p in parent)
        if in_folder or (marked and marked[1] in stems):
            maps[file] = marked[1] if marked else file.stem
    return maps


def _pairs(
    source: Source, suffixes: tuple[str, ...] = _LOSSLESS
) -> dict[Path, Path]:
    """The label map of each image that has one."""
    maps = _maps(source, suffixes)
    by_stem = defaultdict(list)
    for image in source.images:
        if image not in maps:
            by_stem[image.stem].append(image)
    pairs: dict[Path, Path] = {}
    for file, stem in maps.items():
        # A name may end in _l without meaning it.
        candidates = by_stem.get(file.stem) or by_stem.get(stem) or []
        scores = [
            (_closeness(source, image, file), image)
            for image in candidates
            if not differ(source.split_of(image), source.split_of(file))
        ]
        scores.sort(reverse=True)
        if len(scores) == 1 or (scores and scores[0][0] > scores[1][0]):
            pairs.setdefault(scores[0][1], file)
    return pairs


def _closeness(source: Source, image: Path, file: Path) -> tuple:
    """How well the folders of an image and a map fit: more is better."""
    first = image.relative_to(source.root).parts[-2::-1]
    second = file.relative_to(source.root).parts[-2::-1]
    return (
        source.split_of(image) == source.split_of(file),
        first == second,
        common(first, second),
        -abs(len(first) - len(second)),
        source.in_image_folder(image),
    )


def _are_colors(source: Source, pairs: dict[Path, Path], notes: Notes) -> bool:
    """Whether a map has a pixel of a color; gray alone may be numbers.

    So are palettes, unless they differ: then a number means nothing.
    """
    palettes = {}
    for path in pairs.values():
        try:
            with open_image(path) as file:
                if file.mode in ('RGB', 'RGBA') and file.format != 'JPEG':
                    pixels = np.asarray(file.convert('RGB'))
                    if (pixels != pixels[..., :1]).any():
                        return True
                palettes[source.name(path)] = used_colors(file)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # counted where it is read
    clash = find_clash(palettes)
    if clash:
        notes.add('palettes that differ (read by color)', clash)
    return bool(clash)


def _refuse_blurred(source: Source, pixels: Counter[int]) -> None:
    """Refuse 0/255 masks whose edges interpolation made gray."""
    gray = set(pixels) - {0, 255}
    if (
        len(gray) < _FEWEST_GRAYS
        or not min(gray) < 128 < max(gray)
        or pixels[0] + pixels[255] < _MOSTLY * pixels.total()
    ):
        return
    raise DatasetError(
        f'the label maps of {source.root} are masks of 0 and 255 with blurred '
        f'edges: {len(gray)} grays between have '
        f'{1 - (pixels[0] + pixels[255]) / pixels.total():.2%} of the pixels. '
        'Make every pixel from 128 on 255 and the others 0, or save them '
        'without smoothing and interpolation'
    )


def _are_levels(found: set[int], names: list[str] | None) -> bool:
    """Whether labels are gray levels up to white, and no numbers.

    They are spaced evenly, or too few for their height to be numbers.
    """
    even = np.linspace(0, 255, len(found))
    if len(found) > 1 and np.abs(np.array(sorted(found)) - even).max() < 1:
        return True
    highest = max(found - {255}, default=0)
    return 255 in found and len(names or ()) == len(found) <= highest


def _load(path: Path, by_color: bool) -> np.ndarray:
    """Read a label map as ``(H, W)`` labels.

    Raises:
        ValueError: If it cannot be one; the message ends "label map that".
    """
    with open_image(path) as file:
        if file.format == 'JPEG':  # whatever its suffix
            raise ValueError(_JPEG)
        palette = file.mode == 'P' and by_color
        if palette or file.mode in ('RGB', 'RGBA', 'LA'):
            pixels = np.asarray(file.convert('RGB'))
        elif file.mode == '1':
            pixels = np.asarray(file.convert('L'))
        else:
            raw = file.tile[0][3] if file.tile else ''  # loading drops it
            pixels = np.asarray(file)
            if not by_color:  # Pillow brings 2 and 4 bits to 0 to 255
                pixels = pixels // _SCALES.get(str(raw), 1)
    if pixels.ndim == 2:
        if not np.issubdtype(pixels.dtype, np.integer):
            raise ValueError('has labels that are no whole numbers')
        if pixels.min() < 0 or pixels.max() > 255:
            raise ValueError('has labels beyond 255')
        labels = pixels.astype(np.uint32)
        return labels * 0x010101 if by_color else labels
    red, green, blue = pixels.astype(np.uint32).transpose(2, 0, 1)
    if not by_color and (red == green).all() and (red == blue).all():
        return red  # numbers, stored as gray
    return red << 16 | green << 8 | blue


def _find_table(source: Source) -> _Table | None:
    """The classes, which all tables of a kind must name alike."""
    tables = {}
    for file in source.with_suffix('.csv', '.txt'):
        table = _read_table(file)
        if table:
            tables[file] = table
    for colors in (True, False):
        agreed({f: t for f, t in tables.items() if t.colors == colors})
    return next(iter(tables.values()), None)


def _read_table(file: Path) -> _Table | None:
    """A CSV, CVAT's or CamVid's list, a list of names, or nothing."""
    name = file.name.lower()
    if file.suffix.lower() == '.csv' and 'class' in name:
        return _read_csv(file)
    if name in ('classes.txt', 'class_names.txt'):
        return _Table(dict(enumerate(read_names(file))), False)
    if name not in ('labelmap.txt', 'label_colors.txt'):
        return None
    text = file.read_text('utf-8-sig', 'replace')
    lines = [line for line in text.splitlines() if line.strip()]
    names = {}
    for line in lines:
        if name == 'label_colors.txt':  # CamVid's: r g b name
            cells = line.split(maxsplit=3)
            names[_color(cells[:3], file)] = cells[-1].strip()
        elif line[0] != '#':  # CVAT's: label:color_rgb:parts:actions
            cells = [*line.split(':'), '']
            names[_color(cells[1].split(','), file)] = cells[0].strip()
    return _Table(names, True)


def _read_csv(file: Path) -> _Table:
    """name,r,g,b as in CamVid, or Pixel Value,Class as in Roboflow."""
    text = file.read_text('utf-8-sig', 'replace')
    try:
        rows = [
            [cell.strip() for cell in row]
            for row in csv.reader(text.splitlines())
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise DatasetError(f'{file}: {error}') from None
    names: dict[int, str] = {}
    colors = bool(rows) and len(rows[0]) >= 4
    for row in rows:
        try:
            if colors:
                names[_color(row[1:4], file)] = row[0]
            else:
                names[int(row[0])] = row[1]
        except (ValueError, IndexError, DatasetError):
            if row is not rows[0]:  # the first names the columns
                raise DatasetError(
                    f'{file}: cannot read the row {",".join(row)!r}; a row is '
                    'name,r,g,b or number,name'
                ) from None
    if not names:
        raise DatasetError(f'{file} has no classes: name,r,g,b expected')
    return _Table(names, colors)


def _color(cells: list[str], file: Path) -> int:
    try:
        red, green, blue = (int(cell) for cell in cells)
        if not all(0 <= value <= 255 for value in (red, green, blue)):
            raise ValueError
    except ValueError:
        raise DatasetError(
            f'{file}: {",".join(cells)!r} is no color r,g,b of 0 to 255'
        ) from None
    return red << 16 | green << 8 | blue


def _make_table(
    source: Source,
    found: set[int],
    colors: bool,
    levels: bool,
    names: list[str] | None,
    ignored: set[int],
) -> _Table:
    """Name the labels that were found, where no table does."""
    if colors and len(found) > _MOST_COLORS:
        raise DatasetError(
            f'the label maps of {source.root} have {len(found)} colors: their '
            'edges seem to be blurred, as in JPEG. Export them without loss, '
            'or put a class_dict.csv with rows name,r,g,b beside them: other '
            'colors are then ignored'
        )
    labels = sorted(found - ignored)
    if not names:
        if labels == [0, 255]:
            return _Table({0: 'background', 255: 'foreground'}, False)
        return _Table(
            {label: f'class_{_spell(label, colors)}' for label in labels},
            colors,
        )
    if not colors and not levels:
        # Numbers: a class may be missing from a small data set.
        numbers = range(len(names) + len(ignored))
        labels = [n for n in numbers if n not in ignored][: len(names)]
    more = sorted(found - ignored - set(labels))
    if more or len(labels) != len(names):
        raise DatasetError(
            f'--classes names {len(names)} classes, but the label maps of '
            f'{source.root} have the labels '
            f'{", ".join(_spell(n, colors) for n in sorted(found))}, of which '
            f'ignored: {", ".join(map(str, sorted(ignored))) or "none"} '
            '(--ignore)'
        )
    return _Table(dict(zip(labels, names)), colors)


def _spell(label: int, colors: bool) -> str:
    if not colors:
        return str(label)
    return f'{label >> 16}_{label >> 8 & 255}_{label & 255}'
