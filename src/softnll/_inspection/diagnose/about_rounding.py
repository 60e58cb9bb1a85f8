"""Findings about rounding: a common offset, a common scale, losses and gradients that a conventional float32 loses."""

from __future__ import annotations

import numpy as np

from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.format import percent

RESOLUTION = 1e-3  # nats: what a score's last digit may be before it shows in a loss of three digits
FAR = 8.0  # an offset of so many spreads loses three bits and more
UNDERFLOW = 104.0  # exp(−104) is 0 in float32
HALF = 0.5
ENOUGH = 20  # rows, below which half of them may be so by chance
SOME = 1e-3
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


def offset(obs: Observations) -> Finding | None:
    """Find a large number common to the scores of a row: it costs digits and does not change the softmax."""
    x = obs.sampled.astype(np.float64)
    if obs.kind.code != "logits" or obs.C < 2 or len(x) == 0:
        return None
    finite = np.isfinite(x)
    spread = np.where(finite, x, -np.inf).max(axis=1) - np.where(finite, x, np.inf).min(axis=1)
    size = np.abs(np.where(finite, x, 0)).max(axis=1)
    dtype, eps = obs.scores.dtype.name, _EPS.get(obs.scores.dtype.name, 2.0**-23)
    typical, away = float(np.median(size)), float(np.median(spread))
    step = float(2.0 ** np.floor(np.log2(max(typical, 1e-300))) * eps)
    if away == 0 or typical < FAR * away or step < RESOLUTION:
        return None
    already = dtype in _EPS
    numbers = {"magnitude": typical, "spread": away, "step": step, "common_offset": float(np.median(x[finite]))}
    text = f"in {obs.of_sample()}, scores are about {typical:.4g} large and lie within {away:.3g} of each other; "
    text += f"at that size two {dtype if already else 'float32'} numbers are {step:.2g} apart"
    return finding(f"common-offset/{'rounded' if already else 'float64'}", Evidence(text, **numbers))


def scale(obs: Observations) -> Finding | None:
    """Find scores so far apart that every class but one has a probability of 0 in float32."""
    if obs.C < 2 or len(obs.logits) == 0 or obs.kind.code != "logits":
        return None
    top = np.partition(obs.logits.astype(np.float64), -2, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):
        gap = float(np.median(top[:, 1] - top[:, 0]))
    if not UNDERFLOW < gap < np.inf:
        return None
    text = f"in {obs.of_sample()}, the largest score is {gap:.4g} ahead of the next one in the median; exp(-104) is 0 "
    return finding("common-scale/maximum", Evidence(text + "in float32", median_gap=gap, rows=len(obs.logits)))


def saturation(obs: Observations) -> Finding | None:
    """Find rows whose loss or gradient a conventional float32 implementation rounds to 0."""
    N, loss, gradient = len(obs.labelled), obs.zeros.loss, obs.zeros.gradient
    share = max(loss, gradient) / N
    if share < SOME:
        return None
    numbers = {"rows": N, "loss_zero": loss, "gradient_zero": gradient, "share": share}
    text = f"of {N} rows, the usual float32 formula gives a loss of exactly 0 in {loss} ({percent(loss / N)}) and a "
    text += f"gradient of exactly 0 at the label in {gradient} ({percent(gradient / N)}); none of the true ones is 0"
    # Probabilities and their logarithms are a file's form: what was trained had logits of its own.
    severe = share >= HALF and N >= ENOUGH and obs.kind.code == "logits"
    return finding("saturation", Evidence(text, **numbers), severity="warning" if severe else None)
