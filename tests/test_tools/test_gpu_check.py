"""tools/dev/gpu_check.py, on the CPU and on figures that are made up."""

import csv
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = 'dev/gpu_check.py'
sys.path.insert(0, str(ROOT / 'tools/dev'))
import gpu_check  # noqa: E402

sys.path.pop(0)


@pytest.fixture
def steps(monkeypatch):
    """Make these the steps of the CPU."""

    def steps(*programs, minutes=1.0, **more):
        found = [
            gpu_check.Step(f'step{i}', gpu_check.python('-c', text), minutes)
            for i, text in enumerate(programs)
        ]
        monkeypatch.setattr(gpu_check, 'cpu_steps', lambda out: found)
        return found

    return steps


def check(monkeypatch, out, *options):
    arguments = ['gpu_check.py', '--device', 'cpu', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', [*arguments, *options])
    gpu_check.main()
    return json.loads((out / 'report.json').read_text())


def test_a_failure_stops_nothing(steps, monkeypatch, tmp_path):
    steps('raise SystemExit("broken")', 'print("well")')
    with pytest.raises(SystemExit):
        check(monkeypatch, tmp_path)
    report = json.loads((tmp_path / 'report.json').read_text())
    found = [step['status'] for step in report['steps']]
    assert found == ['failed, see step0.log', 'passed']
    assert 'broken' in (tmp_path / 'step0.log').read_text()
    assert '| step1 | passed |' in (tmp_path / 'report.md').read_text()


def test_it_ends_in_time(steps, monkeypatch, tmp_path):
    endless = 'import time\nwhile True: time.sleep(1)'
    steps(endless, endless, endless, minutes=1 / 30)
    report = check(monkeypatch, tmp_path, '--minutes', '0.05')
    found = [step['status'] for step in report['steps']]
    assert found == ['out of time, see step0.log'] + 2 * [
        'not run: no time was left'
    ]


def test_unknown_step(steps, monkeypatch, tmp_path):
    steps('')
    with pytest.raises(SystemExit, match='none of step0'):
        check(monkeypatch, tmp_path, '--steps', 'x')


@pytest.mark.slow
def test_steps_of_the_cpu(monkeypatch, tmp_path):
    """The twin of a test, and its number; a benchmark, and its table."""
    own = gpu_check.cpu_steps

    def short(out):
        found = {step.name: step for step in own(out)}
        found['network'].command[-1:-1] = ['-k', 'gradients and cpu']
        found['scan'].command += ['--tables', 'memory']
        return [found['network'], found['scan']]

    monkeypatch.setattr(gpu_check, 'cpu_steps', short)
    report = check(monkeypatch, tmp_path, '--minutes', '5')
    network, scan = report['steps']
    (test,) = network['tables']['tests']
    assert test['test'] == 'test_gradients[cpu]'
    assert test['recorded'].startswith('error ')
    assert {row['method'] for row in scan['tables']['memory']} == {
        'fused',
        'composed',
        'torch',
    }


def test_goals(tmp_path):
    """From the files that the benchmarks write."""
    scan = tmp_path / 'scan.csv'
    scan.write_text(
        'table,method,forward ms,backward ms\n'
        'targets,fused,0.2,0.5\ntargets,composed,1.2,4\n'
        'targets,copy forward,0.1,-\n'
        'table,method,batch,peak MiB\n'
        'memory,fused,64,256\nmemory,composed,64,880\n'
    )
    networks = tmp_path / 'networks.csv'
    with networks.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['model', 'dtype', 'batch', 'images/s'])
        for model, dtype, speed in (
            ('mobilemamba:t2@192', 'float32', 100),
            ('mobilemamba:t2@192', 'bfloat16', 190.123456789),
            ('timm:efficientvit_m2@224', 'bfloat16', 100),
        ):
            writer.writerow([model, dtype, 256, speed])
    # What is not compared in the goals leaves them as they are.
    (tmp_path / 'compiled.csv').write_text(
        'model,dtype,batch,images/s\nmobilemamba:t2@192,bfloat16,256,9\n'
    )
    steps = []
    for name in ('scan', 'networks', 'compiled'):
        step = gpu_check.Step(name, [], 1)
        gpu_check.read_results(step, tmp_path)
        steps.append(step)
    met = {
        row['goal'].split(':')[0]: (row['measured'], row['met'])
        for row in gpu_check.goals(steps)
        if 'bfloat16' not in row['goal'] and '5 times' not in row['goal']
    }
    assert met == {
        'scan, forward': ('2.00', 'yes'),
        'scan, backward': ('5.00', 'no'),
        'scan, training': ('0.29', 'yes'),
        's6, batch 256': ('-', '-'),
        't2, batch 256': ('1.90', 'yes'),
        'b4, batch 256': ('-', '-'),
    }
    faster = [r for r in gpu_check.goals(steps) if 'bfloat16' in r['goal']]
    assert [row['measured'] for row in faster] == ['1.90', '-', '-']
