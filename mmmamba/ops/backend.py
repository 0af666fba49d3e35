"""Which implementation of the ops runs: the compiled one or PyTorch's."""

import contextlib
import functools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad

#: The names of the backends, and the device each one runs on.
_DEVICE_OF = {'torch': None, 'cpp': 'cpu', 'cuda': 'cuda'}
# Either may be what chose a backend, and messages do not tell which it was.
_CHOSEN_BY = 'MMMAMBA_OP_BACKEND or use_backend'
# What the kernels of the ops for inference are compiled for.
_CUDA_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_KERNEL_SIZES = (1, 3, 5, 7)
_MIN_CHANNELS = 16
_BUILD = (
    'pip install --no-build-isolation --force-reinstall --no-deps, and the '
    'path or URL mmmamba comes from'
)


def _known(backend: str | None) -> str | None:
    """Refuse the name of a backend that there is not."""
    if backend not in (None, *_DEVICE_OF):
        raise ValueError(
            f'the backend {backend!r} ({_CHOSEN_BY}) is unknown; it may be '
            f'{", ".join(_DEVICE_OF)}'
        )
    return backend


@functools.cache
def _load_extension() -> str | None:
    """Load the compiled ops; return why that is not possible, if it is not."""
    libraries = Path(__file__).parents[1].glob('_torch*_ops.so')
    built = {
        path.stem.removeprefix('_torch').removesuffix('_ops'): path
        for path in sorted(libraries)
    }
    if not built:
        return 'they are not built'
    version = '_'.join(torch.__version__.split('.')[:2])
    if version not in built:
        names = ', '.join(built).replace('_', '.')
        return (
            f'they are built for PyTorch {names}, and this is PyTorch '
            f'{torch.__version__}'
        )
    try:
        torch.ops.load_library(str(built[version]))
    except OSError as error:
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
            f'the backend {_forced!r} ({_CHOSEN_BY}) asks for the compiled '
            f'ops, but {_problem}. Build them with {_BUILD}'
        )
    if _forced == 'cuda' and 'cuda' not in _compiled:
        raise ImportError(
            f"the backend 'cuda' ({_CHOSEN_BY}) asks for the CUDA ops, but "
            'the compiled ops are without them. Build them with FORCE_CUDA=1 '
            f'{_BUILD}'
        )
    if _forced is None and _problem is not None:
        warnings.warn(
            f"mmmamba's compiled ops are not used: {_problem}. The slower ops "
            f'in PyTorch serve. Build them with {_BUILD}; or set '
            'MMMAMBA_OP_BACKEND=torch, to silence this warning.',
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
        RuntimeError: If ``MMMAMBA_OP_BACKEND`` or :func:`use_backend` forces
            one that does not run on the device.
    """
    if _forced is not None:
        if _DEVICE_OF[_forced] not in (None, device.type):
            raise RuntimeError(
                f'the backend {_forced!r} ({_CHOSEN_BY}) runs on '
                f'{_DEVICE_OF[_forced]}, but the inputs are on {device}; '
                "move them, or choose 'torch', which runs on every device"
            )
        return _forced
    return _compiled.get(device.type, 'torch')


def require_compiled(op: str, x: Tensor) -> None:
    """Refuse an op that is compiled for CPUs alone where that does not serve.

    Args:
        op (str): Its name.
        x (Tensor): First input.

    Raises:
        RuntimeError: If PyTorch or the CUDA ops serve ``x``.
    """
    if backend_for(x.device) != 'cpp':
        raise RuntimeError(
            f'{op} is there for CPUs alone, where the compiled ops serve; '
            'elsewhere call the ops of its layers'
        )


def available_backends() -> dict[str, bool]:
    """Report the implementations of the ops and whether each can run.

    Returns:
        dict[str, bool]: By the names that :func:`use_backend` takes: ``cpp``
        (compiled extension), ``cuda`` (compiled extension with CUDA, and a
        GPU) and ``torch`` (always).
    """
    return {
        'cpp': 'cpu' in _compiled,
        'cuda': 'cuda' in _compiled and torch.cuda.is_available(),
        'torch': True,
    }


def describe_backends() -> dict[str, str]:
    """Say in words what serves each kind of device, and why.

    Returns:
        dict[str, str]: By device type.
    """
    words = {}
    for device in ('cpu', 'cuda'):
        if _forced and _DEVICE_OF[_forced] not in (None, device):
            words[device] = f'none: {_forced!r} is forced by {_CHOSEN_BY}'
        elif _forced == 'torch':
            words[device] = f'PyTorch, forced by {_CHOSEN_BY}'
        elif device in _compiled:
            words[device] = 'compiled'
            if device == 'cpu':
                instructions = torch.backends.cpu.get_cpu_capability()
                if not instructions.startswith('AVX'):
                    instructions = 'for any CPU'
                words[device] += f', {instructions}'
                has_products = torch.ops.mmmamba.has_dot_products
                dtypes = [d for d in ('bfloat16', 'int8') if has_products(d)]
                if dtypes:
                    products = ' and '.join(dtypes)
                    words[device] += f' with products of {products}'
            if _forced:
                words[device] += f', forced by {_CHOSEN_BY}'
        elif _problem is not None:
            words[device] = f'PyTorch; compiled ops are not used: {_problem}'
        else:
            words[device] = 'PyTorch; the compiled ops are without CUDA'
    return words


def inference_op_serves(
    x: Tensor,
    *others: Tensor | None,
    dtypes: Sequence[torch.dtype] = (torch.float32, torch.bfloat16),
    kernels: Sequence[Tensor | None] = (),
    wide: Sequence[Tensor] = (),
    cuda: bool = False,
) -> bool:
    """Tell whether the compiled version of an op for inference serves.

    Those ops have no derivatives, and work on whole vectors of channels. Where
    they do not serve, PyTorch's versions do.

    Args:
        x (Tensor): First input.
        *others (Tensor, optional): All other inputs.
        dtypes (Sequence[torch.dtype]): What ``x`` may be on a CPU. Defaults to
            float32 and bfloat16.
        kernels (Sequence[Tensor | None]): Depthwise kernels among them,
            ``(..., k, k, C)``. Defaults to none.
        wide (Sequence[Tensor]): Inputs that need as many channels, their last
            axis, as the widest vector has lanes. Defaults to none.
        cuda (bool): Whether it is compiled for CUDA, too, where ``x`` may be
            float32, float16 or bfloat16. Defaults to False.

    Returns:
        bool: Whether it serves.
    """
    backend = backend_for(x.device)
    if backend == 'cuda':
        # Autocast knows PyTorch's versions, and would leave ours in float32.
        cuda = cuda and not torch.is_autocast_enabled()
        dtypes = _CUDA_DTYPES if cuda else ()
    if backend == 'torch' or x.dtype not in dtypes:
        return False
    if forward_ad._current_level >= 0:  # as in torch.func.jvp
        return False
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, *others)
    ):
        return False
    return kernels_serve(kernels) and all(
        t.dim() > 0 and t.shape[-1] >= _MIN_CHANNELS for t in wide
    )


def kernels_serve(kernels: Iterable[Tensor | None]) -> bool:
    """Tell whether depthwise convolutions of such weights are compiled.

    Args:
        kernels (Iterable[Tensor | None]): ``(..., k, k, C)`` each.

    Returns:
        bool: Whether all that there are have a size and a number of channels
        that the kernels can do.
    """
    return all(
        t.dim() >= 3
        and t.shape[-2] in _KERNEL_SIZES
        and t.shape[-1] >= _MIN_CHANNELS
        for t in kernels
        if t is not None
    )
