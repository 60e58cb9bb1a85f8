"""The bounds of softnll's kernels hold where the exact value is a normal number: XLA flushes what is not to 0."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
import softnll.jax as snj
from cases import hard_rows

BOUND = 4


def worst(got, exact, dtype):
    least = 100 * np.finfo(dtype).smallest_normal
    pairs = [pair for row in zip(np.asarray(got), exact, strict=True) for pair in zip(*row, strict=True)]
    return max(oracle.ulps(g, t, np.dtype(dtype)) for g, t in pairs if t == 0 or abs(t) > least)


@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_hard_rows(dtype):
    x = hard_rows(dtype)[::7]
    y = np.arange(len(x)) % 4
    rows = [oracle.row(each, int(target)) for each, target in zip(x, y, strict=True)]
    with jax.enable_x64(dtype == np.float64):

        @jax.jit
        def both(x):
            losses, back = jax.vjp(lambda z: snj.cross_entropy(z, y, reduction="none"), x)
            return losses, back(jnp.ones_like(losses))[0]

        given = jnp.asarray(x)
        losses, grad = both(given)
        assert worst(jax.jit(snj.softmax)(given), [row.p for row in rows], dtype) <= BOUND
        assert worst(jax.jit(snj.log_softmax)(given), [row.log_p for row in rows], dtype) <= BOUND
        assert worst(np.asarray(losses)[:, None], [[row.loss] for row in rows], dtype) <= BOUND
        assert worst(grad, [row.grad for row in rows], dtype) <= BOUND
