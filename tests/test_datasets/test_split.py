"""Training and validation images: apart, and alike in their classes."""

from collections import Counter

import pytest

from mmmamba.datasets import DatasetError
from mmmamba.datasets.formats import Annotated, Notes, Sample, split_samples


@pytest.fixture
def make(tmp_path):
    """A data set of samples with these classes, and splits."""

    def make(labels, splits=None, contents=None):
        samples = []
        for i, own in enumerate(labels):
            path = tmp_path / f'{i}.jpg'
            path.write_text(str(contents[i] if contents else f'{i:05}'))
            split = splits[i] if splits else ''
            samples.append(Sample(path, 9, 9, split, labels=frozenset(own)))
        classes = sorted(set().union(*labels))
        return Annotated('COCO', classes, samples, Notes())

    return make


def sides(found):
    return {
        split: {s.image.stem for s in found.samples if s.split == split}
        for split in ('train', 'val', 'test')
    }


def test_classes_are_shared_out(make):
    """A rare class is on both sides, in about the share of the images."""
    labels = ['a'] * 70 + ['ab'] * 20 + ['c'] * 5 + [''] * 5
    found = make(labels)
    split_samples(found, 0.2, seed=0)
    val = Counter(
        label for s in found.samples if s.split == 'val' for label in s.labels
    )
    assert val == dict(a=18, b=4, c=1)
    assert {k: len(v) for k, v in sides(found).items()} == dict(
        train=80, val=20, test=0
    )


def test_seed(make):
    def draw(seed):
        found = make(['a'] * 30)
        split_samples(found, 0.2, seed)
        return sides(found)

    assert draw(0) == draw(0) != draw(1)


def test_least_number_of_images(make):
    found = make(['a', 'a'])
    split_samples(found, 0.2, 0)
    assert [len(v) for v in sides(found).values()] == [1, 1, 0]
    with pytest.raises(DatasetError, match='1 image cannot be split'):
        split_samples(make(['a']), 0.2, 0)


def test_existing_splits(make):
    splits = ['train', 'train', 'val', 'test', '']
    found = make(['a'] * 5, splits)
    split_samples(found, 0.5, 0)
    assert sides(found) == dict(train={'0', '1', '4'}, val={'2'}, test={'3'})


def test_what_is_beside_a_validation_split_is_trained_on(make):
    found = make(['a'] * 3, ['', 'val', ''])
    split_samples(found, 0.5, 0)
    assert sides(found) == dict(train={'0', '2'}, val={'1'}, test=set())


@pytest.mark.parametrize('split', ['train', 'val', 'test'])
def test_one_split_alone_is_divided(make, split):
    found = make(['a'] * 10, [split] * 10)
    split_samples(found, 0.2, 0)
    assert [len(v) for v in sides(found).values()] == [8, 2, 0]


def test_test_split_is_kept(make):
    found = make(['a'] * 10, ['train'] * 8 + ['test'] * 2)
    split_samples(found, 0.25, 0)
    assert sides(found)['test'] == {'8', '9'}
    assert len(sides(found)['val']) == 2


def test_equal_images_stay_together(make):
    found = make(['a'] * 20, contents=[f'{i // 2:03}' for i in range(20)])
    split_samples(found, 0.3, 0)
    val = sides(found)['val']
    assert {int(i) // 2 for i in val} == {
        int(i) // 2 for i in val if int(i) % 2
    }
    assert len(val) == 6


def test_training_image_that_is_validated_on(make):
    found = make('aaa', ['train', 'train', 'val'], contents='xyx')
    split_samples(found, 0.2, 0)
    assert sides(found) == dict(train={'1'}, val={'2'}, test=set())
    assert found.notes == {
        'training image that is in another split, too': ['0.jpg']
    }


def test_nothing_to_validate_on(make):
    found = make(['a', 'a', ''], ['train', 'train', 'val'])
    with pytest.raises(DatasetError, match='annotations is left for val'):
        split_samples(found, 0.2, 0)


def test_test_images_without_annotations_are_counted(make):
    found = make(['a', 'a', ''], ['train', 'val', 'test'])
    split_samples(found, 0.2, 0)
    assert found.notes == {'test image without annotation': ['2.jpg']}
    assert len(found.samples) == 2
