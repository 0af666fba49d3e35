"""Finding one's way in the config of a data set."""

from collections.abc import Iterator
from typing import TypeVar

_Dict = TypeVar('_Dict', bound=dict)


def unwrapped(dataset: _Dict) -> _Dict:
    """Return the config of a data set without its wrappers.

    Args:
        dataset (dict): A config such as ``cfg.test_dataloader.dataset``.

    Returns:
        dict: What is inside ``RepeatDataset`` and the like; itself, if
        nothing is around it.
    """
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def leaves(dataset: _Dict) -> Iterator[_Dict]:
    """Give the configs of all data sets inside of the wrappers.

    Args:
        dataset (dict): As of :func:`unwrapped`.

    Yields:
        dict: Also each of those that a ``ConcatDataset`` joins.
    """
    dataset = unwrapped(dataset)
    if 'datasets' in dataset:
        for part in dataset['datasets']:
            yield from leaves(part)
    else:
        yield dataset
