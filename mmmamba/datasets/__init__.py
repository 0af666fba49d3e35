"""Checks of the data sets that people annotate."""

from .check import (
    DatasetError,
    check_annotations,
    check_datasets,
    check_images,
    read_coco,
)

__all__ = [
    'DatasetError',
    'check_annotations',
    'check_datasets',
    'check_images',
    'read_coco',
]
