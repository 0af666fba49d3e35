"""Which implementation of the ops runs: the compiled one or PyTorch's."""

import contextlib
import functools
import importlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

#: What ``MMMAMBA_OP_BACKEND`` may be, and the device each one runs on.
_DEVICE_OF = {'torch': None, 'cpp': 'cpu', 'cuda': 'cuda'}
_BUILD = (
    'pip install --no-build-isolation --force-reinstall --no-deps, and the '
    'path or URL mmmamba comes from'
)


def _known(backend: str | None) -> str | None:
    """Refuse the name of a backend that there is not."""
    if backend not in (None, *_DEVICE_OF):
        raise ValueError(
            f'MMMAMBA_OP_BACKEND={backend} is unknown; it may be '
            f'{", ".join(_DEVICE_OF)}'
        )
    return backend


@functools.cache
def _load_extension() -> str | None:
    """Load the compiled ops; return why that is not possible, if it is not."""
    spec = importlib.util.find_spec('mmmamba._ext')
    if spec is None:
        return 'they are not built'
    # A library for another PyTorch may crash where it is loaded, so that its
    # bytes are asked first.
    library = Path(spec.origin).read_bytes()
    found = re.search(rb'mmmamba built for torch (\d+\.\d+)', library)
    if found is None:
        return f'{spec.origin} is damaged'
    built_for = found[1].decode()
    if built_for != re.match(r'\d+\.\d+', torch.__version__)[0]:
        return (
            f'they are built for PyTorch {built_for}, and this is PyTorch '
            f'{torch.__version__}'
        )
    try:
        importlib.import_module('mmmamba._ext')
    except ImportError as error:
        return f'they do not load ({error})'
    return None


def _compiled_for() -> dict[str, str]:
    """List the backends that are compiled, by the device type they serve."""
    if _forced == 'torch' or _problem is not None:
        return {}
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return {
        device: backend
        for backend, device in _DEVICE_OF.items()
        if device and has_kernel('mmmamba::selective_scan', device.upper())
    }


def _check() -> None:
    """Say what is missing: an error if it is asked for, else a warning."""
    if _forced in ('cpp', 'cuda') and _problem is not None:
        raise ImportError(
            f'MMMAMBA_OP_BACKEND={_forced} asks for the compiled ops, but '
            f'{_problem}. Build them with {_BUILD}'
        )
    if _forced == 'cuda' and 'cuda' not in _compiled:
        raise ImportError(
            'MMMAMBA_OP_BACKEND=cuda asks for the CUDA ops, but the compiled '
            f'ops are without them. Build them with FORCE_CUDA=1 {_BUILD}'
        )
    if _forced is None and _problem is not None:
        warnings.warn(
            f"mmmamba's compiled ops are not used: {_problem}. The slower ops "
            f'in PyTorch serve. Build them with {_BUILD}; or set '
            'MMMAMBA_OP_BACKEND=torch, which is to say that this is intended.',
            stacklevel=2,
        )


_forced = _known(os.environ.get('MMMAMBA_OP_BACKEND') or None)
_problem = None if _forced == 'torch' else _load_extension()
_compiled = _compiled_for()
_check()


@contextlib.contextmanager
def use_backend(backend: str | None) -> Iterator[None]:
    """Choose the implementation of the ops inside a ``with`` statement.

    The same as ``MMMAMBA_OP_BACKEND``, which it overrides, for a part of a
    program; it holds for all threads of the process.

    Args:
        backend (str, optional): ``torch``, ``cpp``, ``cuda``, or None for the
            one that serves by default.

    Raises:
        ValueError: If there is no backend of this name.
        ImportError: If a compiled one is asked for that is not there.

    Examples:
        >>> with use_backend('torch'):
        ...     reference = model(image)
    """
    global _forced, _problem, _compiled
    before = _forced, _problem, _compiled
    _forced = _known(backend)
    if _forced != 'torch':
        # MMMAMBA_OP_BACKEND=torch does not even look for the extension.
        _problem = _load_extension()
    _compiled = _compiled_for()
    try:
        _check()
        yield
    finally:
        _forced, _problem, _compiled = before


def backend_for(device: torch.device) -> str:
    """Tell which implementation serves tensors on a device.

    Args:
        device (torch.device): The device of the inputs.

    Returns:
        str: ``torch``, ``cpp`` or ``cuda``.

    Raises:
        RuntimeError: If ``MMMAMBA_OP_BACKEND`` forces one that does not run
            on the device.
    """
    if _forced is not None:
        if _DEVICE_OF[_forced] not in (None, device.type):
            raise RuntimeError(
                f'MMMAMBA_OP_BACKEND={_forced} runs on {_DEVICE_OF[_forced]}, '
                f'but the inputs are on {device}'
            )
        return _forced
    return _compiled.get(device.type, 'torch')


def available_backends() -> dict[str, bool]:
    """Report the implementations of the ops and whether each can run.

    Returns:
        dict[str, bool]: ``cpp-cpu`` (compiled extension), ``cuda`` (compiled
        extension with CUDA, and a GPU) and ``pure-torch`` (always).
    """
    return {
        'cpp-cpu': 'cpu' in _compiled,
        'cuda': 'cuda' in _compiled and torch.cuda.is_available(),
        'pure-torch': True,
    }


def describe_backends() -> dict[str, str]:
    """Say in words what serves each kind of device, and why.

    Returns:
        dict[str, str]: By device type.
    """
    words = {}
    for device in ('cpu', 'cuda'):
        if _forced and _DEVICE_OF[_forced] not in (None, device):
            words[device] = f'none: MMMAMBA_OP_BACKEND={_forced}'
        elif _forced == 'torch':
            words[device] = 'PyTorch, forced by MMMAMBA_OP_BACKEND'
        elif device in _compiled:
            words[device] = 'compiled'
            if device == 'cpu':
                instructions = torch.backends.cpu.get_cpu_capability()
                words[device] += f', {instructions}'
            if _forced:
                words[device] += ', forced by MMMAMBA_OP_BACKEND'
        elif _problem is not None:
            words[device] = f'PyTorch; compiled ops are not used: {_problem}'
        else:
            words[device] = 'PyTorch; the compiled ops are without CUDA'
    return words


def compiled_without_gradient(
    dtypes: tuple[torch.dtype, ...], x: Tensor, *others: Tensor | None
) -> bool:
    """Tell whether a compiled op for inference serves; it has no gradient.

    Args:
        dtypes (tuple[torch.dtype, ...]): What it takes.
        x (Tensor): Its first input.
        *others (Tensor, optional): The others.

    Returns:
        bool: Whether it is there for ``x`` and no gradient is asked for.
    """
    if backend_for(x.device) != 'cpp' or x.dtype not in dtypes:
        return False
    return not torch.is_grad_enabled() or not any(
        t is not None and t.requires_grad for t in (x, *others)
    )
