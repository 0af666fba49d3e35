"""Names of tensors: published <-> ours, through one table."""

import re
from collections.abc import Iterable

# Rows apply from top to bottom, each to whole dot-separated parts of a name,
# and every row works in both directions.
_STEM = tuple((f'patch_embed.{2 * i}', f'stem.{i}') for i in range(4))
_TRANSITION = tuple(
    (f'blocks{s}.{published}', f'stages.{s - 1}.transition.{ours}')
    for s in (2, 3)
    for published, ours in (
        ('0.0.m', 'dwconv1'),
        ('0.1.m', 'ffn1'),
        ('1.conv1', 'merging.expand'),
        ('1.conv2', 'merging.dwconv'),
        ('1.se', 'merging.se'),
        ('1.conv3', 'merging.project'),
        ('2.0.m', 'dwconv2'),
        ('2.1.m', 'ffn2'),
    )
)
_BLOCK = (
    ('dw0.m', 'dwconv1'),
    ('ffn0.m', 'ffn1'),
    ('mixer.m.attn', 'mixer'),
    ('dw1.m', 'dwconv2'),
    ('ffn1.m', 'ffn2'),
)
_MIXER = (
    ('local_op.dwconv3x3', 'local_branch.parts.0.0.conv'),
    ('local_op.bn1', 'local_branch.parts.0.0.bn'),
    ('local_op.dwconv1x1', 'local_branch.parts.0.1.conv'),
    ('local_op.bn2', 'local_branch.parts.0.1.bn'),
    ('global_op.wt_filter', 'global_branch.wavelet.filter'),
    ('global_op.iwt_filter', 'global_branch.wavelet.inverse_filter'),
    ('global_op.wavelet_convs.0', 'global_branch.wavelet.conv'),
    ('global_op.wavelet_scale.0.weight', 'global_branch.wavelet.scale'),
    ('global_op.base_scale.weight', 'global_branch.base_scale'),
    ('global_op.global_atten.conv2d', 'global_branch.ssm.dwconv'),
    (
        'global_op.global_atten.dt_projs_weight',
        'global_branch.ssm.dt_proj_weight',
    ),
    ('global_op.global_atten.dt_projs_bias', 'global_branch.ssm.dt_proj_bias'),
    ('global_op.global_atten.A_logs', 'global_branch.ssm.A_log'),
    ('global_op.global_atten.Ds', 'global_branch.ssm.D'),
    ('global_op.global_atten', 'global_branch.ssm'),
    ('proj.1', 'proj'),
)
_CONV_BN = (('c', 'conv'),)
CLS_HEAD = (
    ('head.bn', 'head.head.bn'),
    ('head.l', 'head.head.linear'),
    ('head_dist.bn', 'head.head_dist.bn'),
    ('head_dist.l', 'head.head_dist.linear'),
)
_TABLE = _STEM + _TRANSITION + _BLOCK + _MIXER + _CONV_BN

# Blocks are numbered from 0 in ours; published stages 2 and 3 count the three
# parts of the transition first.
_PUBLISHED_BLOCK = re.compile(r'^blocks([123])\.(\d+)\.')
OUR_BLOCK = re.compile(r'^stages\.([012])\.blocks\.(\d+)\.')
HEADS = ('head.', 'head_dist.')
# What only names of a backbone, of either layout, start with.
_PUBLISHED_TOP = ('patch_embed.', 'blocks1.')
BACKBONE_TOP = (*_PUBLISHED_TOP, 'stem.', 'stages.')


def from_published(name: str) -> str:
    """Translate the published name of a backbone tensor.

    Args:
        name (str): For example ``blocks2.3.ffn0.m.pw1.c.weight``.

    Returns:
        str: Our name, ``stages.1.blocks.0.ffn1.pw1.conv.weight``.
    """
    for published, ours in _TABLE:
        name = _replace(name, published, ours)

    def block(match):
        stage, index = int(match[1]) - 1, int(match[2])
        return f'stages.{stage}.blocks.{index - 3 if stage else index}.'

    return _PUBLISHED_BLOCK.sub(block, name)


def to_published(name: str) -> str:
    """Translate our name of a backbone tensor; the inverse of the above.

    Args:
        name (str): For example ``stem.1.conv.weight``.

    Returns:
        str: The published name, ``patch_embed.2.c.weight``.
    """
    for published, ours in _TABLE:
        name = _replace(name, ours, published)

    def block(match):
        stage, index = int(match[1]), int(match[2])
        return f'blocks{stage + 1}.{index + 3 if stage else index}.'

    return OUR_BLOCK.sub(block, name)


def _replace(name: str, old: str, new: str) -> str:
    return re.sub(rf'(?<![^.]){re.escape(old)}(?![^.])', new, name)


def is_published(names: Iterable[str]) -> bool:
    """Tell whether backbone tensors carry the published names.

    Args:
        names (Iterable[str]): Names of the tensors.

    Returns:
        bool: True if one of them starts as only published names do.
    """
    return any(str(n).startswith(_PUBLISHED_TOP) for n in names)
