"""Image files: which there are, how large they are, whether they decode."""

import json
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

import cv2
import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import TiffImageFile
from rich.progress import Progress

#: What OpenCV reads, in lower case.
SUFFIXES = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.webp', '.tif', '.tiff')
# Pillow hands EPS to Ghostscript.
_FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF')
# EXIF: the values of the tag Orientation that exchange width and height.
_ORIENTATION = 0x0112
# OpenCV turns such an image unless it is told not to; a TIFF always, and a
# WebP never.
_TURNED = (5, 6, 7, 8)
_TIFF_SIZE = (256, 257)  # the tags of width and height
_DARK = 64  # of 255: a quarter of the range, as 14 of 16 bits have it

_T = TypeVar('_T')


class ImageSize(NamedTuple):
    """Size of an image in pixels, as it is shown, that is with EXIF applied.

    Attributes:
        width (int): Width.
        height (int): Height.
        turned (bool): Whether EXIF exchanges width and height, so that the
            stored pixels are ``height`` wide.
        dark (bool): Whether OpenCV, which keeps the upper 8 of 16 bits, would
            load it almost black. Defaults to False, as if not decoded.
    """

    width: int
    height: int
    turned: bool
    dark: bool = False

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the stored pixels."""
        if self.turned:
            return self.height, self.width
        return self.width, self.height


def open_image(path: str | Path) -> ImageFile:
    """Open an image, whatever its name, but none that starts a program."""
    return Image.open(path, formats=_FORMATS)


def read_size(path: str | Path) -> ImageSize | str:
    """Read the size of an image from the head of its file.

    Args:
        path (str | Path): The file.

    Returns:
        ImageSize | str: Its size, or why it is no image that can be read.
    """
    return _read(path, decode=False)


def decode(path: str | Path) -> ImageSize | str:
    """Decode an image to its last pixel; as :func:`read_size` else."""
    return _read(path, decode=True)


def _read(path: str | Path, decode: bool) -> ImageSize | str:
    try:
        if not os.path.getsize(path):
            return 'the file is empty'
        with open_image(path) as image:
            # Before the tag, whose reader swallows the errors of a PNG.
            if decode and image.format != 'TIFF':
                image.load()
            orientation = _orientation(image)
            width, height = image.size
            if isinstance(image, TiffImageFile):  # whose size may be turned
                width, height = (image.tag_v2[tag] for tag in _TIFF_SIZE)
            if decode:
                image.load()
    except FileNotFoundError:
        return 'there is no such file'
    except Image.DecompressionBombError as error:
        size = str(error).split(',')[0]  # Image size (...) exceeds limit of
        return f'{size} of Pillow; make it smaller, or cut it into pieces'
    # Pillow's decoders raise whatever they stumble upon.
    except Exception as error:  # noqa: BLE001
        with open(path, 'rb') as file:
            head = file.read(64)
        if head.lstrip().lower().startswith((b'<!doctype', b'<html')):
            return 'a web page, not an image'
        if head[4:12] in (b'ftypheic', b'ftypheix', b'ftypmif1'):
            return 'a HEIC photo; save it as JPEG'
        if 'truncated' in str(error):
            return 'truncated: the end of the file is missing'
        return f'not an image that can be read ({type(error).__name__})'
    try:
        str(path).encode()
    except UnicodeEncodeError:  # OpenCV would crash
        return 'its name is not UTF-8; rename it'
    dark = _is_dark(str(path), image.format) if decode else False
    if dark is None:
        return (
            f'a {image.format} that OpenCV cannot decode; save it as PNG or '
            'JPEG'
        )
    turned = orientation in _TURNED and image.format != 'WEBP'
    if turned:
        width, height = height, width
    # Of a TIFF nobody sees the stored pixels.
    turned = turned and image.format != 'TIFF'
    return ImageSize(width, height, turned, dark)


def _is_dark(path: str, kind: str | None) -> bool | None:
    """Whether 16 bits hold fewer; None if OpenCV, which loads them, refuses.

    Of TIFF it knows some kinds only; of a PNG it misses an end that Pillow
    does not.
    """
    if kind == 'JPEG':  # all that Pillow decodes
        return False if cv2.haveImageReader(path) else None
    try:
        data = np.fromfile(path, np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_COLOR)
        if pixels is None:
            return None
        if pixels.max() >= _DARK:
            return False
        deep = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH)
    except cv2.error:
        return None
    return deep is not None and deep.dtype == np.uint16


def _orientation(image: Image.Image) -> int | None:
    """The tag of EXIF; damaged EXIF data say nothing."""
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:  # noqa: BLE001
        return None


def read_sizes(paths: Iterable[str]) -> dict[str, ImageSize | str]:
    """Read the sizes of many images, several at a time."""
    paths = list(paths)
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(paths, pool.map(read_size, paths)))


def decode_all(
    paths: Iterable[str], memory: str | Path | None = None
) -> dict[str, ImageSize | str]:
    """Decode images in threads, with a progress bar if it takes long.

    Args:
        paths (Iterable[str]): The files.
        memory (str | Path, optional): A JSON file that remembers the images
            that decoded, by path, size and time of change. Defaults to None.

    Returns:
        dict[str, ImageSize | str]: As of :func:`decode`, by path.
    """
    paths = list(dict.fromkeys(paths))
    known: dict[str, list] = _remembered(memory)
    stamps = {path: _stamp(path) for path in paths}
    found: dict[str, ImageSize | str] = {}
    for path, stamp in stamps.items():
        entry = known.get(path)
        if stamp and entry and entry[:2] == stamp:
            found[path] = ImageSize(*entry[2:])
    missing = [path for path in paths if path not in found]
    # Decoders release the GIL, so that threads use all cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes: Iterable[ImageSize | str] = pool.map(decode, missing)
        sizes = progress(sizes, len(missing), 'Images')
        for path, size in zip(missing, sizes):
            found[path] = size
    if memory and missing:
        for path, size in found.items():
            stamp = stamps[path]
            if stamp and isinstance(size, ImageSize):
                known[path] = [*stamp, *size]
        Path(memory).parent.mkdir(parents=True, exist_ok=True)
        Path(memory).write_text(json.dumps(known))
    return found


def progress(items: Iterable[_T], total: int, what: str) -> Iterator[_T]:
    """Iterate; of many items with a progress bar, which goes in the end."""
    with Progress(transient=True, disable=total < 200) as bar:
        yield from bar.track(items, total, description=what)


def _remembered(memory: str | Path | None) -> dict[str, list]:
    """Read what was remembered; a damaged file remembers nothing."""
    if memory is None or not Path(memory).is_file():
        return {}
    try:
        known = json.loads(Path(memory).read_text())
    except ValueError:
        return {}
    if not isinstance(known, dict):
        return {}
    length = 2 + len(ImageSize._fields)
    return {
        p: e
        for p, e in known.items()
        if isinstance(e, list) and len(e) == length
    }


def _stamp(path: str) -> list[int] | None:
    """Size and time of change of a file; None if there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]


def spelling(name: str) -> str:
    """What all spellings of a name share.

    Exports escape characters as in an address and change the case; macOS
    writes letters and their accents apart.
    """
    return unicodedata.normalize('NFC', unquote(name)).lower()


def may_be_one(name: str, other: str) -> bool:
    """Whether two names may be those of one file.

    Exports put folders in front, or spell a path another way.

    Args:
        name (str): A path, with either kind of slash.
        other (str): Another one.

    Returns:
        bool: Whether one of them is the end of the other.
    """
    return all(a == b for a, b in zip(_from_end(name), _from_end(other)))


def _from_end(name: str) -> list[str]:
    parts = spelling(name).replace('\\', '/').split('/')
    return [p for p in reversed(parts) if p not in ('', '.', '..')]


def walk(root: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder from one on and its files, but for what is hidden.

    Args:
        root (str | Path): The folder; what links lead to is entered once.

    Yields:
        tuple[str, list[str]]: The path and the names.
    """
    entered = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.path.realpath(folder)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        # __MACOSX holds what macOS adds to an archive.
        folders[:] = sorted(
            f for f in folders if f[0] != '.' and f != '__MACOSX'
        )
        yield folder, [name for name in names if name[0] != '.']


class Folder:
    """The files of a folder, found by the names that exports give them.

    Exports write backslashes, put the folder's name or a whole path in front,
    and spell names in other ways.

    Args:
        path (str | Path): The folder.
        suffixes (tuple[str, ...], optional): Suffixes in lower case that
            count; None for any. Defaults to None.
    """

    def __init__(
        self, path: str | Path, suffixes: tuple[str, ...] | None = None
    ) -> None:
        self.path = Path(path)
        names = (
            os.path.relpath(os.path.join(parent, name), self.path)
            for parent, files in walk(self.path)
            for name in files
        )
        self.names = sorted(
            name.replace(os.sep, '/')
            for name in names
            if suffixes is None or name.lower().endswith(suffixes)
        )
        self._present = frozenset(self.names)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for name in self.names:
            self._alike[spelling(name)].append(name)

    def find(self, name: str) -> str | None:
        """Return the name, from the folder on, of the file that is meant."""
        if name in self._present:
            return name
        if os.path.isabs(name) and os.path.isfile(name):
            return name
        parts = [p for p in name.replace('\\', '/').split('/') if p != '.']
        for start in range(len(parts)):
            candidate = '/'.join(parts[start:])
            if candidate in self._present:
                return candidate
            found = self._alike.get(spelling(candidate))
            if found:
                return found[0] if len(found) == 1 else None
        # Links to a folder beyond the first are not walked.
        return name if os.path.isfile(self.path / name) else None
