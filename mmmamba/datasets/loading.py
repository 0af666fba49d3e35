"""Images as their annotator saw them."""

from typing import Any

import mmcv
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TurnAsAnnotated(BaseTransform):
    """Undo EXIF's turn of a photo whose stored pixels were annotated.

    ``LoadImageFromFile`` turns a photo as its EXIF data say. Our data sets
    set ``turned`` where the annotations are those of the pixels before.
    """

    def transform(self, results: dict) -> dict:
        """Load the image of ``results`` anew if ``turned`` is true."""
        if results.get('turned'):
            image = mmcv.imread(
                results['img_path'], flag='color_ignore_orientation'
            )
            results['img'] = image.astype(results['img'].dtype)
            results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results


class LoadedAsAnnotated(BaseDataset):
    """A data set that puts :class:`TurnAsAnnotated` into its pipeline.

    The data sets do it, and not their configs: the toolboxes' inferencers
    expect a config's pipeline to begin as theirs do. mmdet's
    ``PipelineSwitchHook`` exchanges the pipeline, so that it is looked at for
    each image.
    """

    #: Whether there is a photo that needs it.
    turned = False

    def prepare_data(self, idx: int) -> Any:
        """Load an image; see ``BaseDataset``."""
        steps = self.pipeline.transforms
        if self.turned and not any(
            isinstance(step, TurnAsAnnotated) for step in steps
        ):
            for i, step in enumerate(steps):
                if isinstance(step, LoadImageFromFile):
                    steps.insert(i + 1, TurnAsAnnotated())
                    break
        return super().prepare_data(idx)
