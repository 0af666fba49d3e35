"""Imports the ops of each folder with each value of MMMAMBA_OP_BACKEND.

All in one process, since the import of PyTorch is what takes time.
Usage: report_backends.py FOLDER...
"""

import importlib
import json
import os
import sys
import warnings

import torch


def attempt():
    from mmmamba.ops import describe_backends, selective_scan

    u = torch.ones(1, 2, 3, requires_grad=True)
    rows = torch.ones(1, 1, 1, 3)
    with torch.profiler.profile() as profile:
        y = selective_scan(u, u, -torch.ones(2, 1), rows, rows)
    events = {event.key for event in profile.key_averages()}
    used = 'cpp' if 'mmmamba::selective_scan' in events else 'torch'
    y.sum().backward()
    expected = 1 + torch.tensor(-1.0).exp()
    assert abs(y[0, 0, 1] - expected) < 1e-6
    return used, describe_backends()['cpu']


# An editable install would supply what a folder lacks.
sys.meta_path = [f for f in sys.meta_path if 'ditable' not in repr(f)]
reports = {}
for folder in sys.argv[1:]:
    sys.path.insert(0, folder)
    for value in ('', 'torch', 'cpp', 'cuda', 'nonsense'):
        os.environ['MMMAMBA_OP_BACKEND'] = value
        for name in list(sys.modules):
            if name.startswith('mmmamba'):
                del sys.modules[name]
        importlib.invalidate_caches()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            try:
                used, words = attempt()
            except (ImportError, RuntimeError, ValueError) as error:
                used, words = type(error).__name__, str(error)
        said = [str(w.message) for w in caught]
        said = [text for text in said if 'mmmamba' in text]
        reports.setdefault(folder, {})[value] = used, words, said
    del sys.path[0]
print(json.dumps(reports))
