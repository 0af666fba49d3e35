"""Divide images into training and validation, the classes evenly."""

import hashlib
import random
from collections import Counter, defaultdict
from pathlib import Path

from ..findings import DatasetError
from .sample import Annotated, Sample


def split_samples(found: Annotated, fraction: float, seed: int) -> str:
    """Give every sample a split; existing splits are kept.

    Images with the same bytes never are on both sides: of one that is, the
    copy in training is left out.

    Args:
        found (Annotated): The data set; changed in place.
        fraction (float): Share of the images for validation, where there is
            no validation split.
        seed (int): Seed of the lot.

    Returns:
        str: What was done, in a sentence.

    Raises:
        DatasetError: If there are too few images.
    """
    digests = _digests([s.image for s in found.samples])
    splits = {sample.split for sample in found.samples}
    if 'val' in splits and splits & {'train', ''}:
        what = 'The splits of the source are kept'
        for sample in found.samples:
            sample.split = sample.split or 'train'
    else:
        # A validation split without a training split is all there is.
        alone = splits == {'test'}
        free = [s for s in found.samples if alone or s.split != 'test']
        groups: dict[object, list[Sample]] = defaultdict(list)
        for sample in free:
            groups[digests.get(sample.image, sample.image)].append(sample)
        _draw(list(groups.values()), fraction, seed)
        what = f'{fraction:.0%} of the images were drawn for validation'
        if splits - {''} and len(splits) > 1:
            what += '; the test split is kept' * ('test' in splits)
    evaluated = {
        digests[s.image]
        for s in found.samples
        if s.split != 'train' and s.image in digests
    }
    for sample in found.samples:
        if sample.split == 'train' and digests.get(sample.image) in evaluated:
            found.notes.add(
                'training image that is in another split, too',
                sample.image.name,
            )
            sample.split = ''
    tests = [s for s in found.samples if s.split == 'test']
    if not any(s.labels for s in tests):
        for sample in tests:
            sample.split = ''
            found.notes.add('test image without annotation', sample.image.name)
    found.samples[:] = [s for s in found.samples if s.split]
    for split in ('train', 'val'):
        if not any(s.labels for s in found.samples if s.split == split):
            raise DatasetError(
                f'no image with annotations is left for {split}: annotate '
                'more images, or choose another --val-fraction or --seed'
            )
    return what


def _draw(groups: list[list[Sample]], fraction: float, seed: int) -> None:
    """Iterative stratification (Sechidis et al., 2011): rare classes first."""
    if len(groups) < 2:
        raise DatasetError(
            f'{len(groups)} image cannot be split into training and '
            'validation: annotate more'
        )
    lot = random.Random(seed)
    lot.shuffle(groups)
    labels = [frozenset().union(*(s.labels for s in g)) for g in groups]
    shares = {'train': 1 - fraction, 'val': fraction}
    counts = Counter(label for own in labels for label in own)
    wanted = {
        split: {name: share * counts[name] for name in counts}
        for split, share in shares.items()
    }
    room = {split: share * len(groups) for split, share in shares.items()}
    room['val'] = min(max(1, round(room['val'])), len(groups) - 1)
    room['train'] = len(groups) - room['val']
    left = set(range(len(groups)))
    members = defaultdict(set)
    for i, own in enumerate(labels):
        for label in own:
            members[label].add(i)
    while left:
        scarce = [name for name in counts if members[name] & left]
        name = min(
            scarce, key=lambda n: (len(members[n] & left), n), default=None
        )
        for i in sorted(members[name] & left if name else left):
            split = max(
                shares,
                key=lambda s: (
                    room[s] > 0,
                    wanted[s][name] if name else 0,
                    room[s],
                ),
            )
            for sample in groups[i]:
                sample.split = split
            for label in labels[i]:
                wanted[split][label] -= 1
            room[split] -= 1
            left.remove(i)


def _digests(images: list[Path]) -> dict[Path, bytes]:
    """Digests of the files that have the size of another one."""
    by_size = defaultdict(list)
    for image in images:
        by_size[image.stat().st_size].append(image)
    return {
        image: hashlib.sha256(image.read_bytes()).digest()
        for same in by_size.values()
        if len(same) > 1
        for image in same
    }
