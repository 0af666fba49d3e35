"""benchmark.py: what it writes, not how long anything takes."""

import csv
import re
from pathlib import Path

import pytest
import torch

from mmmamba.backbones import MobileMamba
from mmmamba.export import Facts, make_graph
from mmmamba.export.formats import write
from mmmamba.utils.analysis.exported import Worker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOOL = 'analysis_tools/benchmark.py'
QUICK = ['--rounds', 3, '--warmup', 1, '--threads', 1]


@pytest.fixture
def benchmark(run_tool, tmp_path):
    """Run the tool; returns its exit code and the rows of its CSV."""

    def run(*args):
        file = tmp_path / 'out' / 'rows.csv'
        code = run_tool(TOOL, *args, *QUICK, '--csv', file)
        rows = list(csv.DictReader(file.open())) if file.exists() else []
        return code, rows

    return run


def test_table(benchmark, capsys, tmp_path):
    pytest.importorskip('timm')
    config = ROOT / 'configs/cls/mobilemamba_t2.py'
    plot = tmp_path / 'plots/speed.png'
    code, rows = benchmark(
        f'{config}@64',
        'timm:efficientvit_m0@64',
        *('--reference', 'timm:efficientvit_m0@64'),
        *('--batch-sizes', 1, 2),
        *('--channels-last', 'both'),
        *('--dtypes', 'float32', 'bfloat16'),
        *('--accuracy', 73.6, 63.2),
        *('--plot', plot),
        '--fuse',
    )
    assert code == 0
    assert plot.read_bytes().startswith(b'\x89PNG')
    output = capsys.readouterr().out
    assert f'torch: {torch.__version__}' in output
    assert 'mobilemamba_t2@64' in output and 'quartiles' in output

    # For either batch size: 2 models, dtypes and layouts, and the best.
    assert len(rows) == 2 * (2 * 2 * 2 + 2 * 2)
    by_key = {(r['model'], r['mode'], r['dtype'], r['batch']): r for r in rows}
    for row in rows:
        batch, ms = int(row['batch']), float(row['ms'])
        assert float(row['images/s']) == pytest.approx(1e3 * batch / ms)
        assert float(row['ms q1']) <= ms <= float(row['ms q3'])
        assert row['torch'] == torch.__version__ and row['threads'] == '1'
        if row['mode'].startswith('best'):
            of_model = [
                r
                for (model, _, dtype, n), r in by_key.items()
                if (model, dtype, n)
                == (row['model'], row['dtype'], row['batch'])
            ]
            assert ms == min(float(r['ms']) for r in of_model)
            continue
        reference = by_key[
            'timm:efficientvit_m0@64', row['mode'], row['dtype'], row['batch']
        ]
        assert float(row['ratio']) == pytest.approx(
            float(reference['ms']) / ms
        )
    ours = by_key['mobilemamba_t2@64', 'eager', 'float32', '1']
    # As built, not as fused.
    assert float(ours['params (M)']) == pytest.approx(8.84, abs=0.01)
    assert float(ours['accuracy']) == 73.6


@pytest.mark.parametrize('suffix', ['.onnx', '.xml'])
def test_exported_files(suffix, benchmark, capsys, tmp_path):
    pytest.importorskip('onnxruntime', reason='it runs .onnx files')
    pytest.importorskip('openvino', reason='it runs .xml files')
    model = torch.nn.Module()
    model.backbone = MobileMamba('t2')
    graph = make_graph(model.eval(), Facts(shape=[64, 64]), (64, 64))
    file = tmp_path / f'm{suffix}'
    kind = 'onnx' if suffix == '.onnx' else 'openvino'
    images = torch.rand(2, 3, 64, 64)
    write(graph, images, file, kind, dynamic=['batch'])
    runtime = 'ort' if suffix == '.onnx' else 'openvino'
    name = f'{runtime}:{file}'
    code, rows = benchmark('mobilemamba:t2@64', name, '--batch-size', 2)
    assert code == 0
    ours, other = rows
    assert other['model'] == f'{runtime}:{file.name}'
    assert float(other['ratio']) == pytest.approx(
        float(ours['ms']) / float(other['ms'])
    )
    code, _ = benchmark(f'{runtime}:{tmp_path / "none"}{suffix}')
    assert code == 1
    assert 'there is no model' in capsys.readouterr().err


def test_other_runtimes(benchmark, capsys, tmp_path):
    """One network in three runtimes is one model, and the best counts."""
    pytest.importorskip('timm')
    pytest.importorskip('onnxruntime', reason='it runs the model')
    pytest.importorskip('openvino', reason='it runs the model')
    peer = 'timm:efficientvit_m0@64'
    plot = tmp_path / 'speed.png'
    code, rows = benchmark(
        *('mobilemamba:t2@64', peer, f'ort:{peer}', f'openvino:{peer}'),
        *('--fuse', '--processes', '--reference', peer),
        *('--accuracy', 76.9, 63.2, '--plot', plot),
    )
    assert code == 0, capsys.readouterr()
    assert plot.read_bytes().startswith(b'\x89PNG')
    *single, best = of_peer = [r for r in rows if r['model'] == peer]
    assert [r['mode'] for r in single] == ['eager', 'ort', 'openvino']
    fastest = min(single, key=lambda r: float(r['ms']))
    assert best['mode'] == f'best: {fastest["mode"]}'
    assert best['ms'] == fastest['ms']
    assert float(best['ratio']) == 1
    assert {r['MFLOPs'] for r in of_peer} == {single[0]['MFLOPs']}
    assert {float(r['accuracy']) for r in of_peer} == {63.2}


def test_a_process_that_ends_says_why():
    worker = Worker()
    with pytest.raises(RuntimeError, match='ValueError: no such model'):
        worker.start('-c', 'raise ValueError("no such model")')
    worker.start('-c', 'print("ready"); input(); exit("out of memory")')
    with pytest.raises(RuntimeError, match='out of memory'):
        worker.time(3)
    worker.stop()


def test_a_single_mode_has_no_best(benchmark):
    code, rows = benchmark('mobilemamba:t2@64', '--part', 'backbone')
    assert code == 0
    assert [r['mode'] for r in rows] == ['eager']
    assert float(rows[0]['ratio']) == 1


def test_with_post_processing(benchmark):
    """Counted and fused without it."""
    pytest.importorskip('mmdet')
    config = ROOT / 'configs/det/ssdlite_mobilemamba_b1_320.py'
    rows = {}
    for part in 'tensor', 'predict':
        code, rows[part] = benchmark(f'{config}@64', '--part', part, '--fuse')
        assert code == 0
    assert rows['tensor'][0]['MFLOPs'] == rows['predict'][0]['MFLOPs']
    assert rows['predict'][0]['part'] == 'predict'


def test_compiled_model_is_frozen(run_tool, capsys, tmp_path, monkeypatch):
    """Freezing is on when the graph is compiled, or it has no effect."""
    pytest.importorskip('timm')
    import torch._dynamo
    import torch._inductor.config as inductor

    compiled = []

    def backend(graph, inputs):
        compiled.append(inductor.freezing)
        return graph.forward

    compile = torch.compile
    monkeypatch.setattr(
        torch, 'compile', lambda f, **kw: compile(f, backend=backend, **kw)
    )
    options = ['--modes', 'eager', 'compiled']
    # Not by monkeypatch, which would delete the setting when it undoes this.
    with inductor.patch(freezing=False):
        assert run_tool(TOOL, 'timm:resnet10t@64', *options, *QUICK) == 0
    torch._dynamo.reset()
    assert compiled and all(compiled)
    assert 'best: ' in capsys.readouterr().out


@pytest.mark.parametrize('by_shape', [False, True])
def test_profile(run_tool, capsys, by_shape):
    options = ['--profile', 5] + ['--by-shape'] * by_shape
    assert run_tool(TOOL, 'mobilemamba:t2@64', *options, *QUICK) == 0
    output = capsys.readouterr().out
    table = output[output.index('own time') :]
    rows = [line for line in table.splitlines() if line.startswith('│')]
    operators = [row.split()[1] for row in rows if '%' in row]
    assert len(operators) == 5
    assert any('conv' in name for name in operators)
    assert by_shape == bool(re.search(r'\[1, \d+, \d+', table))


def test_a_model_that_does_not_run_is_left_out(benchmark, capsys, monkeypatch):
    from mmmamba.backbones import MobileMamba

    forward = MobileMamba.forward

    def only_float32(self, x):
        if x.dtype != torch.float32:
            raise RuntimeError('no kernel for this dtype')
        return forward(self, x)

    monkeypatch.setattr(MobileMamba, 'forward', only_float32)
    options = '--dtypes', 'float32', 'float16'
    code, rows = benchmark('mobilemamba:t2@64', *options)
    assert code == 0
    assert [r['dtype'] for r in rows] == ['float32']
    assert 'float16 does not run: no kernel' in capsys.readouterr().out
    code, _ = benchmark('mobilemamba:t2@64', '--dtypes', 'float16')
    assert code == 1


@pytest.mark.parametrize(
    'options, message',
    [
        (['timm:efficientvit_m9'], 'did you mean'),
        (['configs/nothing.py'], 'there is no config'),
        (['mobilemamba:t2', '--reference', 'timm:x'], 'none of the models'),
        (['mobilemamba:t2', '--dtypes', 'tf32'], '--device cuda'),
        (['mobilemamba:t2', '--modes', 'cudagraph'], '--device cuda'),
        (['mobilemamba:t2', '--accuracy', 1, 2], '--accuracy'),
        (
            ['timm:resnet10t', 'ort:timm:resnet10t', '--accuracy', 1, 2],
            '1 mod',
        ),
        (['mobilemamba:t2', '--processes', '--profile'], '--profile'),
        (['ort:configs/cls/mobilemamba_t2.py'], 'export.py'),
        (['ort:m.onnx', '--plot', 'p.png'], '--accuracy'),
        (['mobilemamba:t2', '--rounds', 0], '--rounds'),
        (['mobilemamba:t2', '--batch-sizes', 0], '--batch-sizes'),
    ],
)
def test_wrong_use(run_tool, capsys, options, message):
    pytest.importorskip('timm')
    assert run_tool(TOOL, *options) != 0
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_cuda_is_not_here(run_tool, capsys):
    assert run_tool(TOOL, 'mobilemamba:t2', '--device', 'cuda') == 1
    assert 'no CUDA GPU' in capsys.readouterr().err


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_on_a_gpu(benchmark):
    code, rows = benchmark(
        'mobilemamba:t2@64',
        *('--device', 'cuda', '--batch-sizes', 4, '--channels-last'),
        *('--dtypes', 'float32', 'tf32', 'bfloat16', 'float16'),
        *('--modes', 'eager', 'cudagraph'),
    )
    assert code == 0
    assert len(rows) == 4 * (2 + 1)
    assert rows[0]['gpu']


def test_a_model_that_memory_does_not_hold(benchmark, capsys, monkeypatch):
    rand = torch.rand

    def full(*size, **options):
        if size[0] == 3:
            raise torch.cuda.OutOfMemoryError
        return rand(*size, **options)

    monkeypatch.setattr(torch, 'rand', full)
    code, rows = benchmark('mobilemamba:t2@64', '--batch-sizes', '2', '3')
    assert code == 1  # nothing is left at batch 3
    assert [r['batch'] for r in rows] == ['2']
    assert 'does not run: no memory is left' in capsys.readouterr().out
