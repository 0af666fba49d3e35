"""Calls the scans with sizes of 0 and with what does not fit: no crash."""

import itertools

import torch

from mmmamba.ops import bidirectional_scan, selective_scan


def zeros(*shape):
    return torch.zeros(shape)


def attempt(function, *inputs):
    try:
        return function(*inputs)
    except (ValueError, RuntimeError, IndexError):
        return None


# No batch, no channels, no states: nothing to do is no reason to crash.
for batch, K, D, N, L in itertools.product(
    (0, 1), (1, 2), (0, 3), (0, 2), (1, 5)
):
    print('selective', batch, K, D, N, L, flush=True)
    u, delta = torch.ones(2, batch, K * D, L)
    skip = torch.full((K * D,), 2.0)
    A = zeros(K * D, N)
    B, C = zeros(2, batch, K, N, L)
    for t in (u, delta, A, B, C, skip):
        t.requires_grad_()
    u.retain_grad()
    y = attempt(selective_scan, u, delta, A, B, C, skip)
    if y is not None:
        assert torch.equal(y, 2 * u)
        grads = torch.autograd.grad(y.sum(), [u, A, B], allow_unused=True)
        assert (grads[0] == 2).all()
for batch, D, R, N in itertools.product((0, 1), (0, 3), (0, 2), (0, 2)):
    print('bidirectional', batch, D, R, N, flush=True)
    x = torch.ones(batch, D, 5, requires_grad=True)
    y = attempt(
        bidirectional_scan,
        x,
        zeros(batch, 2, R + 2 * N, 5),
        zeros(2, D, R),
        zeros(2, D),
        zeros(2 * D, N),
        torch.full((2 * D,), 2.0),
    )
    if y is not None:
        assert torch.equal(y, 4 * x)
        y.sum().backward()
        assert (x.grad == 4).all()

# The op of the gradient checks its inputs too.
ops = torch.ops.mmmamba
u, A, B = zeros(2, 6, 90), zeros(6, 4), zeros(2, 2, 4, 90)
arguments = [u, u, u, A, B, B, zeros(6), zeros(6)]
wrong = [zeros(1, 1, 1), zeros(2, 6, 89), zeros(6), zeros(2, 7, 90)]
for i, bad in itertools.product(range(len(arguments)), wrong):
    if bad.shape == arguments[i].shape:
        continue
    print('selective_backward', i, bad.shape, flush=True)
    inputs = list(arguments)
    inputs[i] = bad
    result = attempt(ops.selective_scan_backward, *inputs, True)
    assert result is None, 'no error'
x, rows = zeros(2, 6, 90), zeros(2, 2, 10, 90)
arguments = [x, x, rows, zeros(2, 6, 2), zeros(2, 6), zeros(12, 4)]
wrong += [zeros(2, 6)]
for i, bad in itertools.product(range(len(arguments)), wrong):
    if bad.shape == arguments[i].shape:
        continue
    print('bidirectional_backward', i, bad.shape, flush=True)
    inputs = list(arguments)
    inputs[i] = bad
    result = attempt(ops.bidirectional_scan_backward, *inputs, None)
    assert result is None, 'no error'
