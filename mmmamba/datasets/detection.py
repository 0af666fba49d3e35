"""mmdet's COCO data set and metric, for files from any annotation tool.

Configs that need them import this module; it imports mmdet, which the rest of
the package does without.
"""

import logging
import os
from collections.abc import Mapping, Sequence

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.fileio import dump, get_local_path, load
from mmengine.logging import print_log

from .coco import read_coco, renumbered, right_coco
from .findings import Finding, raise_errors
from .loading import LoadedAsAnnotated

# Where the images of an annotation file are: the metric, which is not told,
# must merge those that are listed twice as the data set does.
_folders: dict[str, str | None] = {}


class CustomCoco(COCO):
    """A COCO-format file made right, its categories found by name.

    Args:
        annotation_file (str): The file.
        folder (str, optional): Folder of the images, whose names and sizes
            are looked at. Defaults to None.
        sizes (Mapping[int, tuple[int, int]], optional): Width and height by
            image id, where the images have been loaded. Defaults to None.
    """

    def __init__(
        self,
        annotation_file: str,
        folder: str | None = None,
        sizes: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        super().__init__()
        content = read_coco(annotation_file)
        self.dataset, self.findings = right_coco(
            content, annotation_file, folder, sizes
        )
        self._index()

    def _index(self) -> None:
        self.createIndex()
        self.img_ann_map = self.imgToAnns
        self.cat_img_map = self.catToImgs

    def number(self, names: Sequence[str]) -> None:
        """Number the categories as the classes are: 1 is that of the first.

        pycocotools sorts categories by their ids, and mmdet takes that for
        the order of the classes.

        Args:
            names (Sequence[str]): The classes.
        """
        given = self.dataset['categories']
        ordered = self.loadCats(self.get_cat_ids(names))
        ordered += [c for c in given if c['name'] not in names]
        number_of = {c['id']: i for i, c in enumerate(ordered, 1)}
        self.dataset['categories'] = [
            renumbered(c, i) for i, c in enumerate(ordered, 1)
        ]
        for annotation in self.dataset['annotations']:
            annotation['category_id'] = number_of[annotation['category_id']]
        self._index()

    def give_ids_back(self, file: str) -> None:
        """Write predictions anew, with the ids of the annotation file.

        Args:
            file (str): The predictions, in COCO's format of results.
        """
        predictions = load(file)
        for name, entries in (
            ('image_id', self.imgs),
            ('category_id', self.cats),
        ):
            for prediction in predictions:
                entry = entries[prediction[name]]
                prediction[name] = entry.get('given_id', entry['id'])
        dump(predictions, file)

    def get_cat_ids(
        self,
        cat_names: Sequence[str] = (),
        sup_names: Sequence[str] = (),
        cat_ids: Sequence[int] = (),
    ) -> list[int]:
        """Return the categories of these names, in the order of the names.

        mmdet returns them in the order of the file, which mixes classes up
        where two files differ. A name that the file does not have gets an id
        of its own, without objects, so that the labels after it stay right.
        """
        if not cat_names:
            return super().get_cat_ids(cat_names, sup_names, cat_ids)
        id_of = {c['name']: c['id'] for c in self.dataset['categories']}
        for name in cat_names:
            if name not in id_of:
                id_of[name] = max([0, *id_of.values()]) + 1
                category = dict(id=id_of[name], name=name)
                self.dataset['categories'].append(category)
                self.cats[id_of[name]] = category
        return [id_of[name] for name in cat_names]


@DATASETS.register_module()
class CustomCocoDataset(LoadedAsAnnotated, CocoDataset):
    """``CocoDataset`` that makes right what can be.

    Labels follow the names of the categories, whatever their order and ids
    in the file. What was made right or left out is logged.

    Attributes:
        findings (list[Finding]): The same.
        listed_images (int): Images that the file lists.
        empty_images (int): Images without objects among them. They serve as
            background, unless ``filter_cfg`` says ``filter_empty_gt=True``.

    Raises:
        DatasetError: If the annotations cannot serve.
    """

    def load_data_list(self) -> list[dict]:
        """Load the annotation file, made right."""
        folder = None if self.backend_args else self.data_prefix['img']

        def load(file: str) -> CustomCoco:
            _folders[os.path.abspath(file)] = folder
            coco = CustomCoco(file, folder)
            self.findings: list[Finding] = coco.findings
            raise_errors(coco.findings)
            return coco

        self.COCOAPI = load
        try:
            data_list = super().load_data_list()
        finally:
            del self.COCOAPI
        for finding in self.findings:
            level = getattr(logging, finding.severity.upper())
            print_log(finding.message, logger='current', level=level)
        self.turned = any(d['turned'] for d in data_list)
        self.listed_images = len(data_list)
        self.empty_images = sum(not d['instances'] for d in data_list)
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image, and how its pixels are to be loaded."""
        data_info = super().parse_data_info(raw_data_info)
        data_info['turned'] = raw_data_info['raw_img_info'].get(
            'turned', False
        )
        return data_info


@METRICS.register_module()
class CustomCocoMetric(CocoMetric):
    """``CocoMetric`` against the annotations that ``CustomCocoDataset`` uses.

    The same arguments. What ``outfile_prefix`` names has the ids of the
    annotation file.
    """

    def __init__(self, ann_file: str | None = None, **kwargs) -> None:
        super().__init__(ann_file=None, **kwargs)
        self._ann_file = ann_file
        if ann_file is not None:
            self._coco_api = self._read()

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute the metrics; see ``CocoMetric``."""
        if self._ann_file is not None:
            # Which boxes are inside of an image, its true size decides.
            self._coco_api = self._read(
                {
                    truth['img_id']: (truth['width'], truth['height'])
                    for truth, _ in results
                }
            )
            self._coco_api.number(self.dataset_meta['classes'])
        metrics = super().compute_metrics(results)
        if self._ann_file is not None and self.outfile_prefix is not None:
            for file in self._files:
                self._coco_api.give_ids_back(file)
        return metrics

    def results2json(
        self, results: Sequence[dict], outfile_prefix: str
    ) -> dict:
        """Write the predictions; see ``CocoMetric``."""
        files = super().results2json(results, outfile_prefix)
        self._files = set(files.values())
        return files

    def _read(
        self, sizes: Mapping[int, tuple[int, int]] | None = None
    ) -> CustomCoco:
        with get_local_path(
            self._ann_file, backend_args=self.backend_args
        ) as file:
            folder = None
            if sizes is not None:
                folder = _folders.get(os.path.abspath(file))
            return CustomCoco(file, folder, sizes)
