"""visualize_erf.py: pictures, numbers and files."""

import csv

import cv2
import numpy as np
import pytest
import torch

from mmmamba.backbones import MobileMamba
from mmmamba.utils.analysis.erf import high_contribution_area, log_scale

TOOL = 'analysis_tools/visualize_erf.py'


@pytest.fixture
def erf(run_tool, tmp_path):
    """Run the tool; returns its exit code, CSV rows and raw arrays."""

    def run(*args):
        out, table = tmp_path / 'out/erf.png', tmp_path / 'out/erf.csv'
        options = ['--device', 'cpu', '--out', out, '--csv', table]
        if code := run_tool(TOOL, *args, *options):
            return code, None, None
        assert cv2.imread(str(out)) is not None
        rows = list(csv.DictReader(table.open()))
        return code, rows, dict(np.load(out.with_suffix('.npz')))

    return run


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    rng = np.random.RandomState(0)
    for i, shape in enumerate([(80, 100, 3), (150, 64, 3), (70, 71, 3)]):
        image = rng.randint(0, 256, shape, np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)
    return folder


@pytest.mark.slow
def test_models_side_by_side(erf, capsys):
    pytest.importorskip('timm')
    code, rows, raw = erf(
        *('mobilemamba:t2', 'timm:efficientvit_m0'),
        *('--stages', '1,3', '2', '--input-size', 128, '--num-images', 2),
    )
    assert code == 0
    assert 'Effective receptive field' in capsys.readouterr().out
    assert [(r['model'], r['stage']) for r in rows] == [
        ('mobilemamba:t2@128', '1'),
        ('mobilemamba:t2@128', '3'),
        ('timm:efficientvit_m0@128', '2'),
    ]
    for row, field in zip(rows, raw.values()):
        assert field.shape == (128, 128) and field.min() >= 0
        for t, column in ((0.2, 't = 20%'), (0.99, 't = 99%')):
            side, area = high_contribution_area(log_scale(field), t)
            assert int(row[f'{column} px']) == side
            assert float(row[f'{column} area']) == pytest.approx(area)


@pytest.mark.slow
def test_of_images_and_weights(erf, photos, tmp_path):
    """The numbers are those of the gradient of this model, these images."""
    weights = tmp_path / 'weights.pth'
    model = MobileMamba('t2', out_indices=(1,)).eval()
    torch.save(model.state_dict(), weights)
    code, rows, raw = erf(
        *('mobilemamba:t2@64', '--stage', 2, '--checkpoint', weights),
        *('--images', photos, '--num-images', 2, '--absolute', '--linear'),
    )
    assert code == 0
    total = 0
    for i, crop in enumerate([np.s_[:, 8:72], np.s_[43:107]]):
        image = cv2.imread(str(photos / f'{i}.png'))
        if i == 0:  # 80 x 100: scaled to 64 x 80
            image = cv2.resize(image, (80, 64), interpolation=cv2.INTER_AREA)
        image = image[crop][..., ::-1] / 255.0
        image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        image = torch.tensor(image.transpose(2, 0, 1)[None]).float()
        image.requires_grad_()
        model(image)[0][0, :, 1, 1].sum().backward()
        total += image.grad.abs().double().sum((0, 1)).numpy() / 2
    (field,) = raw.values()
    np.testing.assert_allclose(
        field, total, rtol=1e-3, atol=1e-6 * total.max()
    )
    side, _ = high_contribution_area(field, 0.5)
    assert int(rows[0]['t = 50% px']) == side
    assert rows[0]['weights'] == str(weights)


def test_few_images(erf, photos, capsys):
    code, _, raw = erf('mobilemamba:t2@64', '--images', photos, '--stage', 1)
    assert code == 0
    assert 'has 3 images' in capsys.readouterr().out


@pytest.mark.parametrize(
    'options, message',
    [
        (['mobilemamba:t2', '--stages', 4], 'has no stage 4'),
        (['mobilemamba:t2', '--stages', 0], 'from 1'),
        (['mobilemamba:t2', '--stages', 'all'], "'all' is no list"),
        (['mobilemamba:t2', '--stages', '1', '2'], 'one for each'),
        (['mobilemamba:t9'], 'did you mean'),
        (['mobilemamba:t2', '--checkpoints', 'a', 'b'], '--checkpoints'),
        (['mobilemamba:t2', '--checkpoints', 'pretrained'], 'only timm'),
        (['mobilemamba:t2', '--checkpoints', 'no.pth'], 'no.pth'),
        (['mobilemamba:t2', '--images', 'nowhere'], 'no images'),
        (['mobilemamba:t2', '--out', 'a.npz'], 'a.npz must end in .png'),
        (['mobilemamba:t2', '--out', 'a'], 'a must end in .png'),
    ],
)
def test_wrong_use(run_tool, capsys, options, message):
    assert run_tool(TOOL, *options) != 0
    assert message in capsys.readouterr().err


def test_no_gradient(run_tool, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        MobileMamba, 'forward', lambda self, x: (x[:, :, ::16, ::16] * 0,)
    )
    options = ['--num-images', 1, '--out', tmp_path / 'a.png']
    assert run_tool(TOOL, 'mobilemamba:t2@64', *options) == 1
    assert 'no gradient' in capsys.readouterr().err
