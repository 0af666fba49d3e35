"""Loading and checking of the data sets that people annotate."""

from .check import (
    Report,
    check_datasets,
    evaluators_of,
    inspect_datasets,
)
from .coco import read_coco, right_coco
from .findings import DatasetError, Finding, raise_errors

__all__ = [
    'DatasetError',
    'Finding',
    'Report',
    'check_datasets',
    'evaluators_of',
    'inspect_datasets',
    'raise_errors',
    'read_coco',
    'right_coco',
]
