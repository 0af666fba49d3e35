"""Distillation: its loss, and a teacher that leaves no trace."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import randomize, relative_error
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS

from mmmamba.checkpoint import CheckpointError
from mmmamba.classifiers import DistillationLoss, DistilledClassifier
from mmmamba.classifiers.teacher import Teacher

# An mmpretrain model whose normalization is not the student's.
TEACHER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18, base_channels=8, stem_channels=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
    data_preprocessor=dict(mean=[0.0] * 3, std=[255.0] * 3, to_rgb=True),
)


@pytest.fixture
def teacher(tmp_path):
    """The teacher's model, and the file that holds its weights."""
    model = randomize(MODELS.build(TEACHER)).eval()
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'teacher.pth')
    return model, str(tmp_path / 'teacher.pth')


@pytest.fixture
def student(build, teacher):
    def student(two_heads=False, **settings):
        return build(
            dict(distillation=two_heads),
            type='DistilledClassifier',
            **dict(
                teacher_config=TEACHER,
                teacher_ckpt=teacher[1],
                teacher_size=96,
            )
            | settings,
        )

    return student


@pytest.mark.parametrize('temperature', [1.0, 3.0])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_loss_against_numpy(temperature, dtype):
    student, teacher = 3 * torch.randn(2, 7, 11, dtype=dtype)

    def softmax(logits):
        powers = np.exp(logits.double().numpy() / temperature)
        return powers / powers.sum(1, keepdims=True)

    p, q = softmax(teacher), softmax(student)
    divergence = (p * np.log(p / q)).sum(1).mean()
    loss = DistillationLoss(temperature)(student, teacher)
    assert loss.dtype == dtype
    expected = 5 * temperature**2 * divergence
    assert relative_error(loss, torch.tensor(expected)) < (
        1e-5 if dtype == torch.float32 else 1e-12
    )


def test_loss_of_half_precision_and_of_itself():
    logits = 10 * torch.randn(4, 1000)
    assert DistillationLoss()(logits, logits).abs() < 1e-5
    loss = DistillationLoss()(logits.half(), -logits.half())
    assert loss.dtype == torch.float32
    with pytest.raises(ValueError, match='temperature=0'):
        DistillationLoss(temperature=0)


@pytest.mark.parametrize('two_heads', [False, True])
def test_both_terms(student, teacher, batch, two_heads):
    """Against what the terms are by definition, from outside."""
    model = student(two_heads).train()
    model.init_weights()
    images = torch.stack(batch['inputs']).flip(1).float()  # RGB
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    target = torch.stack([s.gt_score for s in data['data_samples']])
    losses = model(**data, mode='loss')

    logits = model.head(model.extract_feat(data['inputs']))
    first, second = logits if two_heads else (logits, logits)
    expected = -(target * first.log_softmax(1)).sum(1).mean()
    assert relative_error(losses['loss_cls'], expected) < 1e-5
    with torch.no_grad():
        resized = F.interpolate(images, (96, 96), mode='bicubic') / 255
        goal = teacher[0](resized, mode='tensor')
    expected = 5 * (
        (goal.softmax(1) * (goal.log_softmax(1) - second.log_softmax(1)))
        .sum(1)
        .mean()
    )
    assert relative_error(losses['loss_distill'], expected) < 1e-4
    assert set(losses) == {'loss_cls', 'loss_distill'}


@pytest.mark.parametrize('to_rgb', [True, False])
def test_a_teacher_sees_what_mmpretrain_shows_it(teacher, to_rgb):
    """Its mean is in the order of its channels, which may be BGR."""
    settings = dict(
        mean=[10.0, 120.0, 200.0], std=[50.0, 60.0, 90.0], to_rgb=to_rgb
    )
    config = copy.deepcopy(TEACHER) | dict(data_preprocessor=settings)
    found = Teacher(config, teacher[1], 32)
    found.load(3)
    bgr = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    shown = MODELS.build(settings | dict(type='ClsDataPreprocessor'))
    inputs = shown(dict(inputs=bgr))['inputs']
    expected = teacher[0](inputs, mode='tensor')
    rgb = bgr.flip(1).float()
    torch.testing.assert_close(found(rgb), expected)


def test_the_teacher_leaves_no_trace(student, teacher, batch):
    model = student()
    plain = {n for n, _ in model.named_parameters()}
    model.init_weights()
    average = ExponentialMovingAverage(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = copy.deepcopy(model.teacher.model.state_dict())
    for _ in range(2):
        model.train()
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        loss, _ = model.parse_losses(model(**data, mode='loss'))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)

    frozen = model.teacher.model
    assert not any(m.training for m in frozen.modules())
    assert not any(p.requires_grad or p.grad for p in frozen.parameters())
    for name, tensor in frozen.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert {n for n, _ in model.named_parameters()} == plain
    assert not any('teacher' in n for n in model.state_dict())
    assert not any('teacher' in n for n in average.state_dict())
    # The moving average shares it, rather than holding a copy.
    assert average.module.teacher.model is frozen


def test_the_teacher_costs_no_gradient_memory(student, batch):
    model = student()
    model.init_weights()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    logits = model.teacher(model._pixels(data['inputs'].requires_grad_()))
    assert logits.grad_fn is None


def test_predicts_without_its_teacher(student, batch):
    model = student(teacher_ckpt='missing.pth').eval()
    data = model.data_preprocessor(copy.deepcopy(batch), False)
    samples = model(**data, mode='predict')
    assert samples[0].pred_score.shape == (3,)
    assert model.teacher.model is None


def test_a_missing_teacher_is_said_before_training(student, tmp_path):
    with pytest.raises(FileNotFoundError, match='missing.pth does not exist'):
        student(teacher_ckpt='missing.pth').init_weights()
    with pytest.raises(FileNotFoundError, match='missing.py does not exist'):
        student(teacher_config='missing.py').init_weights()
    with pytest.raises(CheckpointError, match='would be random'):
        student(teacher_ckpt=None).init_weights()


def test_a_teacher_that_does_not_fit(student, teacher, tmp_path):
    part = teacher[0].state_dict()
    part.pop('head.fc.bias')
    torch.save(part, tmp_path / 'part.pth')
    with pytest.raises(CheckpointError, match='part.pth.*head.fc.bias'):
        student(teacher_ckpt=str(tmp_path / 'part.pth')).init_weights()
    many = copy.deepcopy(TEACHER)
    many['head']['num_classes'] = 5
    weights = MODELS.build(many).state_dict()
    torch.save(weights, tmp_path / 'many.pth')
    with pytest.raises(CheckpointError, match='5 classes and the student 3'):
        student(
            teacher_config=many, teacher_ckpt=str(tmp_path / 'many.pth')
        ).init_weights()


def test_a_damaged_teacher_of_timm(student, teacher, tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    file = tmp_path / 'teacher.safetensors'
    save_file(teacher[0].state_dict(), file)
    student(teacher_ckpt=str(file)).init_weights()
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match='safetensors is truncated'):
        student(teacher_ckpt=str(file)).init_weights()


def test_a_teacher_from_a_config_file(student, teacher, tmp_path):
    file = tmp_path / 'teacher.py'
    model = {k: v for k, v in TEACHER.items() if k != 'data_preprocessor'}
    file.write_text(
        f'model = {model}\ndata_preprocessor = {TEACHER["data_preprocessor"]}'
    )
    model = student(teacher_config=str(file))
    model.init_weights()
    images = 255 * torch.rand(2, 3, 96, 96)
    expected = teacher[0](images / 255, mode='tensor')
    assert relative_error(model.teacher(images), expected) < 1e-5


@pytest.mark.slow
def test_a_teacher_of_timm(build, tmp_path):
    """The default one, in timm's layout and in the one before it."""
    timm = pytest.importorskip('timm')
    network = timm.create_model('tresnet_v2_l', num_classes=3).eval()
    state_dict = network.state_dict()
    torch.save(state_dict, tmp_path / 'teacher.pth')
    config = dict(
        DistilledClassifier.__init__.__kwdefaults__['teacher_config'],
        num_classes=3,
    )
    model = build(
        type='DistilledClassifier',
        teacher_config=config,
        teacher_ckpt=str(tmp_path / 'teacher.pth'),
        teacher_size=64,
    )
    model.init_weights()
    images = 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(images / 255)
    assert relative_error(model.teacher(images), expected) < 1e-5


def test_a_teacher_of_timm_without_a_preprocessor(build, tmp_path):
    timm = pytest.importorskip('timm')
    network = timm.create_model('resnet10t', num_classes=3).eval()
    torch.save(network.state_dict(), tmp_path / 'teacher.pth')
    model = build(
        type='DistilledClassifier',
        teacher_config=dict(
            type='mmpretrain.TimmClassifier',
            model_name='resnet10t',
            num_classes=3,
        ),
        teacher_ckpt=str(tmp_path / 'teacher.pth'),
        teacher_size=64,
        distill_loss=dict(temperature=2.0),  # as --cfg-options sets it
    )
    model.init_weights()
    assert model.distill_loss.temperature == 2
    images = torch.rand(1, 3, 64, 64)
    figures = network.default_cfg
    mean, std = (
        torch.tensor(figures[name]).view(-1, 1, 1) for name in ('mean', 'std')
    )
    with torch.no_grad():
        expected = network((images - mean) / std)
    assert relative_error(model.teacher(255 * images), expected) < 1e-5
