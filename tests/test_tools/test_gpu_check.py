"""tools/dev/gpu_check.py, on the CPU and on figures that are made up."""

import contextlib
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = 'dev/gpu_check.py'
LAYOUTS = ('contiguous', 'channels_last')
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


def failed_check(monkeypatch, out, *options):
    with pytest.raises(SystemExit):
        check(monkeypatch, out, *options)
    return json.loads((out / 'report.json').read_text())


def test_a_failure_stops_nothing(steps, monkeypatch, tmp_path):
    steps('raise SystemExit("broken")', 'print("well")')
    report = failed_check(monkeypatch, tmp_path)
    found = [step['status'] for step in report['steps']]
    assert found == ['failed, see step0.log', 'passed']
    assert 'broken' in (tmp_path / 'step0.log').read_text()
    assert '| step1 | passed |' in (tmp_path / 'report.md').read_text()


def test_it_ends_in_time(steps, monkeypatch, tmp_path):
    endless = 'import time\nwhile True: time.sleep(1)'
    steps(endless, endless, endless, minutes=1 / 30)
    # The first did not end in its own time.
    report = failed_check(monkeypatch, tmp_path, '--minutes', '0.05')
    found = [step['status'] for step in report['steps']]
    assert found == ['failed: out of time, see step0.log'] + 2 * [
        'not run: no time was left'
    ]


def test_nothing_runs_without_the_ops(steps, monkeypatch, tmp_path):
    steps('raise SystemExit("no ops")', '')[0].needed = True
    report = failed_check(monkeypatch, tmp_path, '--steps', 'step1')
    assert report['steps'][1]['status'] == 'not run: step0 has not passed'


def test_results_of_an_earlier_run_are_not_taken(steps, monkeypatch, tmp_path):
    (tmp_path / 'step0.csv').write_text('table,method\ntargets,fused\n')
    steps('raise SystemExit("broken")')
    report = failed_check(monkeypatch, tmp_path)
    assert report['steps'][0]['tables'] == {}


@pytest.mark.parametrize(
    ('wrote', 'status'),
    [
        ('<testsuite><testcase name="a"/></testsuite>', 'passed'),
        (
            '<testsuite><testcase name="a"><skipped message="no GPU"/>'
            '</testcase></testsuite>',
            'failed: all tests were skipped',
        ),
        ('<testsuite><testcase', 'passed'),
    ],
)
def test_skipped_and_broken_results(
    steps, monkeypatch, tmp_path, wrote, status
):
    file = tmp_path / 'step0.xml'
    steps(f'open({str(file)!r}, "w").write({wrote!r})')
    with contextlib.suppress(SystemExit):
        check(monkeypatch, tmp_path)
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['steps'][0]['status'] == status


def test_what_does_not_run_is_said(steps, monkeypatch, tmp_path):
    steps('print("b4 does not run: no memory is left")')
    report = check(monkeypatch, tmp_path)
    assert report['steps'][0]['status'] == 'passed in part, see step0.log'


@pytest.mark.slow
def test_each_selection_has_tests(monkeypatch, tmp_path):
    """What pytest is asked for on a GPU is there."""
    cuda = gpu_check.torch.cuda
    monkeypatch.setattr(cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(cuda, 'get_device_capability', lambda i: (8, i))
    steps = {step.name: step for step in gpu_check.cuda_steps(tmp_path)}
    assert steps['build'].environment['TORCH_CUDA_ARCH_LIST'] == '8.0;8.1'
    for name in ('network', 'racecheck'):
        command = steps[name].command
        command = command[command.index(sys.executable) :]
        output = subprocess.run(
            [*command, '--collect-only'],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,  # pytest ends with 5 where there is none
        ).stdout
        assert '<Function' in output


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
    tests = network['tables']['tests']
    names = [f'test_gradients[cpu-{x}]' for x in LAYOUTS]
    assert [test['test'] for test in tests] == names
    assert all(test['recorded'].startswith('error ') for test in tests)
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
    networks = tmp_path / 'networks_t2.csv'
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
    for name in ('scan', 'networks_t2', 'compiled'):
        step = gpu_check.Step(name, [], 1)
        gpu_check.read_results(step, tmp_path)
        steps.append(step)
    met = {
        row['goal'].split(':')[0]: (row['measured'], row['met'])
        for row in gpu_check.goals(steps)
        if 'twice' not in row['goal'] and '5 times' not in row['goal']
    }
    assert met == {
        'scan, forward': ('2.00', 'yes'),
        'scan, backward': ('5.00', 'no'),
        'scan, training': ('0.29', 'yes'),
        's6, batch 256': ('-', '-'),
        't2, batch 256': ('1.90', 'yes'),
        'b4, batch 256': ('-', '-'),
    }
    faster = [r for r in gpu_check.goals(steps) if 'twice' in r['goal']]
    assert [row['measured'] for row in faster] == ['1.90', '-', '-']
