"""Losses and statistics of a linear layer, by a scan over chunks of rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from softnll._core import equation
from softnll._core.arithmetic import arithmetic_of
from softnll._core.options import DEFAULT, CrossEntropy
from softnll._core.problem import Problem
from softnll._core.targets import rows_without_part
from softnll.jax import _rows

__all__ = ["losses", "statistics", "total"]

# Arguments after the objective and the number of chunks: features, weight, bias, y, q, class weights, s, temperatures.


def _matmul(a: Any, b: Any) -> Any:
    """Return a product whose sums are float32 or wider."""
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    if a.dtype != b.dtype:
        a, b = a.astype(wide), b.astype(wide)
    return jnp.matmul(a, b, preferred_element_type=wide)


def _logits(f: Any, W: Any, b: Any) -> Any:
    z = _matmul(f, W.T)
    return z if b is None else z + b


def _divided(objective: CrossEntropy, chunks: int, f: Any, y: Any, q: Any, w: Any, s: Any, tau: Any) -> Any:
    """Return the arrays with one entry a row as chunks, the last one filled with rows that take no part."""
    N = f.shape[0]
    size = -(-N // chunks)
    more = size * -(-N // max(size, 1)) - N
    if more and s is None:
        s = jnp.ones(N)
    without_part = rows_without_part(jnp, y, w, s, None, objective.label_smoothing)
    if without_part is not None:  # what such rows hold must not reach the products
        f = jnp.where(without_part[:, None], 0, f)

    def part(array: Any, fill: float = 0) -> Any:
        if array is None:
            return None
        if more:
            array = jnp.concatenate([array, jnp.full((more, *array.shape[1:]), fill, array.dtype)])
        return array.reshape(-1, max(size, 1), *array.shape[1:])

    return part(f), part(y), part(q), part(s), part(tau, 1)


def losses(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the loss of each row, ``(N,)``; derivatives compute the logits of each chunk again."""
    f, W, b, y, q, w, s, tau = arrays

    @jax.checkpoint
    def of_chunk(W: Any, b: Any, w: Any, part: Any) -> Any:
        f, y, q, s, tau = part
        return _rows.losses(objective, _logits(f, W, b), y, q, w, s, tau, None)

    _, found = lax.scan(
        lambda _, part: (None, of_chunk(W, b, w, part)), None, _divided(objective, chunks, f, y, q, w, s, tau)
    )
    return found.reshape(-1)[: f.shape[0]]


def _sum(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    return jnp.sum(losses(objective, chunks, *arrays))


_with_tangents = partial(jax.custom_jvp, nondiff_argnums=(0, 1))


@_with_tangents
def total(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the sum of the losses; a derivative computes the gradients with it, chunk by chunk."""
    return _sum(objective, chunks, *arrays)


@partial(total.defjvp, symbolic_zeros=True)
def _total_jvp(objective: CrossEntropy, chunks: int, primals: Any, tangents: Any) -> tuple[Any, Any]:
    layer = tangents[:3]
    if any(_rows.moves(each) for each in layer):
        value, *gradients = _with_gradients(objective, chunks, *primals)
    else:
        value, gradients = total(objective, chunks, *primals), []
    tangent = jnp.zeros_like(value)
    for grad, each in zip(gradients, layer, strict=False):
        if _rows.moves(each):
            tangent = tangent + jnp.vdot(grad, each.astype(grad.dtype))
    others = [None if at < 3 else each for at, each in enumerate(tangents)]
    if any(_rows.moves(each) for each in others):
        tangent = tangent + _rows.pushed(partial(_sum, objective, chunks), primals, others)
    return value, tangent


@_with_tangents
def _with_gradients(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the sum of the losses and its gradients with respect to features, weight and bias."""
    f, W, b, y, q, w, s, tau = arrays

    def of_chunk(sums: Any, part: Any) -> Any:
        f, y, q, s, tau = part
        z = _logits(f, W, b)
        given = (z, y, q, w, s, tau, None)
        loss, dz = _rows.losses(objective, *given), _rows.gradients(objective, *given)
        value, dW, db = sums
        rounded = dz.astype(z.dtype)
        dW = dW + _matmul(rounded.T, f.astype(z.dtype))
        db = None if b is None else db + jnp.sum(dz, axis=0)
        return (value + jnp.sum(loss), dW, db), _matmul(rounded, W.astype(z.dtype))

    wide = jnp.promote_types(jnp.promote_types(f.dtype, W.dtype), jnp.float32)
    wide = wide if b is None else jnp.promote_types(wide, b.dtype)
    largest = arithmetic_of(f).dtype
    start = jnp.zeros((), largest), jnp.zeros(W.shape, wide), None if b is None else jnp.zeros(b.shape, largest)
    (value, dW, db), df = lax.scan(of_chunk, start, _divided(objective, chunks, f, y, q, w, s, tau))
    df = df.reshape(-1, f.shape[1])[: f.shape[0]]
    return value, df, dW, db


@partial(_with_gradients.defjvp, symbolic_zeros=True)
def _with_gradients_jvp(objective: CrossEntropy, chunks: int, primals: Any, tangents: Any) -> tuple[Any, Any]:
    found = _with_gradients(objective, chunks, *primals)
    if not any(_rows.moves(each) for each in tangents):
        return found, jax.tree.map(jnp.zeros_like, found)
    present = (0, 1) if primals[2] is None else (0, 1, 2)

    def again(*arrays: Any) -> Any:
        given = [arrays[at].astype(found[at + 1].dtype) if at in present else arrays[at] for at in range(len(arrays))]
        value, gradients = jax.value_and_grad(partial(_sum, objective, chunks), argnums=present)(*given)
        wide = [each.astype(like.dtype) for each, like in zip((value, *gradients), found, strict=False)]
        return (*wide, *([None] * (len(found) - len(wide))))

    return found, _rows.pushed(again, primals, tangents)


def statistics(objective: CrossEntropy, chunks: int, *arrays: Any) -> tuple[Any, Any, Any, Any]:
    """Return log-probability, entropy, argmax and logsumexp of each row; derivatives compute the logits again."""
    f, W, b, y, _, _, s, tau = arrays
    scale = CrossEntropy(temperature=objective.temperature) if objective.temperature != 1 else DEFAULT

    @jax.checkpoint
    def of_chunk(W: Any, b: Any, part: Any) -> Any:
        f, y, _, s, tau = part
        z = _logits(f, W, b)
        u, _ = equation.effective_logits(Problem(z, objective), arithmetic_of(z))
        log_p, p = _rows.log_probabilities(scale, u, tau, None), _rows.probabilities(scale, u, tau, None)
        entropy = -jnp.sum(p * jnp.where((p == 0) & ~jnp.isfinite(log_p), 0.0, log_p), axis=1)
        lse = _rows.normalisers(scale, u, tau, None)[:, 0]
        log_prob = -_rows.losses(objective, z, y, None, None, s, tau, None)
        best = jnp.argmax(z, axis=1).astype(jnp.int32)
        if s is None:
            return log_prob, entropy, best, lse
        out = s == 0
        log_prob, entropy, lse = (jnp.where(out, 0.0, each) for each in (log_prob, entropy, lse))
        return log_prob, entropy, jnp.where(out, -1, best), lse

    parts = _divided(objective, chunks, f, y, None, None, s, tau)
    _, found = lax.scan(lambda _, part: (None, of_chunk(W, b, part)), None, parts)
    log_prob, entropy, best, lse = (each.reshape(-1)[: f.shape[0]] for each in found)
    return log_prob, entropy, best, lse
