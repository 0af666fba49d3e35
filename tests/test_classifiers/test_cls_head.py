"""The classification head, and published classifiers."""

from copy import deepcopy

import pytest
import torch
from golden import (
    load_golden,
    published_state_dict,
    randomize,
    relative_error,
)
from mmengine.registry import MODELS
from mmengine.runner.checkpoint import load_checkpoint

from mmmamba.checkpoint import CheckpointError, to_published


def classifier(arch: str, two_heads: bool = False):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='MobileMamba', arch=arch, out_indices=(2,)),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='MobileMambaClsHead', distillation=two_heads),
        )
    ).eval()


@pytest.mark.parametrize(
    ('case', 'container'),
    [
        ('t2_192x192', None),
        ('t2_192x192', 'net'),
        ('t2_192x192', 'net_E'),
        ('t2_192x192', 'model'),
        ('b1_256x256', 'state_dict'),
        ('s6_224x160_dist', None),
    ],
)
@torch.no_grad()
@pytest.mark.slow
def test_published_checkpoint_gives_the_golden_logits(
    case, container, tmp_path
):
    arch, two_heads = case[:2], case.endswith('_dist')
    state_dict = published_state_dict(arch)
    if not two_heads:
        state_dict = {
            n: t for n, t in state_dict.items() if 'head_dist' not in n
        }
    checkpoint = {container: state_dict} if container else state_dict
    torch.save(checkpoint, tmp_path / 'published.pth')
    model = classifier(arch, two_heads)
    load_checkpoint(model, str(tmp_path / 'published.pth'), strict=True)
    image, expected = load_golden(case)
    logits = model(image, mode='tensor')
    assert relative_error(logits, expected['logits']) <= 2e-5
    model.head.switch_to_deploy()
    logits = model(image, mode='tensor')
    assert relative_error(logits, expected['logits']) <= 2e-5


@torch.no_grad()
def test_a_backbone_alone_loads_too(build):
    """In both layouts; another arch is refused."""
    model, twin = randomize(build()).eval(), build().eval()
    images = torch.randn(2, 3, 64, 64)
    ours = model.backbone.state_dict()
    for state_dict in (ours, {to_published(n): t for n, t in ours.items()}):
        randomize(twin, seed=1)
        assert twin.load_state_dict(state_dict, strict=False)[1] == []
        for a, b in zip(model.backbone(images), twin.backbone(images)):
            assert torch.equal(a, b)
    with pytest.raises(CheckpointError, match='arch t2'):
        classifier('t4').load_state_dict(published_state_dict('t2'))


def test_initialization(build):
    model = build(dict(distillation=True))
    model.init_weights()
    for part in (model.head.head, model.head.head_dist):
        assert not part.linear.bias.any()
        assert 0.01 < part.linear.weight.std() < 0.03


def test_two_heads(build):
    head = randomize(build(dict(distillation=True)).head)
    features = (torch.randn(5, 32),)
    first, second = head.train()(features)
    assert not torch.allclose(first, second)
    head.eval()
    expected = (head.head(features[0]) + head.head_dist(features[0])) / 2
    assert torch.equal(head(features), expected)


def test_both_heads_learn_from_the_labels_without_a_teacher(build, batch):
    model = build(dict(distillation=True)).train()
    data = model.data_preprocessor(deepcopy(batch), True)
    loss = model(**data, mode='loss')['loss']
    target = torch.stack([s.gt_score for s in data['data_samples']])
    logits = model.head(model.extract_feat(data['inputs']))
    expected = [
        -(target * x.log_softmax(1)).sum(1).mean().double() for x in logits
    ]
    assert relative_error(loss.double(), sum(expected) / 2) < 1e-5
    loss.backward()
    assert all(p.grad.any() for p in model.head.parameters())


def test_deploy_from_the_start(build):
    model = build(dict(deploy=True))
    assert type(model.head.head) is torch.nn.Linear


def test_channels_follow_the_arch():
    assert classifier('t2').head.head.bn.num_features == 368
    assert classifier('b1').head.head.bn.num_features == 448
