"""The network for inference: deployed, exported, and run.

Imports nothing until it is asked for: the two that run an exported model need
no PyTorch.
"""

import importlib

_MODULES = {
    'DTYPES': 'network',
    'ExportedModel': 'exported_model',
    'FoldError': 'fold',
    'Stage': 'network',
    'Stem': 'network',
    'check_dtype': 'network',
    'deploy_model': 'model',
    'openvino_extension': 'libraries',
    'ort_library': 'libraries',
    'pack_products': 'network',
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(
        importlib.import_module(f'.{_MODULES[name]}', __name__), name
    )
