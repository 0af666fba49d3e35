"""The files of a data set, found once; what is not below it is never read."""

import json
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ..coco import as_number
from ..findings import DatasetError, listing
from ..images import SUFFIXES, may_be_one, read_size, spelling, walk
from .others import describe_other
from .sample import Notes, Sample

_T = TypeVar('_T')

_SPLITS = {
    'train': 'train',
    'training': 'train',
    'val': 'val',
    'valid': 'val',
    'validation': 'val',
    'test': 'test',
    'testing': 'test',
}
_LISTS = ('train', 'val', 'test')
#: A folder such as train, train2017, valid_images or trainannot.
_SPLIT_FOLDER = re.compile(
    rf'({"|".join(sorted(_SPLITS, key=len, reverse=True))})'
    r'(?:[ _-]?(?:images?|imgs?|labels?|masks?|annot(?:ation)?s?|set|data'
    r'|gt|\d+))*'
)


#: Where images are, if files of the same name are elsewhere: drawings of the
#: annotations, or VOC's SegmentationObject.
_IMAGE_FOLDERS = {'images', 'jpegimages'}


class Source:
    """The files below a folder.

    Args:
        root (Path): The folder.

    Attributes:
        files (list[Path]): Those that are not hidden, sorted.
        images (list[Path]): Those of them that are images by their suffix.
        read_json (Callable): Gives the content of a JSON file, or None if it
            is broken.

    Raises:
        DatasetError: If it is no folder, or has no images.
    """

    def __init__(self, root: Path):
        self.root = root
        if not root.is_dir():
            raise DatasetError(
                f'SOURCE {root} is no folder: unpack an archive first, and '
                'name the folder that holds images and annotations'
            )
        self.files = _files_below(root)
        self.images = [f for f in self.files if f.suffix.lower() in SUFFIXES]
        if not self.images:
            hint = describe_other(self.files)
            raise DatasetError(
                f'{root} has no images ({" ".join(SUFFIXES)}): '
                + (hint or 'name the folder that holds images and annotations')
            )
        # Detection and reading want the same large file; a few are kept.
        self.read_json = lru_cache(maxsize=4)(_read_json)
        self._seen: set[Path] = set()
        self._by_name = defaultdict(list)
        self._by_stem = defaultdict(list)
        for image in self.images:
            self._by_name[spelling(image.name)].append(image)
            self._by_stem[spelling(image.stem)].append(image)
        self._image_splits = {self.split_of(image) for image in self.images}

    def with_suffix(self, *suffixes: str) -> list[Path]:
        """The files whose names end so.

        Args:
            suffixes (str): In lower case, with the dot.

        Returns:
            list[Path]: Sorted.
        """
        return [f for f in self.files if f.suffix.lower() in suffixes]

    def annotation_files(self, suffix: str) -> list[Path]:
        """The files that may annotate one image each.

        Args:
            suffix (str): In lower case, with the dot.

        Returns:
            list[Path]: First those beside their image, then those in a folder
            Annotations: where an image has several, the first is used.
        """

        def rank(file: Path) -> int:
            images = self._by_stem.get(spelling(file.stem), ())
            if any(image.parent == file.parent for image in images):
                return 0
            return 1 if file.parent.name.lower() == 'annotations' else 2

        return sorted(self.with_suffix(suffix), key=rank)

    def name(self, path: Path) -> str:
        """The path of a file below the folder, for messages."""
        return path.relative_to(self.root).as_posix()

    def find_image(
        self, name: str, near: Path, split: str = ''
    ) -> Path | None:
        """Find the image that an annotation names.

        Only files below the folder are found, whatever the name says: it may
        be an address or a path of the machine where it was annotated.

        Args:
            name (str): A name or path, with either kind of slash.
            near (Path): The annotation file.
            split (str): Its split, if it has one.

        Returns:
            Path, optional: The one image that fits best, if there is one.
        """
        parts = _parts(name)
        if not parts:
            return None
        last, stem = parts[-1], Path(parts[-1]).stem
        found = (
            self._by_name.get(spelling(last))
            or self._by_stem.get(spelling(last))
            or self._by_stem.get(spelling(stem))
            or []
        )
        scored = [
            (
                folders_shared(image, name),
                image.name == last or image.stem in (last, stem),
                self.split_of(image) == split,
                common(image.parts, near.parts),
                self.in_image_folder(image),
                image,
            )
            for image in found
        ]
        # One in another split's folder is another, unless that is named, too.
        # The name of an annotation file counts where its split has a folder:
        # else several may list one folder.
        folder = self.split_of(near)
        if not folder and split in self._image_splits:
            folder = split
        scored = [
            score
            for score in scored
            if score[0] or not differ(self.split_of(score[-1]), folder)
        ]
        scored.sort(reverse=True)
        if len(scored) > 1 and scored[0][:-1] == scored[1][:-1]:
            return None
        return scored[0][-1] if scored else None

    def settle(
        self, found: Iterable[tuple[str, Path | None]]
    ) -> list[Path | None]:
        """Leave each image to the name that fits it, once all are known.

        A missing image must not lend its objects to one of another folder.

        Args:
            found (Iterable): The names, and what :meth:`find_image` gave.

        Returns:
            list[Path | None]: The images; none for a name that fits worse
            than another name of the same image, and is no spelling of it.

        Raises:
            DatasetError: If two names fit an image equally well.
        """
        found = list(found)
        best: dict[Path, tuple[tuple, str]] = {}
        for name, image in found:
            if image:
                rank = _fit(image, name), len(name)
                best[image] = max(best.get(image, (rank, name)), (rank, name))
        settled = []
        for name, image in found:
            if image and not may_be_one(name, best[image][1]):
                (fit, _), other = best[image]
                if _fit(image, name) == fit:
                    raise DatasetError(
                        f'{name} and {other} are annotated, and the only '
                        f'image for both is {image}: put the images in the '
                        'folders that are named, or take the annotations of '
                        'those that are missing out'
                    )
                image = None
            settled.append(image)
        return settled

    def in_image_folder(self, path: Path) -> bool:
        """Whether a file is in a folder such as images or JPEGImages."""
        folders = path.relative_to(self.root).parts[:-1]
        return any(f.lower() in _IMAGE_FOLDERS for f in folders)

    def listed_splits(self) -> dict[str, str]:
        """The split of each stem that VOC's ImageSets list."""
        splits: dict[str, str] = {}
        for file in self.with_suffix('.txt'):
            if file.stem in _LISTS and 'ImageSets' in file.parts:
                text = file.read_text('utf-8-sig', 'replace')
                for line in map(str.strip, text.splitlines()):
                    # Of a class, -1, 0 or 1 follows the name.
                    for name in (line, re.sub(r'\s+-?[01]$', '', line)):
                        if Path(name).suffix.lower() in SUFFIXES:
                            name = str(Path(name).with_suffix(''))
                        if name:
                            splits.setdefault(name, file.stem)
        return splits

    def split_of(self, path: Path) -> str:
        """The split that a file's folders name.

        Args:
            path (Path): A file below the folder.

        Returns:
            str: ``'train'``, ``'val'``, ``'test'`` or ``''``.
        """
        for part in reversed(path.relative_to(self.root).parts[:-1]):
            match = _SPLIT_FOLDER.fullmatch(part.lower())
            if match:
                return _SPLITS[match[1]]
        return ''

    def split_of_file(self, path: Path) -> str:
        """The split that an annotation file's name or its folders name."""
        words = re.split(r'[^a-z]+', path.stem.lower())
        named = [_SPLITS[word] for word in words if word in _SPLITS]
        return named[0] if named else self.split_of(path)

    def open(
        self, image: Path, notes: Notes, split: str = ''
    ) -> Sample | None:
        """Start the sample of an image.

        Args:
            image (Path): The image file.
            notes (Notes): Counts it if it is broken.
            split (str): Its split; by default that of its folders.

        Returns:
            Sample, optional: Its size and split, if it is an image.
        """
        size = read_size(image)
        if isinstance(size, str):
            notes.add('broken image', f'{self.name(image)}: {size}')
            self._seen.add(image)
            return None
        return Sample(
            image,
            size.width,
            size.height,
            split or self.split_of(image),
            turned=size.turned,
        )

    def open_once(
        self,
        image: Path | None,
        samples: Container[Path],
        where: str,
        notes: Notes,
        split: str = '',
    ) -> Sample | None:
        """Start the sample of an annotation, unless its image has one.

        Args:
            image (Path, optional): The image file, if it was found.
            samples (Container[Path]): The images that have a sample.
            where (str): The annotation.
            notes (Notes): Counts it if there is no sample.
            split (str): As of :meth:`open`.

        Returns:
            Sample, optional: As of :meth:`open`.
        """
        if image is None:
            notes.add('image not found', where)
            return None
        if image in samples:
            notes.add('image annotated twice', where)
            return None
        return self.open(image, notes, split)

    def has_size(
        self, sample: Sample, width: object, height: object, notes: Notes
    ) -> bool:
        """Whether an image is as large as its annotation says.

        Boxes drawn on another size would not fit. Those that were drawn on
        an image before it is turned as its EXIF data says are kept so.

        Args:
            sample (Sample): The image.
            width (object): As annotated, a number or text; 0 or neither if
                not known.
            height (object): Likewise.
            notes (Notes): Counts an image that is not.

        Returns:
            bool: True if the sizes agree or are not known.
        """
        width, height = as_number(width), as_number(height)
        if not width or not height:
            return True
        if (width, height) == (sample.width, sample.height):
            return True
        if sample.turned and (height, width) == (sample.width, sample.height):
            # Annotated on the stored pixels: our data sets load it so.
            sample.width, sample.height = sample.height, sample.width
            sample.stored = True
            return True
        self._seen.add(sample.image)
        notes.add(
            'image of another size than annotated',
            f'{self.name(sample.image)} is {sample.width}x{sample.height}, '
            f'not {width:g}x{height:g}',
        )
        return False

    def note_unused(
        self,
        samples: list[Sample],
        notes: Notes,
        others: Iterable[Path] = (),
    ) -> None:
        """Count the images that no annotation names.

        Args:
            samples (list[Sample]): What was read.
            notes (Notes): Counts them.
            others (Iterable[Path]): Images that need no annotation.
        """
        used = {sample.image for sample in samples} | self._seen
        used.update(others)
        for image in self.images:
            if image not in used:
                notes.add('image without usable annotation', self.name(image))


def _files_below(root: Path) -> list[Path]:
    """Every file that is not hidden, sorted; linked folders too, once."""
    files = [Path(folder, n) for folder, names in walk(root) for n in names]
    lost = [str(file) for file in files if not file.exists()]
    if lost:
        raise DatasetError(
            f'{len(lost)} files are links to what is not there: '
            f'{listing(lost)}. Copy the data set with its files (cp -rL), or '
            'take the links out'
        )
    return sorted(files)


def read_names(file: Path) -> list[str]:
    """The class names in a text file, one a line.

    Args:
        file (Path): The file.

    Returns:
        list[str]: In the order of their numbers.

    Raises:
        DatasetError: If a line among them is blank.
    """
    text = file.read_text('utf-8-sig', 'replace')
    names = [line.strip() for line in text.rstrip().splitlines()]
    if '' in names:
        # Darknet gives it a number, Datumaro does not.
        raise DatasetError(
            f'{file}: line {names.index("") + 1} is blank, and some tools '
            'count it as a class: take it out, or put a name there'
        )
    return names


def agreed(tables: Mapping[Path, _T]) -> _T | None:
    """The classes that all files name alike.

    Args:
        tables (Mapping): The classes of each file.

    Returns:
        object, optional: Those of the first, if there is one.

    Raises:
        DatasetError: If another file names others.
    """
    if not tables:
        return None
    first, classes = next(iter(tables.items()))
    for file, table in tables.items():
        if table != classes:
            raise DatasetError(
                f'{first} and {file} name the classes in different ways, so '
                'that a label means two things: make one data set of each '
                'folder, or remove the file that is wrong'
            )
    return classes


def differ(split: str, other: str) -> bool:
    """Whether two splits are known, and are not the same."""
    return bool(split and other and split != other)


def folders_shared(image: Path, name: str) -> int:
    """How many folders of an image, from it upwards, a name has as well."""
    folders = reversed(image.parts[:-1]), reversed(_parts(name)[:-1])
    return common(*(map(spelling, parts) for parts in folders))


def _fit(image: Path, name: str) -> tuple[int, bool]:
    """How well a name fits an image: by its folders, then its suffix."""
    return folders_shared(image, name), _parts(name)[-1] == image.name


def _parts(name: str) -> list[str]:
    """The parts of a path with either kind of slash."""
    return [p for p in re.split(r'[\\/]', name) if p not in ('', '.')]


def common(first: Iterable[str], second: Iterable[str]) -> int:
    """How many parts of two paths agree from the start."""
    count = 0
    for a, b in zip(first, second):
        if a != b:
            break
        count += 1
    return count


def _read_json(path: Path) -> object:
    """The content of a JSON file, or None if it is broken."""
    try:
        return json.loads(path.read_text('utf-8-sig'))
    except (OSError, ValueError, RecursionError):
        return None
