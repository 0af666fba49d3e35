"""Runs ops with the instruction set that ATEN_CPU_CAPABILITY names.

Usage: run_ops.py CALLS RESULTS
"""

import sys

import torch
from test_ops.support import run_ops

torch.set_num_threads(1)
calls = torch.load(sys.argv[1])
results = torch.backends.cpu.get_cpu_capability(), run_ops(calls)
torch.save(results, sys.argv[2])
