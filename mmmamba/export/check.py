"""Comparing an exported file with the model it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmmamba.deploy import ExportedModel

from .errors import ExportError, need
from .graph import Graph

#: What may differ by rounding of float32, and with weights in float16. Feature
#: maps, scores of classes and logits: over their maximum; label maps: the
#: share of the pixels.
RELATIVE = 1e-5, 1e-2
PIXELS = 1e-4, 1e-2
OBJECTS = dict(
    boxes=(0.05, 1.0), scores=(1e-4, 1e-2), labels=(0, 0), masks=(1e-3, 1e-2)
)
#: Objects below this score may change places with others that are alike.
SCORE = 0.3
#: Where none is above, so many of the best are compared.
BEST = 20


@dataclass
class Difference:
    """How an output of the file differs from the model's.

    Attributes:
        name (str): Of the output.
        shape (str): Its shape.
        value (float): The difference.
        allowed (float): What it may be.
        kind (str): What is measured.
    """

    name: str
    shape: str
    value: float
    allowed: float
    kind: str

    @property
    def passed(self) -> bool:
        """Whether it is as small as rounding makes it."""
        return self.value <= self.allowed

    @property
    def text(self) -> str:
        """The difference in words."""
        return f'{self.value:.2g} {self.kind}'


def compare(
    graph: Graph, file: Path, example: Tensor, half: bool = False
) -> list[Difference]:
    """Run both on the same images.

    Args:
        graph (Graph): The trained model, or what the file was made of.
        file (Path): The file.
        example (Tensor): The images.
        half (bool): Whether the file has weights in float16. Defaults to
            False.

    Returns:
        list[Difference]: Of each output.
    """
    with torch.no_grad():
        expected = graph(example)
    if isinstance(expected, Tensor):
        expected = (expected,)
    expected = [e.numpy() for e in expected]
    names = graph.facts.outputs
    found = run_file(file, example, names)
    if graph.facts.task == 'detection':
        wanted = dict(zip(names, expected))
        return _objects(wanted, dict(zip(names, found)), half)
    result = []
    for name, a, b in zip(names, expected, found):
        shape = 'x'.join(map(str, b.shape))
        if a.shape != b.shape:
            result.append(Difference(name, shape, np.inf, 0, 'of the shape'))
        elif name == 'label_map':
            share = float((a != b).mean())
            result.append(
                Difference(name, shape, share, PIXELS[half], 'of the pixels')
            )
        else:
            error = float(np.abs(a - b).max() / np.abs(a).max())
            result.append(
                Difference(
                    name, shape, error, RELATIVE[half], 'of the maximum'
                )
            )
    return result


def _objects(expected: dict, found: dict, half: bool) -> list[Difference]:
    """Compare the objects above :data:`SCORE` with those nearest to them."""
    counted = expected['scores'] > SCORE
    number = int(counted.sum())
    other = int((found['scores'] > SCORE).sum())
    if number == other == 0:
        counted[:, :BEST] = expected['labels'][:, :BEST] >= 0
        number = other = int(counted.sum())
    result = [
        Difference(
            'objects', f'{number}', abs(number - other), 0, 'more or less'
        )
    ]
    pairs = [
        _nearest(image, expected, found, row)
        for image, row in zip(*np.nonzero(counted))
    ]
    images, rows = np.array(pairs, int).reshape(-1, 2).T
    for name, values in expected.items():
        a, b = values[counted], found[name][images, rows]
        error = float(np.abs(a - b).max()) if number else 0.0
        shape = 'x'.join(map(str, found[name].shape))
        kind = 'px' if name == 'boxes' else ''
        result.append(
            Difference(name, shape, error, OBJECTS[name][half], kind)
        )
    return result


def _nearest(
    image: int, expected: dict, found: dict, row: int
) -> tuple[int, int]:
    """Where an object is found: one of its label, if there is one.

    Rounding lets objects of nearly equal scores change places.
    """
    boxes = found['boxes'][image] - expected['boxes'][image, row]
    other = found['labels'][image] != expected['labels'][image, row]
    distance = np.abs(boxes).max(-1) + np.where(other, 1e6, 0)
    return image, int(distance.argmin())


def run_file(file: Path, example: Tensor, names: list[str]) -> list:
    """Run a file of any format.

    Args:
        file (Path): The file.
        example (Tensor): The images.
        names (list[str]): Of the outputs.

    Returns:
        list[np.ndarray]: The outputs.

    Raises:
        ExportError: If its runtime is missing, or is not for this system.
    """
    kind = file.suffix
    if kind in ('.onnx', '.xml'):
        outputs = ExportedModel(file).run(example.numpy())
        return [outputs[name] for name in names]
    if kind == '.pt':
        outputs = torch.jit.load(str(file))(example)
    elif kind == '.pt2':
        from torch._inductor import aoti_load_package

        outputs = aoti_load_package(str(file))(example)
    elif kind == '.pte':
        runtime = need('executorch.runtime', 'executorch').Runtime.get()
        outputs = (
            runtime.load_program(str(file))
            .load_method('forward')
            .execute([example.contiguous()])
        )
    else:
        raise ExportError(f'{file}: macOS alone runs Core ML files')
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    return [output.detach().numpy() for output in outputs]
