"""Images as their annotator saw them."""

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class TurnAsAnnotated(BaseTransform):
    """Undo EXIF's turn of a photo whose stored pixels were annotated.

    ``LoadImageFromFile`` turns a photo as its EXIF data say. Our data sets
    set ``turned`` where the annotations are those of the pixels before. It is
    a transform of its own since the toolboxes' inferencers look for
    ``LoadImageFromFile`` by name.
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
