"""The published architectures, and the settings a custom one may change."""

from collections.abc import Sequence

_SHARED = dict(
    global_ratio=(0.8, 0.7, 0.6),
    local_ratio=(0.2, 0.2, 0.3),
    kernel_sizes=(7, 5, 3),
    drop_path_rate=0.0,
    ssm_ratio=2,
    d_state=1,
    directions=2,
    num_parts=1,
    wavelet=True,
)
_B = dict(
    _SHARED, channels=(200, 376, 448), depths=(2, 3, 2), drop_path_rate=0.03
)

#: MobileMamba, Tab. 2. B1, B2 and B4 differ in the pretraining size only.
ARCH_ZOO = {
    't2': dict(_SHARED, channels=(144, 272, 368), depths=(1, 2, 2)),
    't4': dict(_SHARED, channels=(176, 368, 448), depths=(1, 2, 2)),
    's6': dict(_SHARED, channels=(192, 384, 448), depths=(1, 2, 2)),
    'b1': _B,
    'b2': _B,
    'b4': _B,
}

#: Side in pixels of the images an arch is pretrained on.
PRETRAIN_SIZES = dict(t2=192, t4=192, s6=224, b1=256, b2=384, b4=512)


def _integer(value, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _per_stage(condition):
    """A test for settings with one entry per stage."""
    return lambda v: (
        isinstance(v, Sequence) and len(v) == 3 and all(map(condition, v))
    )


# Setting: what it must fulfil, in code and in words.
_RULES = dict(
    channels=(
        # The stem has an eighth of the first.
        lambda v: _per_stage(lambda c: _integer(c, 16))(v) and v[0] % 8 == 0,
        'three widths of at least 16, the first a multiple of 8',
    ),
    depths=(
        _per_stage(lambda d: _integer(d, 1)),
        'three numbers of blocks, at least 1',
    ),
    global_ratio=(
        _per_stage(lambda r: 0 < r <= 1),
        'three shares within (0, 1]',
    ),
    local_ratio=(
        _per_stage(lambda r: 0 <= r < 1),
        'three shares within [0, 1)',
    ),
    kernel_sizes=(
        _per_stage(lambda k: _integer(k, 1) and k % 2),
        'three odd sizes',
    ),
    drop_path_rate=(lambda r: 0 <= r < 1, 'within [0, 1)'),
    ssm_ratio=(lambda r: r > 0, 'positive'),
    d_state=(lambda n: _integer(n, 1) and n <= 256, '1 to 256'),
    directions=(lambda k: k in (1, 2, 4), '1, 2 or 4'),
    num_parts=(lambda n: _integer(n, 1), 'at least 1'),
    wavelet=(lambda w: isinstance(w, bool), 'True or False'),
)


def resolve_arch(arch: str | dict) -> dict:
    """Look up an arch by name, or complete and check one given as a dict.

    Args:
        arch (str | dict): See :class:`mmmamba.backbones.MobileMamba`.

    Returns:
        dict: Every setting of the arch.

    Raises:
        ValueError: If the name, a key or a value is not valid.
    """
    if not isinstance(arch, dict):
        return _named(arch)
    given = dict(arch)
    settings = _named(given.pop('base', 'b1'))
    unknown = sorted(set(given) - set(settings))
    if unknown:
        raise ValueError(
            f'unknown arch setting {", ".join(unknown)}; the '
            f'settings are base, {", ".join(settings)}'
        )
    for key, value in given.items():
        valid, meaning = _RULES[key]
        try:
            ok = valid(value)
        except TypeError:  # not even a number
            ok = False
        if not ok:
            raise ValueError(f'arch setting {key}={value!r} must be {meaning}')
        # So that two archs compare equal however they were written.
        settings[key] = tuple(value) if isinstance(value, list) else value
    return settings


def base_name(arch: str | dict) -> str:
    """Return the name of an arch, or of the one that a dict changes.

    Args:
        arch (str | dict): See :class:`mmmamba.backbones.MobileMamba`.

    Returns:
        str: Its name in lower case.
    """
    name = arch.get('base', 'b1') if isinstance(arch, dict) else arch
    return str(name).lower()


def _named(name: str) -> dict:
    if str(name).lower() not in ARCH_ZOO:
        raise ValueError(
            f'unknown arch {name!r}; choose one of '
            f'{", ".join(ARCH_ZOO)} or give a dict'
        )
    return dict(ARCH_ZOO[name.lower()])
