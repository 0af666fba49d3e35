"""Every config: it builds, trains one step, tests one step."""

from copy import deepcopy
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from mmmamba.deploy import deploy_model

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    str(p.relative_to(ROOT / 'configs'))
    for folder in ('det', 'seg', 'demo')
    for p in (ROOT / 'configs' / folder).glob('*.py')
    if 'cells' not in p.stem  # classifiers: test_cls.py
)
DETECTORS = [n for n in CONFIGS if 'seg/' not in n and 'camvid' not in n]


@lru_cache
def load(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / name)


def build(name: str, **backbone):
    """The config's model, from scratch."""
    cfg = deepcopy(load(name))
    cfg.model.backbone.update(init_cfg=None, **backbone)
    if cfg.default_scope == 'mmseg':  # or most of the time goes into padding
        cfg.model.data_preprocessor.size = (128, 128)
    if 'num_queries' in cfg.model:  # DINO takes as many positions, or more
        cfg.model.num_queries = 30
    if 'roi_head' in cfg.model:  # as much again into the boxes
        cfg.model.train_cfg.rcnn.sampler.num = 32
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return cfg, model


def batch(cfg: Config, shapes=((128, 160), (96, 64))) -> dict:
    """Two generated images with objects or label maps."""
    if cfg.default_scope == 'mmdet':
        from mmdet.testing import demo_mm_inputs

        return demo_mm_inputs(
            2,
            [[3, *shape] for shape in shapes],
            num_items=[2, 1],
            num_classes=3,
            with_mask='mask_rcnn' in cfg.filename,
        )
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    size = cfg.model.data_preprocessor.size
    rng = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for shape in ((96, 128), (64, 80)):
        image = torch.randint(256, (3, *shape), generator=rng)
        inputs.append(image.to(torch.uint8))
        labels = torch.randint(11, (1, *shape), generator=rng)
        labels[..., :8] = 255  # ignored
        meta = dict(img_shape=shape, ori_shape=shape, pad_shape=size)
        sample = SegDataSample(metainfo=meta)
        sample.gt_sem_seg = PixelData(data=labels)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def train_step(model, data: dict) -> dict[str, float]:
    """One step; returns the losses."""
    torch.manual_seed(0)
    data = model.data_preprocessor(data, True)
    losses = model.train()(**data, mode='loss')
    loss, log = model.parse_losses(losses)
    loss.backward()
    return {name: value.item() for name, value in log.items()}


@pytest.mark.parametrize('name', CONFIGS)
@pytest.mark.slow
def test_trains_and_tests_one_step(name):
    cfg, model = build(name)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    losses = train_step(model, batch(cfg))
    assert all(map(torch.isfinite, map(torch.tensor, losses.values())))
    without_gradient = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert without_gradient == []
    # What the outputs do not depend on is frozen, and nothing else is.
    frozen = {
        'stage 3' if n.startswith('backbone.stages.2.') else n
        for n, p in model.named_parameters()
        if not p.requires_grad and not n.endswith('filter')  # Haar's
    }
    assert frozen == ({'stage 3'} if 'ssdlite' in name else set())
    optimizer.step()

    data = {key: values[:1] for key, values in batch(cfg).items()}
    data = model.data_preprocessor(data, False)
    with torch.no_grad():
        (sample,) = model.eval()(**data, mode='predict')
    if cfg.default_scope == 'mmseg':
        assert sample.pred_sem_seg.data.shape[1:] == sample.ori_shape
    else:
        found = sample.pred_instances
        assert torch.isfinite(found.bboxes).all()
        assert ('masks' in found) == ('mask_rcnn' in name)


@pytest.mark.parametrize(
    'name',
    [
        'demo/atss_mobilemamba_t2_bccd.py',
        'det/mask_rcnn_mobilemamba_b1.py',
        'det/retinanet_mobilemamba_b1.py',
        'det/rtmdet_mobilemamba_t2.py',
    ],
)
@pytest.mark.slow
def test_a_strip(name):
    """1000x90 px, resized into a box and padded, are fewer than the stride."""
    cfg, model = build(name, arch='t2')
    data = batch(cfg, [(28, 320), (24, 288)])
    losses = train_step(model, data)
    assert all(map(torch.isfinite, map(torch.tensor, losses.values())))
    data = batch(cfg, [(28, 320), (24, 288)])
    with torch.no_grad():
        samples = model.eval()(
            **model.data_preprocessor(data, False), mode='predict'
        )
    assert all(s.pred_instances.bboxes.isfinite().all() for s in samples)


@pytest.mark.parametrize(
    'name',
    ['det/mask_rcnn_mobilemamba_b1.py', 'seg/pspnet_mobilemamba_b4.py'],
)
@pytest.mark.slow
def test_a_seed_fixes_the_losses(name):
    """Drop path, dropout and the sampling of proposals included."""

    def run():
        cfg, model = build(name, arch='t2', drop_path_rate=0.3)
        data = batch(cfg)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        log = []
        for _ in range(2):
            optimizer.zero_grad()
            log.append(train_step(model, data))
            optimizer.step()
        return log

    first, second = run(), run()
    assert first == second
    assert first[0] != first[1]


@pytest.mark.slow
def test_regions_of_maps_in_any_memory_format():
    """A training on CPUs has channels last, and so has what is deployed."""
    from mmengine.structures import InstanceData

    cfg, model = build('det/mask_rcnn_mobilemamba_b1.py', arch='t2')
    data = batch(cfg)
    twin = deepcopy(model).to(memory_format=torch.channels_last)
    losses = train_step(model, deepcopy(data))
    assert train_step(twin, data) == pytest.approx(losses, rel=1e-4)
    for (name, a), b in zip(model.named_parameters(), twin.parameters()):
        if name.startswith('roi_head') and name.endswith('weight'):
            assert (a.grad - b.grad).abs().max() <= 0.02 * a.grad.abs().max()

    boxes = torch.tensor([[3.0, 5, 90, 70], [20, 1, 60, 99]])
    images = torch.randn(1, 3, 128, 160)

    def regions():
        features = model.extract_feat(images)
        return model.roi_head(features, [InstanceData(bboxes=boxes)])

    with torch.no_grad():
        model.eval()
        expected = regions()
        deploy_model(model)
        for a, b in zip(regions(), expected):
            assert (a - b).abs().max() <= 1e-4 * b.abs().max()


@pytest.mark.parametrize('arch', ['t2', 't4', 's6', 'b2'])
@pytest.mark.parametrize(
    'name', [n for n in CONFIGS if not n.startswith('demo')]
)
@pytest.mark.slow
def test_arch_is_one_option(name, arch):
    """As mmdet's and mmseg's own tools do it, on a config that is loaded."""
    cfg = deepcopy(load(name))
    cfg.merge_from_dict({'model.backbone.arch': arch})
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        features = model.extract_feat(torch.zeros(1, 3, 128, 128))
        heads = ['rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head']
        if 'dino' in name or 'mask2former' in name:
            heads = []  # they take queries, too, and the neck's features
        for head in heads:
            if getattr(model, head, None) is not None:
                getattr(model, head)(features)
    assert model.backbone.arch_name == arch


@pytest.mark.parametrize('name', DETECTORS)
@pytest.mark.slow
def test_loaders_and_evaluators_read_the_same_files(name):
    cfg = load(name)
    assert cfg.default_scope == 'mmdet'
    for split in ('val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        evaluator = cfg[f'{split}_evaluator']
        assert evaluator.ann_file == dataset.data_root + dataset.ann_file


def test_a_copy_for_your_own_data(tmp_path):
    """The README's two copies: the classes are named in one of them."""
    data = (ROOT / 'configs/_base_/datasets/bccd.py').read_text()
    data = data.replace("('RBC', 'WBC', 'Platelets')", "('cat', 'dog')")
    data = data.replace('data/bccd/', 'data/pets/')
    (tmp_path / 'pets.py').write_text(data)
    name = 'demo/atss_mobilemamba_t2_bccd.py'
    config = (ROOT / 'configs' / name).read_text()
    config = config.replace('../_base_/datasets/bccd.py', './pets.py')
    config = config.replace("'../", f"'{ROOT}/configs/")
    (tmp_path / 'my_data.py').write_text(config)
    cfg = Config.fromfile(tmp_path / 'my_data.py')
    assert cfg.model.bbox_head.num_classes == 2
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.metainfo.classes == ('cat', 'dog')
        assert dataset.data_root == 'data/pets/'
    assert cfg.test_evaluator.ann_file.startswith('data/pets/')


@pytest.mark.slow
def test_every_base_file_is_used():
    """A config's text begins each base's part with the name of its file."""
    configs = ROOT / 'configs'
    names = [*CONFIGS, *(f'cls/{p.name}' for p in configs.glob('cls/*.py'))]
    names += [f'demo/{p.name}' for p in configs.glob('demo/*cells*.py')]
    texts = [load(name).text for name in names]
    bases = set((configs / '_base_').rglob('*.py'))
    assert bases
    unused = {base for base in bases if not any(str(base) in t for t in texts)}
    assert unused == set()


@pytest.mark.parametrize(
    ('arch', 'parameters'),
    [
        ('t2', 8.84),
        ('t4', 14.18),
        ('s6', 15.04),
        ('b1', 17.12),
        ('b2', 17.12),
        ('b4', 17.12),
    ],
)
@pytest.mark.slow
def test_classifier_has_the_published_size(arch, parameters):
    cfg, model = build(f'cls/mobilemamba_{arch}.py')
    assert cfg.default_scope == 'mmpretrain'
    count = sum(p.numel() for p in model.parameters())
    assert round(count / 1e6, 2) == parameters
    logits = model.eval()(torch.zeros(1, 3, 64, 64))
    assert logits[0].shape[0] == 1 or logits.shape == (1, 1000)
