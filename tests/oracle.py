"""The truth: NUMERICS §1 in mpmath, as the formulas stand, with enough digits that nothing has to be clever."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from mpmath import mp, mpf

PRECISION = 2400  # bits: 1 − p for scores 740 apart needs 1070, twice that a product of two


@dataclass
class Row:
    """What one row of logits has for values, exactly."""

    p: list
    log_p: list
    lse: object
    loss: object = None
    grad: list | None = None


def row(x, target=None, **options):
    """Return the exact values of one row; ``target`` is an int or a sequence of C numbers; options as in `_row`.

    What every backend is compared with is computed once.
    """
    given = {name: tuple(value) if np.ndim(value) else value for name, value in options.items()}
    target = tuple(target) if np.ndim(target) else target
    return _row(tuple(float(each) for each in x), target, **given)


@lru_cache(4096)
def _row(
    x,
    target,
    *,
    class_weight=None,
    scale=1.0,
    divisor=1.0,
    label_smoothing=0.0,
    z_loss=0.0,
    softcap=None,
    temperature=1.0,
    where=None,
    precision=PRECISION,
):
    with mp.workprec(precision):
        x = [mpf(each) for each in x]
        C = len(x)
        allowed = [True] * C if where is None else [bool(each) for each in where]
        tau = mpf(float(temperature))
        if softcap is None:
            u, slope = [each / tau for each in x], [1 / tau] * C
        else:
            cap = mpf(softcap)
            u = [cap * mp.tanh(each / cap) / tau for each in x]
            slope = [1 / mp.cosh(each / cap) ** 2 / tau for each in x]
        e = [mp.exp(u[j]) if allowed[j] else mpf(0) for j in range(C)]
        Z = mp.fsum(e)
        lse = mp.log(Z)
        p = [each / Z for each in e]
        log_p = [u[j] - lse if allowed[j] else mp.ninf for j in range(C)]
        result = Row(p, log_p, lse)
        if target is None:
            return result
        if isinstance(target, int | np.integer):
            q = [mpf(int(j == target)) for j in range(C)]
        else:
            q = [mpf(float(each)) for each in target]
        eps, zeta, scale = mpf(label_smoothing), mpf(z_loss), mpf(float(scale)) / mpf(float(divisor))
        n = sum(allowed)
        w = [mpf(1)] * C if class_weight is None else [mpf(float(each)) for each in class_weight]
        t = [w[j] * ((1 - eps) * q[j] + (eps / n if allowed[j] else 0)) for j in range(C)]
        T = mp.fsum(t)
        result.loss = scale * (T * zeta * lse**2 + mp.fsum(-t[j] * log_p[j] for j in range(C) if t[j] != 0))
        result.grad = [
            scale * (T * (1 + 2 * zeta * lse) * p[j] - t[j]) * slope[j] if allowed[j] else mpf(0) for j in range(C)
        ]
        return result


def format_of(dtype):
    """Return (digits of the significand, exponent of the smallest normal) of a floating-point type."""
    return {"float16": (11, -14), "bfloat16": (8, -126), "float32": (24, -126), "float64": (53, -1022)}[
        np.dtype(dtype).name
    ]


def ulps(got, truth, dtype, bound=4.0):
    """Return the error in units in the last place of the truth.

    Below the normal range the contract allows 2 smallest subnormals whatever the bound above it: there that much
    counts as the bound.
    """
    digits, least = format_of(dtype)
    with mp.workprec(PRECISION):
        got = float(got)
        if not np.isfinite(got):
            return 0.0 if mp.isinf(truth) and float(truth) == got else float("inf")
        error = abs(mpf(got) - truth)
        if error == 0:
            return 0.0
        exponent = mp.frexp(truth)[1] - 1 if truth != 0 else least - 1
        if exponent < least:
            return float(error / mp.ldexp(1, least - digits + 2) * bound)
        return float(error / mp.ldexp(1, exponent - digits + 1))
