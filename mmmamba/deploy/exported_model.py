"""Running an exported model: without PyTorch, without OpenMMLab.

Needs numpy, ONNX Runtime or OpenVINO, and OpenCV or Pillow.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from . import pixels
from .runtimes import RUNTIMES


class ExportedModel:
    """A model written by ``tools/deployment/export.py``.

    Args:
        file (str | Path): An ``.onnx`` file for ONNX Runtime, or an ``.xml``
            file for OpenVINO.
        threads (int, optional): Threads to use. Defaults to None: as many as
            there are cores for this process.
        device (str): ``'cpu'``, or for ONNX Runtime ``'cuda'`` or a GPU such
            as ``'cuda:1'``. OpenVINO takes its own names (``'GPU'``) too.
            Defaults to ``'cpu'``.

    Attributes:
        facts (SimpleNamespace): What the file tells: ``task``, ``classes``,
            ``shape``, ``mean``, ``std`` and others.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the runtime is not installed.
        ValueError: If the runtime cannot read the file, or mmmamba did not
            write it.

    Examples:
        >>> model = ExportedModel('detector.onnx')
        >>> objects = model.predict(cv2.imread('photo.jpg'))
        >>> objects['boxes'], objects['scores'], objects['labels']
    """

    def __init__(
        self,
        file: str | Path,
        threads: int | None = None,
        device: str = 'cpu',
    ) -> None:
        self.file = Path(file)
        if not self.file.is_file():
            raise FileNotFoundError(f'there is no model {file}')
        kind = {'.xml': 'openvino', '.onnx': 'ort'}.get(self.file.suffix)
        if kind is None:
            raise ValueError(f'{file} is neither an .onnx nor an .xml file')
        try:
            self._runtime = RUNTIMES[kind](self.file, threads, device)
        except (ImportError, OSError, ValueError):
            raise
        except Exception as error:  # each runtime has errors of its own
            reason = ' '.join(str(error).split())
            raise ValueError(f'{file} cannot be loaded: {reason}') from error
        if self._runtime.facts is None:
            raise ValueError(
                f'{file} tells nothing about its classes and images: it was '
                'not written by mmmamba (tools/deployment/export.py)'
            )
        try:
            self.facts = self._read(self._runtime.facts)
        except (AttributeError, TypeError, ValueError) as error:
            raise ValueError(
                f'{file}: its metadata are damaged ({error}); export it anew'
            ) from error

    def _read(self, text: str) -> SimpleNamespace:
        """Read the facts, and look into those on which predict() stumbles."""
        facts = SimpleNamespace(**json.loads(text))
        how = facts.resize.get('interpolation', 'bilinear')
        known = how in pixels.INTERPOLATIONS
        if not known and facts.resize.get('backend') != 'pillow':
            raise ValueError(f'the interpolation is {how!r}')
        sides = self._runtime.input_shape[2:]
        if self._runtime.input_is_uint8:
            sides = self._runtime.input_shape[1:3]
        if facts.shape is not None and facts.shape != sides:
            raise ValueError(
                f'the shape is {facts.shape}, the graph has {sides}'
            )
        return facts

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Run the graph as it is.

        Args:
            images (np.ndarray): What :meth:`prepare` makes, with the axis of
                the batch in front.

        Returns:
            dict[str, np.ndarray]: The outputs by name.

        Raises:
            ValueError: If the images are of another dtype than the file's.
        """
        # OpenVINO would convert them without a word.
        wanted = 'uint8' if self._runtime.input_is_uint8 else 'float32'
        if images.dtype != wanted:
            raise ValueError(
                f'{self.file} takes images of {wanted}, not {images.dtype}'
            )
        return dict(zip(self.facts.outputs, self._runtime(images)))

    def prepare(self, image: np.ndarray) -> tuple[np.ndarray, tuple]:
        """Resize, pad and normalize an image as in the config's test.

        Args:
            image (np.ndarray): BGR, ``(H, W, 3)`` uint8.

        Returns:
            tuple[np.ndarray, tuple]: The input without the axis of the batch,
            and the height and width that the image has in it.

        Raises:
            ValueError: If it is no such image, or if the config's test has
                steps that are not known here.
        """
        kind = getattr(image, 'dtype', type(image).__name__)
        shape: tuple[int, ...] = getattr(image, 'shape', ())
        if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ValueError(
                'an image is an array (H, W, 3) of uint8 in the order BGR, as '
                f'cv2.imread() gives it where it can read, not {kind} {shape}'
            )
        steps = getattr(self.facts, 'unprepared', [])
        if steps:
            raise ValueError(
                f'the test pipeline of {self.facts.config} has '
                f'{", ".join(steps)}, which is not done here: prepare images '
                'as it does, and call run()'
            )
        return pixels.prepare(image, self.facts)

    def predict(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """Predict what is in one image.

        Args:
            image (np.ndarray): BGR, ``(H, W, 3)`` uint8, of any size.

        Returns:
            dict[str, np.ndarray]: Of a detector ``boxes`` ``(N, 4)`` x1, y1,
            x2, y2 in pixels of the image, ``scores``, ``labels`` and, if it
            has them, ``masks`` ``(N, H, W)`` bool, the best first; of a
            segmentor ``label_map`` ``(H, W)``; of a classifier ``scores``
            ``(classes,)``; else the feature maps.
        """
        prepared, size = self.prepare(image)
        # A file for several images at once gets the same one several times.
        batch = self._runtime.input_shape[0] or 1
        outputs = self.run(np.repeat(prepared[None], batch, 0))
        outputs = {name: value[0] for name, value in outputs.items()}
        finish = {
            'detection': pixels.objects,
            'segmentation': pixels.label_map,
        }.get(self.facts.task)
        if finish is None:
            return outputs
        return finish(outputs, image.shape[:2], size, self.facts)
