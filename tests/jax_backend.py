"""The JAX functions behind the kernels' interface, so that the cases of the core run through them.

Jitted they are the compiled kernels, eager the equation, operation by operation.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from softnll._kernels.cpu import interface as cpu
from softnll.jax import _kernels, _rows


def with_least(entries, function):
    """Return a function that is computed by the kernels from so many entries on, else by the equation's operations."""

    def call(*given):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(_kernels, "_LEAST", entries)
            patched.setattr(_kernels, "_LEAST_DIRECT", entries)
            return function(*given)

    return call


class JaxKernels:
    """Problems as JAX arrays, with float64 enabled; gradients are those of ``jax.vjp``."""

    total = staticmethod(cpu.total)

    def __init__(self, *, jitted):
        self.jit = (
            (lambda function: with_least(0, jax.jit(function, static_argnums=0)))
            if jitted
            else partial(with_least, 1 << 62)
        )

    def _call(self, function, problem, *more):
        with jax.enable_x64(True):
            found = self.jit(function)(problem.objective, *more, *arrays(problem))
            return jax.tree.map(lambda each: np.array(each, copy=True), found)

    def _normalised(self, function, problem):
        x, *_, tau, where = arrays(problem)
        with jax.enable_x64(True):
            return np.array(self.jit(function)(problem.objective, x, tau, where))

    @np.errstate(over="ignore")  # float64 results that overflow in the type of out
    def softmax(self, problem, out):
        out[...] = self._normalised(_rows.probabilities, problem)

    @np.errstate(over="ignore")
    def log_softmax(self, problem, out):
        out[...] = self._normalised(_rows.log_probabilities, problem)

    def logsumexp(self, problem):
        return self._normalised(_rows.normalisers, problem)[:, 0]

    def losses(self, problem):
        return self._call(_rows.losses, problem)

    @np.errstate(over="ignore")
    def forward_backward(self, problem, out):
        scale = 1 / problem.divisor if problem.divisor > 0 else 0.0
        losses, out[...] = self._call(losses_and_gradient, problem, scale)
        return losses

    def pick(self, problem):
        return self._call(_rows.picked, problem)


def losses_and_gradient(objective, scale, x, *others):
    """Return the rows' losses and the gradient of their scaled sum: one function, compiled once for each shape."""
    losses, back = jax.vjp(lambda z: _rows.losses(objective, z, *others), x.astype(float))
    return losses, back(jnp.full_like(losses, scale))[0]


def arrays(problem):
    """Return a Problem's arrays in the order of ``_rows.losses``."""
    given = problem.x, problem.y, problem.q, problem.w, problem.s, problem.tau, problem.where
    with jax.enable_x64(True):
        return tuple(None if each is None else jnp.asarray(np.array(each, order="C")) for each in given)
