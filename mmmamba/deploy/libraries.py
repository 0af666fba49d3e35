"""Where the ops for ONNX Runtime are."""

import importlib.util

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
    return _library('mmmamba._ort_ops', 'a C++ compiler')


def _library(name: str, needs: str) -> str:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f'{name} is not built, which needs {needs}. Build it with {_BUILD}'
        )
    return spec.origin
