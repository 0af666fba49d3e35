"""Finding one's way in the config of a data set and its steps."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

_Dict = TypeVar('_Dict', bound=dict)


def type_name(config: Mapping) -> str:
    """The name of a config's type, without its scope.

    Args:
        config (Mapping): The config of a step, a hook, a metric or the like.

    Returns:
        str: Of the class, where the type is one.
    """
    kind = config.get('type')
    return getattr(kind, '__name__', str(kind)).split('.')[-1]


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
