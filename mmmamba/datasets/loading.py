"""Images as their annotator saw them."""

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


def turn_as_annotated(dataset: BaseDataset) -> None:
    """Put :class:`TurnAsAnnotated` behind the loading of images.

    The data sets do it, and not their configs: the toolboxes' inferencers
    expect a config's pipeline to begin as theirs do.

    Args:
        dataset (BaseDataset): A data set with its pipeline.
    """
    steps = dataset.pipeline.transforms
    for i, step in enumerate(steps):
        if isinstance(step, LoadImageFromFile):
            steps.insert(i + 1, TurnAsAnnotated())
            return
