"""Finding one's way in the config of a data set."""

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
