"""Where the ops for ONNX Runtime and for OpenVINO are."""

import importlib.metadata
import re
from pathlib import Path

_BUILD = (
    'pip install --no-build-isolation --force-reinstall --no-deps, and the '
    'path or URL mmmamba comes from'
)


def ort_library() -> str:
    """Return the library of the ops for ONNX Runtime.

    Returns:
        str: Its path, for ``SessionOptions.register_custom_ops_library``.

    Raises:
        FileNotFoundError: If it is not built.
    """
    return _library('_ort_ops.so', 'a C++ compiler')


def openvino_extension() -> str:
    """Return the library of the ops for OpenVINO.

    Returns:
        str: Its path, for ``openvino.Core.add_extension``.

    Raises:
        FileNotFoundError: If it is not built.
        RuntimeError: If it is built for another version of OpenVINO than the
            one that is installed.
    """
    path = _library('_openvino_ops.so', 'a C++ compiler and openvino')
    # A library for another OpenVINO does not load, nor does it say why.
    content = Path(path).read_bytes()
    built_for = re.search(rb'mmmamba built for openvino ([\d.]+)', content)
    wanted = built_for[1].decode() if built_for else 'unknown'
    try:
        installed = importlib.metadata.version('openvino')
    except importlib.metadata.PackageNotFoundError:
        installed = 'none'
    if installed != wanted:
        raise RuntimeError(
            f'{path} is built for OpenVINO {wanted}, and {installed} is '
            f'installed. Run pip install openvino=={wanted}, or build it anew '
            f'with {_BUILD}'
        )
    return path


def _library(name: str, needs: str) -> str:
    path = Path(__file__).parents[1] / name
    if not path.is_file():
        raise FileNotFoundError(
            f'{path} is not built, which needs {needs}. Build it with {_BUILD}'
        )
    return str(path)
