"""Loading and checking of the data sets that people annotate."""

from .check import (
    Report,
    check_annotations,
    check_datasets,
    check_images,
    evaluators_of,
    inspect_datasets,
)
from .coco import read_coco, right_coco
from .findings import DatasetError, Finding

__all__ = [
    'DatasetError',
    'Finding',
    'Report',
    'check_annotations',
    'check_datasets',
    'check_images',
    'evaluators_of',
    'inspect_datasets',
    'read_coco',
    'right_coco',
]
