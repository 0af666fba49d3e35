"""Folders of images by class, as mmpretrain numbers them: by sorted name."""

import os
from collections.abc import Iterable, Mapping, Sequence

from .findings import DatasetError, Finding, listing
from .images import SUFFIXES, walk


def read_class_folders(
    path: str, classes: Sequence[str] | None = None
) -> list[str]:
    """The names of the folders in a folder, in the order of their labels.

    Args:
        path (str): The folder that holds them.
        classes (Sequence[str], optional): The classes of the config, which
            may be other names for all of them. Defaults to None.

    Returns:
        list[str]: The sorted names.

    Raises:
        DatasetError: If there are none, or if they are not the classes.
    """
    if not os.path.isdir(path):
        raise DatasetError(f'the image folder {path} does not exist')
    folders = sorted(e.name for e in os.scandir(path) if e.is_dir())
    if not folders:
        raise DatasetError(
            f'{path} has no folders: one for each class is expected, with '
            'its images'
        )
    if classes is None:
        return folders
    if len(classes) != len(folders):
        raise DatasetError(
            f'{path} has {len(folders)} folders ({listing(folders)}), but '
            f'the config names {len(classes)} classes ({listing(classes)})'
        )
    others = [name for name in folders if name not in classes]
    if not others and list(classes) != folders:
        raise DatasetError(
            f"the folders of {path} are numbered in their names' order, which "
            f'is not that of the classes in the config: set classes={folders}'
        )
    if 0 < len(others) < len(folders):
        raise DatasetError(
            f'{path} has folders that are no classes of the config: '
            f'{listing(others)}, beside some that are. Rename them, or set '
            f'classes={folders}'
        )
    return folders


def compare_class_folders(found: Mapping[str, Sequence[str]]) -> list[Finding]:
    """Find folders that give one label to different classes.

    Args:
        found (Mapping[str, Sequence[str]]): The names of the folders in each
            folder, of which the first is the one that is trained on.

    Returns:
        list[Finding]: An error for each that differs from the first.
    """
    findings = []
    first = next(iter(found), '')
    for path, names in found.items():
        if list(names) != list(found[first]):
            findings.append(
                Finding(
                    'error',
                    'class_folders_differ',
                    f'{path} has other folders than {first}, and labels are '
                    f'their numbers: {listing(names)}, and there '
                    f'{listing(found[first])}. Give both the same folders, '
                    'empty ones where a class has no images',
                    path,
                )
            )
    return findings


def find_unread_images(path: str, read: Iterable[str]) -> list[Finding]:
    """Find images that mmpretrain leaves out for their suffix.

    Args:
        path (str): The folder that holds the folders.
        read (Iterable[str]): The files that the data set lists.

    Returns:
        list[Finding]: A warning, if there are such images.
    """
    known = set(map(_suffix, read))
    others = set(SUFFIXES) - known
    unread = [
        _suffix(name)
        for folder, names in walk(path)
        for name in names
        if folder != path and _suffix(name) in others
    ]
    if not unread:
        return []
    return [
        Finding(
            'warning',
            'image_unread',
            f'{len(unread)} images of {path} are not read, because of their '
            f'suffix ({listing(sorted(set(unread)))}): set extensions='
            f'{sorted(known.union(unread))} in the data set',
            path,
            len(unread),
        )
    ]


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1].lower()
