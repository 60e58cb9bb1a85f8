"""Findings about rounding: a common offset, a common scale, losses and gradients that a conventional float32 loses."""

from __future__ import annotations

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.finding import Evidence, Finding, percent

__all__ = ["offset", "saturation", "scale"]

RESOLUTION = 1e-3  # nats: what a score's last digit may be before it shows in a loss of three digits
FAR = 8.0  # an offset of so many spreads costs three bits and more
UNDERFLOW = 104.0  # exp(−104) is 0 in float32
HALF = 0.5
ENOUGH = 20  # rows, below which half of them may be so by accident
SOME = 1e-3
_EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}


def offset(case: Case) -> Finding | None:
    """Find a number common to a row's scores, which softmax does not see, takes their digits."""
    x = case.sampled.astype(np.float64)
    if case.kind.code != "logits" or case.C < 2 or len(x) == 0:
        return None
    finite = np.isfinite(x)
    spread = np.where(finite, x, -np.inf).max(axis=1) - np.where(finite, x, np.inf).min(axis=1)
    size = np.abs(np.where(finite, x, 0)).max(axis=1)
    dtype, eps = case.scores.dtype.name, _EPS.get(case.scores.dtype.name, 2.0**-23)
    typical, away = float(np.median(size)), float(np.median(spread))
    step = float(2.0 ** np.floor(np.log2(max(typical, 1e-300))) * eps)
    if away == 0 or typical < FAR * away or step < RESOLUTION:
        return None
    already = dtype in _EPS
    numbers = {"magnitude": typical, "spread": away, "step": step, "common_offset": float(np.median(x[finite]))}
    said = f"in {case.of_sample()}, scores are about {typical:.4g} large and lie within {away:.3g} of each other; "
    said += f"at that size two {dtype if already else 'float32'} numbers are {step:.2g} apart"
    return Finding(
        "common-offset",
        "warning" if already else "note",
        "A large number is common to the scores of a row",
        Evidence(said, **numbers),
        "Softmax does not depend on it, but the digits that differ are rounded away: losses are off by about that step"
        + (", and log-sum-exp minus the score loses more." if already else ", where the scores are made float32."),
        "Subtract each row's mean before the scores are rounded: in the layer that makes them, or in its bias.",
    )


def scale(case: Case) -> Finding | None:
    """Find scores so far apart that every class but one has a probability of 0 in float32."""
    if case.C < 2 or len(case.logits) == 0 or case.kind.code != "logits":
        return None
    top = np.partition(case.logits.astype(np.float64), -2, axis=1)[:, -2:]
    with np.errstate(invalid="ignore"):
        gap = float(np.median(top[:, 1] - top[:, 0]))
    if not UNDERFLOW < gap < np.inf:
        return None
    said = f"in {case.of_sample()}, the largest score is {gap:.4g} ahead of the next one in the median; exp(-104) is 0 "
    return Finding(
        "common-scale",
        "warning",
        "The scores are so far apart that softmax is a maximum",
        Evidence(said + "in float32", median_gap=gap, rows=len(case.logits)),
        "Probabilities are 0 and 1, gradients vanish or are of full size, and each wrong row costs hundreds of nats.",
        "Look for a missing division (by a temperature, by the square root of the width, by 255), or features "
        "that were not standardised.",
    )


def saturation(case: Case) -> Finding | None:
    """Find rows whose loss or gradient a conventional float32 implementation rounds to 0."""
    N = len(case.labelled)
    if N == 0:
        return None
    loss, gradient = int(case.survey.loss_zero.sum()), int(case.survey.grad_zero.sum())
    share = max(loss, gradient) / N
    if share < SOME:
        return None
    numbers = {"rows": N, "loss_zero": loss, "gradient_zero": gradient, "share": share}
    said = f"of {N} rows, the usual float32 formula gives a loss of exactly 0 in {loss} ({percent(loss / N)}) and a "
    said += f"gradient of exactly 0 at the label in {gradient} ({percent(gradient / N)}); none of the true ones is 0"
    return Finding(
        "saturation",
        "warning" if share >= HALF and N >= ENOUGH else "note",
        "Confident rows whose float32 loss or gradient rounds to 0",
        Evidence(said, **numbers),
        "In training these rows stop to count at the label while the other classes' gradients stay, so that weights "
        "drift; a reported loss is too small.",
        "Use softnll.cross_entropy (softnll.torch for tensors), whose loss and gradient keep their digits. "
        "For an evaluation in float64 there is nothing to mend.",
    )
