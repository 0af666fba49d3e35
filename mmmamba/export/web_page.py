"""A folder with a page that runs an exported model in a browser.

Nothing in it is loaded from elsewhere: the page, the model, and ONNX Runtime
Web as npm publishes it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.request
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mmmamba.utils.files import whole_or_nothing

from .errors import ExportError
from .facts import Facts
from .onnx_file import save_onnx

if TYPE_CHECKING:
    import onnx

VERSION = '1.30.0'
#: Of npm's archive, as ``npm view onnxruntime-web dist.integrity`` prints it.
SHA512 = (
    'q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1S'
    'igqR4CXAfKYQ=='
)
#: What the page needs of it.
RUNTIME = (
    'ort.wasm.min.mjs',
    'ort-wasm-simd-threaded.mjs',
    'ort-wasm-simd-threaded.wasm',
)
PAGE = ('index.html', 'style.css', 'app.js', 'pixels.js', 'drawing.js')


def check_page(facts: Facts) -> None:
    """Refuse a model that the page cannot show.

    Args:
        facts (Facts): Its facts.

    Raises:
        ExportError: If it ends in neither boxes nor a label map.
    """
    if facts.outputs[0] not in ('boxes', 'label_map'):
        raise ExportError(
            'the page shows what detectors and segmentors find; this model '
            f'ends in {", ".join(facts.outputs)}'
        )


def write_page(model: onnx.ModelProto, facts: Facts, folder: Path) -> None:
    """Write the page of a model.

    Args:
        model (onnx.ModelProto): A detector or segmentor in standard
            operations.
        facts (Facts): Its facts.
        folder (Path): Where the files go; other files in it stay.

    Raises:
        ExportError: If ONNX Runtime Web cannot be had.
    """
    runtime = find_runtime()
    folder.mkdir(parents=True, exist_ok=True)
    for name in RUNTIME:
        (folder / name).write_bytes((runtime / name).read_bytes())
    page = resources.files('mmmamba.export') / 'web'
    for name in PAGE:
        (folder / name).write_bytes((page / name).read_bytes())
    (folder / 'facts.json').write_text(facts.to_json())
    save_onnx(model, folder / 'model.onnx')


def find_runtime() -> Path:
    """Return the folder of ONNX Runtime Web, fetched from npm the first time.

    Returns:
        Path: In the user's cache.

    Raises:
        ExportError: If npm's registry is not reached, or sends other bytes.
    """
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    folder = Path(cache) / 'mmmamba' / f'onnxruntime-web-{VERSION}'
    if all((folder / name).is_file() for name in RUNTIME):
        return folder
    registry = os.environ.get(
        'NPM_CONFIG_REGISTRY', 'https://registry.npmjs.org'
    )
    name = f'onnxruntime-web-{VERSION}.tgz'
    url = f'{registry.rstrip("/")}/onnxruntime-web/-/{name}'
    kept = folder.parent / name
    try:
        if kept.is_file():
            archive = kept.read_bytes()
        else:
            with urllib.request.urlopen(url, timeout=60) as answer:
                archive = answer.read()
    except OSError as error:
        raise ExportError(
            f'ONNX Runtime Web was not fetched from {url} ({error}); where '
            f'there is internet, run npm pack onnxruntime-web@{VERSION}, and '
            f'put {name} into {folder.parent}'
        ) from None
    if hashlib.sha512(archive).digest() != base64.b64decode(SHA512):
        raise ExportError(
            f'{kept if kept.is_file() else url} is not the archive that npm '
            'published: its checksum differs'
        )
    unpack(archive, folder)
    return folder


def unpack(archive: bytes, folder: Path) -> None:
    """Take what the page needs out of npm's archive.

    Args:
        archive (bytes): The archive, its checksum tested.
        folder (Path): Where the files go.
    """
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for name in RUNTIME:
            member = tar.extractfile(f'package/dist/{name}')
            assert member is not None, f'{name} is in each archive'
            with whole_or_nothing(folder / name) as temporary:
                temporary.write_bytes(member.read())
