"""Write a data set in the layout of COCO or of ADE20K."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..images import open_image, progress
from .sample import Annotated, Instance, Notes, Sample, area, as_text

#: Folders of ADE20K.
_ADE = {'train': 'training', 'val': 'validation', 'test': 'test'}
_SAMPLED = 20  # images whose decoding is timed


def write_dataset(
    found: Annotated, out_dir: Path, copy: bool, max_size: int | None
) -> None:
    """Write images and annotations.

    Args:
        found (Annotated): The data set, split.
        out_dir (Path): An empty folder.
        copy (bool): Copy images instead of linking to them.
        max_size (int, optional): Longest side of an image; larger ones are
            written smaller, with all that is annotated.
    """
    _set_names(found)
    for sample in progress(found.samples, len(found.samples), 'Writing'):
        if found.read_map:
            folder = out_dir / 'images' / _ADE[sample.split]
        else:
            folder = out_dir / sample.split
        folder.mkdir(parents=True, exist_ok=True)
        size = (sample.width, sample.height)
        if max_size and max(size) > max_size:
            scale = max_size / max(size)
            size = (
                max(1, round(sample.width * scale)),
                max(1, round(sample.height * scale)),
            )
            _shrink(sample, folder / sample.name, size)
            _scale(sample, size, found.notes)
        else:
            place(sample.image, folder / sample.name, copy)
        if found.read_map:
            maps = out_dir / 'annotations' / _ADE[sample.split]
            maps.mkdir(parents=True, exist_ok=True)
            labels = Image.fromarray(found.read_map(sample))
            if labels.size != size:
                before = np.unique(np.asarray(labels))
                labels = labels.resize(size, Image.Resampling.NEAREST)
                if len(np.unique(np.asarray(labels))) < len(before):
                    found.notes.add(
                        'label map of which --max-size leaves fewer classes',
                        sample.image.name,
                    )
            labels.save((maps / sample.name).with_suffix('.png'))
    if not found.read_map:
        (out_dir / 'annotations').mkdir()
        for split in _ADE:
            of_split = [s for s in found.samples if s.split == split]
            if of_split:
                content = coco_content(of_split, found.classes)
                file = out_dir / f'annotations/instances_{split}.json'
                file.write_text(json.dumps(content), 'utf-8')


def coco_content(samples: list[Sample], classes: list[str]) -> dict:
    """The content of a COCO-format file; ids start at 1.

    Args:
        samples (list[Sample]): The images, with their names.
        classes (list[str]): Class names in their order.

    Returns:
        dict: Images, annotations and categories.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, sample in enumerate(samples, 1):
        images.append(
            dict(
                id=image_id,
                file_name=sample.name,
                width=sample.width,
                height=sample.height,
            )
        )
        for instance in sample.instances:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=classes.index(instance.label) + 1,
                    bbox=list(instance.bbox),
                    area=area(instance),
                    segmentation=instance.segmentation,
                    iscrowd=int(instance.iscrowd),
                )
            )
    return dict(
        images=images,
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in enumerate(classes, 1)],
    )


def place(source: Path, target: Path, copy: bool) -> None:
    """Link to a file, or copy it where links do not work.

    Args:
        source (Path): The file.
        target (Path): The link or copy; must not exist.
        copy (bool): Copy in any case.
    """
    source = source.resolve()
    if not copy:
        for link in (os.symlink, os.link):
            try:
                link(source, target)
                return
            except OSError:  # Windows without the right, another disk
                continue
    shutil.copyfile(source, target)


def time_saved(found: Annotated, out_dir: Path) -> float:
    """Measure what smaller images save an epoch.

    Args:
        found (Annotated): The data set, written.
        out_dir (Path): Where it is.

    Returns:
        float: Seconds of decoding, from a sample of the training images.
    """
    import mmcv

    train = [s for s in found.samples if s.split == 'train']
    folder = out_dir / ('images/training' if found.read_map else 'train')
    chosen = train[:: max(1, len(train) // _SAMPLED)][:_SAMPLED]
    seconds = 0.0
    for sample in chosen:
        for path, sign in (
            (sample.image, 1),
            (folder / sample.name, -1),
        ):
            data = path.read_bytes()
            start = time.perf_counter()
            mmcv.imfrombytes(data)
            seconds += sign * (time.perf_counter() - start)
    return seconds / len(chosen) * len(train)


def _set_names(found: Annotated) -> None:
    """A plain file name for each image, of a stem that no other one has."""
    taken: set[str] = set()
    for sample in found.samples:
        # Separators of any system, control characters, hidden files.
        stem = re.sub(r'[\x00-\x1f/\\:]|^\.+', '_', sample.image.stem)
        unique, number = stem, 1
        while unique.lower() in taken:
            number += 1
            unique = f'{stem}_{number}'
        taken.add(unique.lower())
        sample.name = unique + sample.image.suffix


def _shrink(sample: Sample, target: Path, size: tuple[int, int]) -> None:
    with open_image(sample.image) as file:
        # Photos of some phones hold a second picture.
        form = 'JPEG' if file.format == 'MPO' else file.format
        # JPEG decodes at a fraction of its size, near the wanted one.
        file.draft(None, (2 * max(size), 2 * max(size)))
        image = file if sample.stored else ImageOps.exif_transpose(file)
        if image.mode in ('P', '1'):
            image = image.convert('RGB')
        small = image.resize(size, Image.Resampling.LANCZOS)
        options = dict(quality=95) if form in ('JPEG', 'WEBP') else {}
        small.save(target, form, **options)


def _scale(sample: Sample, size: tuple[int, int], notes: Notes) -> None:
    """Bring what is annotated to a new size of the image."""
    factors = np.array(size) / (sample.width, sample.height)
    kept = []
    for number, instance in enumerate(sample.instances, 1):
        where = f'{sample.image.name}: object {number}'
        x, y, width, height = (
            np.reshape(instance.bbox, (2, 2)) * factors
        ).ravel()
        if width < 1 or height < 1:  # mmdet ignores them silently
            notes.add('box below 1 px by --max-size', where)
            continue
        kept.append(instance)
        instance.bbox = (float(x), float(y), float(width), float(height))
        if isinstance(instance.segmentation, dict):
            instance.segmentation = _scale_mask(instance, size)
            if not area(instance):
                instance.segmentation = []
                notes.add('mask of no pixel by --max-size (box kept)', where)
        else:
            instance.segmentation = [
                (np.reshape(part, (-1, 2)) * factors).ravel().tolist()
                for part in instance.segmentation
            ]
    sample.instances = kept
    if not sample.label_map:
        sample.labels = frozenset(i.label for i in kept)
    sample.width, sample.height = size


def _scale_mask(instance: Instance, size: tuple[int, int]) -> dict:
    from pycocotools import mask

    pixels = Image.fromarray(mask.decode(instance.segmentation))
    small = np.asarray(pixels.resize(size, Image.Resampling.NEAREST))
    return as_text(mask.encode(np.asfortranarray(small)))
