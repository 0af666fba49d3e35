"""Use mmmamba where PyTorch is installed and OpenMMLab is not.

Run by tests/test_init.py: ``without_openmmlab.py {ops,deploy,deploy_model}``,
or ``without_openmmlab.py program FILE EXAMPLE`` for an exported program.
"""

import sys

import torch

ABSENT = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'timm')


class WithoutOpenMMLab:
    """The finders of Python's import, which do not find these packages."""

    def __init__(self, finders):
        self.finders = finders

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ABSENT:
            return None
        specs = (f.find_spec(name, path, target) for f in self.finders)
        return next((spec for spec in specs if spec is not None), None)


def use_ops():
    import mmmamba

    one = torch.ones(1, 1, 2)
    B = C = torch.ones(1, 1, 1, 2)
    # Without decay a scan is a running sum.
    y = mmmamba.ops.selective_scan(
        torch.tensor([[[1.0, 2.0]]]), one, torch.zeros(1, 1), B, C
    )
    assert y.tolist() == [[[1.0, 3.0]]], y
    assert not hasattr(mmmamba, 'backbones')


def use_deployed_layers():
    from mmmamba.deploy import layers

    weight, bias = torch.tensor([[1.0, 2.0]]), torch.tensor([3.0])
    layer = layers.Linear(weight, bias, weight)
    assert layer.weight.tolist() == [[1.0], [2.0]], layer.weight


def deploy_a_model():
    from mmmamba.deploy import deploy_model

    try:
        deploy_model(torch.nn.Identity().eval())
    except ImportError as error:
        message = str(error)
    for part in (
        'deploy_model() needs mmengine and mmcv',
        'not installed: mmengine, mmcv.',
        'pip install onedl-mmengine && ',
        'onedl-mmcv',
    ):
        assert part in message, message


def run_program(file, example):
    import mmmamba.ops  # noqa: F401  (the ops that the program names)

    x, expected = torch.load(example)
    found = torch.export.load(file).module()(x)
    for y, reference in zip(found, expected):
        error = (y - reference).abs().max() / reference.abs().max()
        assert error <= 1e-6, error


sys.meta_path[:] = [WithoutOpenMMLab(sys.meta_path[:])]
uses = dict(
    ops=use_ops,
    deploy=use_deployed_layers,
    deploy_model=deploy_a_model,
    program=run_program,
)
uses[sys.argv[1]](*sys.argv[2:])
found = sorted(set(ABSENT) & set(sys.modules))
assert not found, found
