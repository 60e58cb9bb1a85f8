"""Inputs and comparisons that several tests of the CPU kernels share."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from softnll._core.problem import Problem
from softnll._kernels.cpu import interface as cpu
from softnll._kernels.cpu import scalar_interface as scalar

NAN, INF = np.nan, np.inf
EPS = {"float32": 2.0**-23, "float64": 2.0**-52, "float16": 2.0**-10, "bfloat16": 2.0**-7}
LEAST = {"float32": 1e-44, "float64": 1e-320, "float16": 6e-8, "bfloat16": 1e-40}
KINDS = {  # the type of entries, and that as which kernels take them
    "float32": (np.float32, np.float32),
    "float64": (np.float64, np.float64),
    "bfloat16": (ml_dtypes.bfloat16, np.uint16),
    "float16": (np.float16, np.int16),
}
# Numbers of classes: all tails of vectors and tiles, and both sides of each limit (test_kernel_exact has 1 to 300).
LENGTHS = [*range(1, 36), 63, 64, 65, 127, 128, 129, 159, 160, 161, 255, 256, 257, 300, 511, 1000, 4095, 4096, 4097]


def distributions(rng, n_rows, n, dtype):
    """Return soft targets: some flat, some nearly sure, some with zeros."""
    q = rng.dirichlet(np.ones(n), n_rows) ** rng.integers(1, 6, (n_rows, 1))
    q[::3][q[::3] < 0.5 / n] = 0
    q[:, 0] += 1e-3
    return (q / q.sum(axis=1, keepdims=True)).astype(dtype)


def outputs(kernels, x, y, **options):
    """Return losses, gradient, softmax, log-probabilities and lse of a kernels module."""
    grad, p, log_p = (np.empty(x.shape, x.dtype) for _ in range(3))
    kernels.softmax(Problem(x), p)
    kernels.log_softmax(Problem(x), log_p)
    lse = kernels.logsumexp(Problem(x))
    loss = kernels.forward_backward(Problem(x, y=y, **options), grad)
    return loss, grad, p, log_p, lse


def close(got, want, dtype, units=8):
    """Assert that arrays agree within so many units of their own size."""
    name = np.dtype(dtype).name
    for a, b in zip(got, want, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)  # noqa: PLW2901
        assert np.allclose(a, b, rtol=units * EPS[name], atol=LEAST[name], equal_nan=True)


def losses_and_gradients(kernels, problem):
    """Return losses and gradient in one pass, and losses, m, r and gradient in two."""
    grad, again = np.empty(problem.x.shape, problem.x.dtype), np.empty(problem.x.shape, problem.x.dtype)
    loss = kernels.forward_backward(problem, grad)
    alone, m, r = kernels.forward(problem)
    kernels.backward(problem, m, r, again)
    return loss, grad, alone, m, r, again


def agree(problem, units=6):
    """Assert that vector and scalar kernels agree, in units of the largest term of a row; return what was computed."""
    got, want = losses_and_gradients(cpu, problem), losses_and_gradients(scalar, problem)
    dtype = np.dtype(problem.x.dtype).name
    eps = EPS[dtype]
    wide = EPS["float64" if dtype == "float64" else "float32"]
    for index in (0, 2):
        size = np.maximum(np.abs(want[index]), 1)
        with np.errstate(invalid="ignore"):
            bad = ~(np.abs(got[index] - want[index]) <= units * wide * size)
        assert (np.isnan(want[index]) == np.isnan(got[index])).all()
        assert not bad[np.isfinite(want[index])].any()
        assert (got[index] == want[index])[np.isinf(want[index])].all()
    scale = np.ones(len(problem.x)) if problem.s is None else np.abs(problem.s)
    scale = scale * (1 if problem.w is None else max(np.abs(problem.w).max(), 1)) / problem.objective.temperature
    for index in (1, 5):
        a, b = np.asarray(got[index], np.float64), np.asarray(want[index], np.float64)
        assert (np.isnan(a) == np.isnan(b)).all()
        with np.errstate(invalid="ignore"):
            assert (np.nan_to_num(np.abs(a - b)) <= units * eps * scale[:, None] / problem.divisor).all()
    assert np.array_equal(got[0], got[2], equal_nan=True)
    return got
