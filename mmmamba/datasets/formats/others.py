"""Formats that are not read, known by a word in their files."""

from collections.abc import Iterable
from pathlib import Path

_BOXES = 'export Pascal VOC or COCO instead'
#: What is in the files of a format, its name, and the remedy.
_OTHERS = {
    'region_attributes': ('VIA', 'export COCO instead'),
    'classTitle': ('Supervisely', 'convert it to COCO with its own apps'),
    '"coordinates"': ('CreateML', _BOXES),
    'xmin,ymin,xmax,ymax': ('a CSV of boxes', _BOXES),
    '"imageData": "': (
        'labelme with the images inside',
        'put the image files beside (imageData is their content in base64)',
    ),
}
_READ = 1 << 20  # characters of a file; an image may come before the word


def describe_other(files: Iterable[Path]) -> str:
    """Say in which format files are, and what to do.

    Args:
        files (Iterable[Path]): Any files; a few of JSON and CSV are opened.

    Returns:
        str: A clause for a message; empty if none is known.
    """
    texts = [f for f in files if f.suffix.lower() in ('.json', '.csv')]
    for file in texts[:9]:
        with file.open(encoding='utf-8-sig', errors='replace') as text:
            content = text.read(_READ)
        for word, (name, remedy) in _OTHERS.items():
            if word in content:
                return f'{file.name} is {name}, which is not read: {remedy}'
    return ''
