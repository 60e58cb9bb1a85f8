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
from softnll.jax._inputs import over

# Arguments after the objective and the number of chunks: features, weight, bias, y, q, class weights, s, temperatures;
# of functions of all rows also D, by which the sum of the losses is divided, or None.


def _matmul(a: Any, b: Any) -> Any:
    """Return a product whose sums are float32 or wider."""
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    if a.dtype != b.dtype:
        a, b = a.astype(wide), b.astype(wide)
    return jnp.matmul(a, b, preferred_element_type=wide)


def _logits(f: Any, W: Any, b: Any) -> Any:
    z = _matmul(f, W.T)
    return z if b is None else z + b


def _divided(chunks: int, f: Any, y: Any, q: Any, s: Any, tau: Any) -> Any:
    """Return the arrays with one entry a row as chunks, the last one filled with rows that take no part."""
    N = f.shape[0]
    size = -(-N // chunks)
    more = size * -(-N // max(size, 1)) - N
    if more and s is None:
        s = jnp.ones(N)

    def part(array: Any, fill: float = 0) -> Any:
        if array is None:
            return None
        if more:
            array = jnp.concatenate([array, jnp.full((more, *array.shape[1:]), fill, array.dtype)])
        return array.reshape(-1, max(size, 1), *array.shape[1:])

    return part(f), part(y), part(q), part(s), part(tau, 1)


def _multiplied(objective: CrossEntropy, f: Any, y: Any, w: Any, s: Any) -> Any:
    """Return features with 0 in rows that take no part: what those hold must not reach the products."""
    without_part = rows_without_part(jnp, y, w, s, None, objective.label_smoothing)
    return f if without_part is None else jnp.where(without_part[:, None], 0, f)


def _accumulated(dW: Any, dz: Any, f: Any) -> Any:
    """Return dW + dzᵀ·f, by blocks of classes one after the other: the product is not another array of dW's size.

    With several devices it is one product, as dW may be divided among them by classes.
    """
    C, H = dW.shape
    step = min(max(dz.shape[0] * C // max(H, 1), -(-C // 32)), C)  # a block's product is as large as dz
    if step == C or jax.device_count() > 1:
        return dW + _matmul(dz.T, f)

    def add(at: Any, size: int, dW: Any) -> Any:
        product = _matmul(lax.dynamic_slice_in_dim(dz, at, size, 1).T, f)
        return lax.dynamic_update_slice_in_dim(dW, lax.dynamic_slice_in_dim(dW, at, size, 0) + product, at, 0)

    whole = C // step
    dW = lax.fori_loop(0, whole, lambda i, dW: add(i * step, step, dW), dW)
    return dW if whole * step == C else add(whole * step, C - whole * step, dW)


def losses(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the loss of each row, ``(N,)``; derivatives compute the logits of each chunk again."""
    f, W, b, y, q, w, s, tau = arrays

    @jax.checkpoint
    def of_chunk(W: Any, b: Any, w: Any, part: Any) -> Any:
        f, y, q, s, tau = part
        f = _multiplied(objective, f, y, w, s)
        return _rows.losses(objective, _logits(f, W, b), y, q, w, s, tau, None)

    _, found = lax.scan(lambda _, part: (None, of_chunk(W, b, w, part)), None, _divided(chunks, f, y, q, s, tau))
    return found.reshape(-1)[: f.shape[0]]


def _composed(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    return over(jnp.sum(losses(objective, chunks, *arrays[:-1])), arrays[-1])


_with_tangents = partial(jax.custom_jvp, nondiff_argnums=(0, 1))


@_with_tangents
def total(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the sum of the losses over D; a derivative computes the gradients with it, chunk by chunk."""
    return _composed(objective, chunks, *arrays)


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
        tangent = tangent + _rows.pushed(partial(_composed, objective, chunks), primals, others)
    return value, tangent


@_with_tangents
def _with_gradients(objective: CrossEntropy, chunks: int, *arrays: Any) -> Any:
    """Return the sum of the losses over D and its gradients with respect to features, weight and bias.

    The gradients are divided by D where they are computed. Divided afterwards, they would be in memory twice: as the
    scan's result and as the program's.
    """
    f, W, b, y, q, w, s, tau, D = arrays

    def of_chunk(sums: Any, part: Any) -> Any:
        f, y, q, s, tau = part
        f = _multiplied(objective, f, y, w, s)
        z = _logits(f, W, b)
        loss, dz = _rows.losses_and_gradients(objective, z, y, q, w, s, tau, None, D)
        value, dW, db = sums
        rounded = dz.astype(z.dtype)
        dW = _accumulated(dW, rounded, f.astype(z.dtype))
        db = None if b is None else db + jnp.sum(dz, axis=0)
        return (value + jnp.sum(loss), dW, db), _matmul(rounded, W.astype(z.dtype))

    wide = jnp.promote_types(jnp.promote_types(f.dtype, W.dtype), jnp.float32)
    wide = wide if b is None else jnp.promote_types(wide, b.dtype)
    largest = arithmetic_of(f).dtype
    start = jnp.zeros((), largest), jnp.zeros(W.shape, wide), None if b is None else jnp.zeros(b.shape, largest)
    (value, dW, db), df = lax.scan(of_chunk, start, _divided(chunks, f, y, q, s, tau))
    df = df.reshape(-1, f.shape[1])[: f.shape[0]]
    return over(value, D), df, dW, db


@partial(_with_gradients.defjvp, symbolic_zeros=True)
def _with_gradients_jvp(objective: CrossEntropy, chunks: int, primals: Any, tangents: Any) -> tuple[Any, Any]:
    found = _with_gradients(objective, chunks, *primals)
    if not any(_rows.moves(each) for each in tangents):
        return found, jax.tree.map(jnp.zeros_like, found)
    present = (0, 1) if primals[2] is None else (0, 1, 2)

    def again(*arrays: Any) -> Any:
        given = [arrays[at].astype(found[at + 1].dtype) if at in present else arrays[at] for at in range(len(arrays))]
        value, gradients = jax.value_and_grad(partial(_composed, objective, chunks), argnums=present)(*given)
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
        f = _multiplied(objective, f, y, None, s)
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

    parts = _divided(chunks, f, y, None, s, tau)
    _, found = lax.scan(lambda _, part: (None, of_chunk(W, b, part)), None, parts)
    log_prob, entropy, best, lse = (each.reshape(-1)[: f.shape[0]] for each in found)
    return log_prob, entropy, best, lse
