"""Values of rows and their derivatives: the equation, with the exact gradients as coefficients of the tangents.

Each tangent is linear in the tangents of the inputs, so that JAX transposes it for reverse mode. Coefficients are
functions with tangents of their own, so that derivatives have any order.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from softnll._core import equation
from softnll._core.arithmetic import LIBRARIES, arithmetic_of
from softnll._core.options import DEFAULT, CrossEntropy
from softnll._core.problem import Problem
from softnll._core.targets import counted_weights
from softnll.jax._arithmetic import JaxArithmetic
from softnll.jax._inputs import over
from softnll.jax._kernels import EQUATIONS, TANGENTS, of_rows

LIBRARIES["jax.numpy"] = JaxArithmetic
_with_tangents = partial(jax.custom_jvp, nondiff_argnums=(0,))


def _normalised(objective: CrossEntropy, x: Any, tau: Any, where: Any) -> equation.Normalised:
    return equation.normalise(Problem(x, objective, tau=tau, where=where))


@of_rows("softmax")
def _probabilities(objective: CrossEntropy, *arrays: Any) -> Any:
    return equation.probabilities(_normalised(objective, arrays[0], *arrays[5:7]))


@of_rows("log_softmax")
def _log_probabilities(objective: CrossEntropy, *arrays: Any) -> Any:
    return equation.log_probabilities(_normalised(objective, arrays[0], *arrays[5:7]))


@of_rows("logsumexp")
def _normalisers(objective: CrossEntropy, *arrays: Any) -> Any:
    return equation.normalisers(_normalised(objective, arrays[0], *arrays[5:7]))


@_with_tangents
def probabilities(objective: CrossEntropy, x: Any, tau: Any, where: Any) -> Any:
    """Return softmax(x/τ), ``(N, C)``, in the widest type."""
    return _probabilities(objective, x, None, None, None, None, tau, where, None)


@_with_tangents
def log_probabilities(objective: CrossEntropy, x: Any, tau: Any, where: Any) -> Any:
    """Return log softmax(x/τ), ``(N, C)``, in the widest type."""
    return _log_probabilities(objective, x, None, None, None, None, tau, where, None)


@_with_tangents
def normalisers(objective: CrossEntropy, x: Any, tau: Any, where: Any) -> Any:
    """Return logsumexp(x/τ), ``(N, 1)``, in the widest type."""
    return _normalisers(objective, x, None, None, None, None, tau, where, None)


def _directions(
    objective: CrossEntropy, primals: Any, tangents: Any, *, centre: bool
) -> tuple[equation.Normalised, Any, Any]:
    """Return the rows, their probabilities, and the tangent of x/τ, or of (x − m)/τ, where a class is allowed."""
    x, tau, where = primals
    rows = _normalised(objective, *(None if each is None else lax.stop_gradient(each) for each in primals))
    wide = rows.arithmetic.wide
    p = probabilities(objective, x, tau, where)
    temperature: Any = objective.temperature if tau is None else wide(tau)[:, None]
    a = jnp.zeros_like(p)
    if not isinstance(tangents[0], SymbolicZero):
        a = a + wide(tangents[0]) / temperature
    if tau is not None and not isinstance(tangents[1], SymbolicZero):
        u = wide(x) - rows.m if centre else wide(x)
        a = a - jnp.where(jnp.isfinite(u), u, 0.0) / temperature**2 * wide(tangents[1])[:, None]
    return rows, p, a if where is None else jnp.where(where, a, 0.0)


@partial(probabilities.defjvp, symbolic_zeros=True)
def _probabilities_jvp(objective: CrossEntropy, primals: Any, tangents: Any) -> tuple[Any, Any]:
    rows, p, a = _directions(objective, primals, tangents, centre=True)
    return p, equation.softmax_product(jnp, rows, p, a)


@partial(log_probabilities.defjvp, symbolic_zeros=True)
def _log_probabilities_jvp(objective: CrossEntropy, primals: Any, tangents: Any) -> tuple[Any, Any]:
    rows, p, a = _directions(objective, primals, tangents, centre=True)
    tangent = equation.centred(rows, p, a)
    where = primals[2]
    return log_probabilities(objective, *primals), tangent if where is None else jnp.where(where, tangent, 0.0)


@partial(normalisers.defjvp, symbolic_zeros=True)
def _normalisers_jvp(objective: CrossEntropy, primals: Any, tangents: Any) -> tuple[Any, Any]:
    _, p, a = _directions(objective, primals, tangents, centre=False)
    return normalisers(objective, *primals), jnp.sum(p * a, axis=1, keepdims=True)


def _problem(objective: CrossEntropy, arrays: tuple[Any, ...]) -> Problem:
    x, y, q, w, s, tau, where = arrays[:7]  # D may follow
    return Problem(x, objective, y, q, w, s, where, tau)


@of_rows("losses")
def _losses(objective: CrossEntropy, *arrays: Any) -> Any:
    problem = _problem(objective, arrays)
    column = _targets_alone(problem)
    if column is None:
        return equation.losses(problem, equation.normalise(problem))
    rows = equation.normalise(problem)
    return equation.losses(column, equation.normalise(column, rows.m[:, 0], rows.r[:, 0]))


@of_rows("gradients")
def _gradients(objective: CrossEntropy, *arrays: Any) -> Any:
    D = 1.0 if arrays[7] is None else arrays[7]
    problem = replace(_problem(objective, arrays), divisor=D)
    if problem.y is not None and problem.w is not None and objective.label_smoothing == 0:
        problem = replace(problem, w=None, s=_weights(problem))
    return equation.gradient(problem, equation.normalise(problem))


@of_rows("forward_backward")
def losses_and_gradients(objective: CrossEntropy, *arrays: Any) -> Any:
    """Return losses, ``(N,)``, and their gradients over D, ``(N, C)``; it has no tangents."""
    return EQUATIONS["losses"](objective, *arrays), EQUATIONS["gradients"](objective, *arrays)


def _total(loss: Any, arrays: tuple[Any, ...]) -> Any:
    """Return losses of rows or, if D is among the arrays, their sum over D."""
    return loss if len(arrays) == 7 else over(jnp.sum(loss), arrays[7])


@_with_tangents
def losses(objective: CrossEntropy, *arrays: Any) -> Any:
    """Return the loss of each row, ``(N,)``, in the widest type; with D, a number or None, their sum over D.

    The gradient is then divided by D where it is computed. Divided afterwards, it would be in memory twice.
    """
    return _total(_losses(objective, *arrays[:7], None), arrays)


@_with_tangents
def _gradients_too(objective: CrossEntropy, *arrays: Any) -> Any:
    """Return the losses, or their sum over D, and the gradients with respect to the logits, in one pass."""
    loss, grad = losses_and_gradients(objective, *arrays[:7], arrays[7] if len(arrays) > 7 else None)
    return _total(loss, arrays), grad


def _targets_alone(problem: Problem) -> Problem | None:
    """Return the Problem of the targets' logits, ``(N, 1)``, if no other class has a part of the target measure."""
    if problem.y is None or problem.where is not None or problem.objective.label_smoothing > 0:
        return None
    C = problem.x.shape[1]
    inside, chosen = (problem.y >= 0) & (problem.y < C), jnp.clip(problem.y, 0, C - 1)
    x = jnp.take_along_axis(problem.x, chosen[:, None], axis=1)
    return replace(problem, x=x, y=jnp.where(inside, 0, -1), w=None, s=_weights(problem))


def _weights(problem: Problem) -> Any:
    """Return s·w_y of each row, 0 where s is 0; None if all are 1."""
    s = problem.s
    return counted_weights(jnp, problem.y, problem.w, s, None if s is None or problem.w is None else s == 0)


@partial(losses.defjvp, symbolic_zeros=True)
def _losses_jvp(objective: CrossEntropy, primals: Any, tangents: Any) -> tuple[Any, Any]:
    if moves(tangents[0]):
        loss, grad = _gradients_too(objective, *primals)
    else:
        loss, grad = losses(objective, *primals), None
    return loss, _loss_tangent(objective, primals, tangents, loss, grad)


def _loss_tangent(objective: CrossEntropy, primals: Any, tangents: Any, loss: Any, grad: Any) -> Any:
    tangent = jnp.zeros_like(loss)
    if moves(tangents[0]):
        moved = grad * tangents[0].astype(grad.dtype)
        tangent = tangent + (jnp.sum(moved) if len(primals) > 7 else jnp.sum(moved, axis=1))
    others = [None if at == 0 else each for at, each in enumerate(tangents)]
    if any(moves(each) for each in others):
        tangent = tangent + pushed(partial(_composition, objective), primals, others)
    return tangent


def moves(tangent: Any) -> bool:
    """Return whether there is a tangent."""
    return tangent is not None and not isinstance(tangent, SymbolicZero) and tangent.dtype != jax.dtypes.float0


def pushed(function: Any, primals: Any, tangents: Any) -> Any:
    """Return the tangent of a function of the arrays, for those arrays that have one."""
    moving = [at for at, each in enumerate(tangents) if moves(each)]

    def of_moving(*values: Any) -> Any:
        arrays = list(primals)
        for at, value in zip(moving, values, strict=True):
            arrays[at] = value
        return function(*arrays)

    return jax.jvp(of_moving, [primals[at] for at in moving], [tangents[at] for at in moving])[1]


@partial(_gradients_too.defjvp, symbolic_zeros=True)
def _gradients_too_jvp(objective: CrossEntropy, primals: Any, tangents: Any) -> tuple[Any, Any]:
    loss, grad = _gradients_too(objective, *primals)

    def of_logits(x: Any, *others: Any) -> Any:
        return jax.grad(lambda z: jnp.sum(_composition(objective, z, *others)))(x.astype(grad.dtype))

    moving = any(moves(each) for each in tangents)
    bent = pushed(of_logits, primals, tangents) if moving else jnp.zeros_like(grad)
    return (loss, grad), (_loss_tangent(objective, primals, tangents, loss, grad), bent)


def _composition(objective: CrossEntropy, *arrays: Any) -> Any:
    return _total(_composed(objective, *arrays[:7]), arrays)


def _composed(objective: CrossEntropy, *arrays: Any) -> Any:
    """Return the losses as a composition of functions with tangents: for all but their value and first gradient."""
    problem = _problem(objective, arrays)
    arithmetic = arithmetic_of(problem.x)
    x, s, where = arithmetic.wide(problem.x), problem.s, problem.where
    if s is not None:
        x = jnp.where(s[:, None] == 0, 0.0, x)
    if where is not None:
        x = jnp.where(where, x, 0.0)
    u, _ = equation.effective_logits(replace(problem, x=x), arithmetic)
    t, mass = equation.measure(problem)
    scale = replace(DEFAULT, temperature=objective.temperature)
    log_p = log_probabilities(scale, u, problem.tau, where)
    loss = jnp.sum(t * jnp.where((t == 0) & ~jnp.isfinite(log_p), 0.0, -log_p), axis=1, keepdims=True)
    if objective.z_loss > 0:
        lse = normalisers(scale, u, problem.tau, where)
        loss = loss + objective.z_loss * mass * lse * lse
    if s is not None:
        loss = loss * s[:, None]
    empty = None if where is None else ~jnp.any(where, axis=1, keepdims=True)
    return equation.special_rows(problem, jnp, t, mass, empty, loss)[:, 0]


def picked(objective: CrossEntropy, *arrays: Any) -> Any:
    """Return the loss of each row of log-probabilities, ``(N,)``: −s·⟨t, x⟩."""
    problem = _problem(objective, arrays)
    column = _targets_alone(problem)
    if column is not None:
        return equation.picked(column)
    t, mass = equation.measure(problem)
    x = arithmetic_of(problem.x).wide(problem.x)
    x = jnp.where((t == 0) & ~jnp.isfinite(x), 0.0, x)  # 0·∞ is 0, and the other terms keep their derivatives
    loss = -jnp.sum(t * x, axis=1, keepdims=True)
    loss = loss if problem.s is None else loss * problem.s[:, None]
    return equation.special_rows(problem, jnp, t, mass, None, loss)[:, 0]


TANGENTS.update(
    softmax=lambda objective, *arrays: probabilities(objective, arrays[0], *arrays[5:7]),
    log_softmax=lambda objective, *arrays: log_probabilities(objective, arrays[0], *arrays[5:7]),
    logsumexp=lambda objective, *arrays: normalisers(objective, arrays[0], *arrays[5:7]),
    losses=lambda objective, *arrays: losses(objective, *arrays[:7]),
    gradients=lambda objective, *arrays: _gradients_too(objective, *arrays[:7])[1],
    forward_backward=lambda objective, *arrays: _gradients_too(objective, *arrays[:7]),
)
