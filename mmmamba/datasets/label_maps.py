"""The labels in label maps, compared with the classes of a config."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from PIL import Image

from .findings import Finding, listing
from .images import open_image, progress

_IGNORE = 255
_MOST = 65535  # of 16 bits


class Labels(NamedTuple):
    """What a label map holds.

    Attributes:
        pixels (np.ndarray): How many pixels each label from 0 on has.
        colors (dict): The color of each, if it has a palette.
    """

    pixels: np.ndarray
    colors: dict[int, tuple[int, ...]]


def count_labels(paths: Iterable[str]) -> dict[str, Labels | str]:
    """Count the labels of each map, in threads.

    Args:
        paths (Iterable[str]): The files.

    Returns:
        dict[str, Labels | str]: By path, or what is wrong with the file.
    """
    paths = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counts = progress(pool.map(_count, paths), len(paths), 'Label maps')
        return dict(zip(paths, counts))


def used_colors(image: Image.Image) -> dict[int, tuple[int, ...]]:
    """The colors that the labels of an image have by its palette.

    Args:
        image (Image.Image): A label map.

    Returns:
        dict[int, tuple[int, ...]]: By label; none without a palette, or
        where it is the gray that an image without one has.
    """
    palette = image.getpalette() if image.mode == 'P' else None
    if palette is None:
        return {}
    labels = np.unique(np.asarray(image)).tolist()
    colors = {n: tuple(palette[3 * n : 3 * n + 3]) for n in labels}
    return {n: c for n, c in colors.items() if n == 0 or c != (n, n, n)}


def find_clash(palettes: Mapping[str, Mapping[int, tuple[int, ...]]]) -> str:
    """Say which label has one color in a file and another in the next.

    Args:
        palettes (Mapping): Of each file, what :func:`used_colors` gave.

    Returns:
        str: The label, its colors and the files; nothing if all agree.
    """
    first: dict[int, tuple[str, tuple[int, ...]]] = {}
    for path, colors in palettes.items():
        for label, color in colors.items():
            other, known = first.setdefault(label, (path, color))
            if known != color:
                return f'{label} is {known} in {other} and {color} in {path}'
    return ''


def _count(path: str) -> Labels | str:
    try:
        with open_image(path) as file:
            if file.format == 'JPEG':
                return (
                    f'label map {path} is JPEG, which blurs the edges of '
                    'classes: export PNG'
                )
            labels = np.asarray(file)
            colors = used_colors(file)
            mode = file.mode
    # Pillow's decoders raise whatever they stumble upon.
    except Exception as error:  # noqa: BLE001
        return f'label map {path}: {error}'
    if labels.ndim != 2:
        return (
            f'label map {path} is {mode}, a picture of {labels.shape[2]} '
            'channels; it must have one, of class numbers: grey or palette. '
            'tools/dataset_tools/prepare.py turns colours into numbers'
        )
    if labels.dtype.kind == 'f' or labels.min() < 0:
        return f'label map {path} is {mode}; it must have whole numbers'
    if labels.max() > _MOST:
        return (
            f'label map {path} has the number {labels.max()}; labels are '
            f'{_MOST} at most'
        )
    return Labels(np.bincount(labels.astype(np.int64).ravel()), colors)


def check_labels(
    counts: dict[str, Labels | str],
    classes: Sequence[str],
    reduce_zero_label: bool,
    folder: str,
    label_map: Mapping[int, int] | None = None,
) -> tuple[list[Finding], dict[str, int]]:
    """Compare the labels of maps with the classes.

    Args:
        counts (dict): Of :func:`count_labels`.
        classes (Sequence[str]): The classes of the config.
        reduce_zero_label (bool): Whether label 0 is "ignore" and 1 the first
            class.
        folder (str): Folder of the maps, for the messages.
        label_map (Mapping[int, int], optional): What the labels become, as
            mmseg has it. Defaults to None: they stay.

    Returns:
        tuple[list[Finding], dict[str, int]]: What is wrong, and the pixels of
        each class.
    """
    first = int(reduce_zero_label)
    highest = len(classes) - 1 + first
    broken = [c for c in counts.values() if isinstance(c, str)]
    findings = (
        [Finding('error', 'label_map', listing(broken), folder, len(broken))]
        if broken
        else []
    )
    total = np.zeros(_MOST + 1, np.int64)
    wrong: dict[str, list[int]] = {}
    for path, count in counts.items():
        if isinstance(count, str):
            continue
        pixels = _mapped(count.pixels, label_map or {}, first)
        total[: len(pixels)] += pixels
        labels = np.flatnonzero(pixels).tolist()
        above = [n for n in labels if n > highest and n != _IGNORE]
        if above:
            wrong[path] = above
    present = [int(n) for n in np.flatnonzero(total)]
    if present == [0, _IGNORE] and not label_map:
        findings.append(
            Finding(
                'error',
                'mask_0_255',
                f'the label maps of {folder} hold 0 and 255 alone, and 255 '
                'is "ignore": nothing but one class would be left. Write 1 '
                'instead of 255; tools/dataset_tools/prepare.py does',
                folder,
                len(counts),
            )
        )
    elif wrong:
        path, labels = next(iter(wrong.items()))
        findings.append(
            Finding(
                'error',
                'label_too_high',
                f'label map {path} has the labels {listing(labels)}; the '
                f'{len(classes)} classes of the config are {first} to '
                f'{highest}'
                + (', after 0 for "ignore"' if first else '')
                + ', and 255 is "ignore". Correct metainfo=dict(classes=...), '
                'num_classes or reduce_zero_label'
                + (
                    '. If the maps are pictures of grey levels, '
                    'tools/dataset_tools/prepare.py numbers them'
                    if len(present) <= len(classes) + 1
                    else ''
                )
                + (f' ({len(wrong)} such maps)' if len(wrong) > 1 else ''),
                folder,
                len(wrong),
            )
        )
    elif reduce_zero_label and total[0] and not label_map:
        top = max(n for n in present if n != _IGNORE)
        if top == highest - 1 and top > 0:
            findings.append(
                Finding(
                    'error',
                    'reduce_zero_label',
                    f'reduce_zero_label makes label 0 of {folder} "ignore" '
                    f'and {highest} the label of {classes[-1]!r}, which no '
                    f'map has; the maps have 0 to {top}. If 0 is '
                    f'{classes[0]!r}, set reduce_zero_label=False in the '
                    'data sets and pipelines',
                    folder,
                    len(counts),
                )
            )
    used = {name: int(total[first + i]) for i, name in enumerate(classes)}
    if present and not any(used.values()) and not findings:
        findings.append(
            Finding(
                'error',
                'nothing_left',
                f'the label maps of {folder} hold "ignore" alone',
                folder,
                len(counts),
            )
        )
    clash = find_clash(
        {p: c.colors for p, c in counts.items() if isinstance(c, Labels)}
    )
    if clash:
        findings.append(
            Finding(
                'warning',
                'palettes',
                f'the palettes of the label maps of {folder} differ: {clash}. '
                'Training goes by the number: if the color is what counts, '
                'tools/dataset_tools/prepare.py reads that',
                folder,
            )
        )
    return findings, used


def _mapped(
    pixels: np.ndarray, label_map: Mapping[int, int], first: int
) -> np.ndarray:
    """How many pixels each label has after mmseg's ``label_map``."""
    mapped = pixels.copy()
    mapped.resize(max(len(pixels), _IGNORE + 1), refcheck=False)
    for label in label_map:
        mapped[label + first : label + first + 1] = 0
    for label, new in label_map.items():
        new = _IGNORE if new in (-1, _IGNORE) else new + first
        mapped[new] += pixels[label + first : label + first + 1].sum()
    return mapped
