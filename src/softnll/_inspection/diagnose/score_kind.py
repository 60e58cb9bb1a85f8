"""The kind of scores: logits, probabilities, their complements or logarithms; and their logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from softnll._numpy.normaliser import logsumexp

FEW = 5  # rows below which sums must be as close as float32 has them
CLOSE, ROUNDED, EXACT = 2e-3, 0.02, 1e-5
WHOLE = 0.06  # of the sum of percentages that were rounded to whole ones
SHARE = 0.99  # of the rows; the others may be damaged
TOO_FEW = 20  # rows below which the ceiling of a double softmax shows nothing
CEILING_SHARE = 0.25
LEAST = 0.05  # of a uniform share: 20 rows of probabilities have an entry below it


@dataclass(frozen=True)
class ScoreKind:
    """The kind of scores, and how their logits are computed.

    Attributes
    ----------
    code
        ``"logits"``, ``"probabilities"``, ``"hard"`` (one 1 in each row), ``"log-probabilities"``, ``"complements"``
        (1 − p), ``"negated"`` (the smallest score is the best), or ``"along-rows"`` and ``"log-along-rows"`` (softmax
        and log_softmax over the rows).
    base, sign
        Of logarithms: the scores are ``sign · log_base p``.
    scale
        Of probabilities: what a row sums to.
    """

    code: str
    base: float = math.e
    sign: float = 1.0
    scale: float = 1.0

    @property
    def words(self) -> str:
        """Return what the scores are, and how they become logits, in words."""
        return _WORDS[self.code].format(base=self.base, scale=self.scale)

    def logits(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return the logits of these scores."""
        if self.code == "negated":
            return np.asarray(np.negative(block))
        if self.code in {"logits", "log-along-rows"} or (self.code == "log-probabilities" and self._natural()):
            return block
        wide = block.astype(np.float64)
        if self.code == "log-probabilities":
            return wide * (self.sign * math.log(self.base))
        share = 1 - wide if self.code == "complements" else wide / self.scale
        with np.errstate(divide="ignore"):  # a probability of 0 is a logit of -inf, also where rounding left it below 0
            return np.asarray(np.log(np.maximum(share, 0)))

    def _natural(self) -> bool:
        """Whether these are natural logarithms."""
        return self.base == math.e and self.sign == 1


_WORDS = {
    "logits": "logits",
    "probabilities": "probabilities that sum to {scale:g}; their logarithm is used",
    "hard": "one-hot predictions; their logarithm is used",
    "log-probabilities": "log-probabilities, base {base:.6g}",
    "complements": "complements of probabilities; ln(1 - score) is used",
    "negated": "negated scores or distances; their negative is used",
    "along-rows": "a softmax over the rows; its logarithm is used",
    "log-along-rows": "a log_softmax over the rows; used as it is",
}

LOGITS = ScoreKind("logits")
_LOGARITHMS = tuple(
    ScoreKind("log-probabilities", base=base, sign=sign) for sign in (1.0, -1.0) for base in (math.e, 2.0, 10.0)
)


def score_kind(scores: NDArray[Any]) -> ScoreKind:
    """Return what these rows, none with NaN or +inf, are; ``(n, C)`` of float32 or float64.

    Probabilities lie in [0, 1] and sum to 1, percentages and votes to another number, the same in each row; their
    complements sum to C − 1; logarithms of them, to base b, are ≤ 0 and Σ bˢ = 1. Logits that do so in each of n rows
    by accident do not occur: the chance is below 0.02 a row where n ≥ 10 (rounded probabilities are allowed for), and
    10⁻⁵ where there are fewer than 5.

    Examples
    --------
    >>> score_kind(np.array([[0.7, 0.3], [0.25, 0.75]])).code
    'probabilities'
    >>> score_kind(np.log2([[0.7, 0.3], [0.25, 0.75]])).base
    2.0
    """
    n, C = scores.shape
    if n == 0 or C < 2:
        return LOGITS
    wide = scores.astype(np.float64)
    return _complements(wide) or _shares(wide) or _logarithms(wide) or LOGITS


def _shares(wide: NDArray[np.float64]) -> ScoreKind | None:
    """Return the kind of rows that sum to 1, to 100, or (20 rows or more) to any other number, the same in all."""
    n, C = wide.shape
    tolerance = ROUNDED if n >= 2 * FEW else CLOSE if n >= FEW else EXACT
    low, high, total = wide.min(axis=1), wide.max(axis=1), wide.sum(axis=1)
    whole = bool((wide == np.rint(wide)).all())
    if whole and n < FEW:  # [1, 0] may be a logit
        return None
    for scale in (1.0, 100.0):
        if whole and scale == 100:
            tolerance = max(tolerance, WHOLE)
        inside = (low >= -EXACT * scale) & (high <= scale * (1 + tolerance))
        if (inside & (np.abs(total / scale - 1) <= tolerance)).mean() >= SHARE:
            hard = bool(((low == 0) & (high == scale) & (total == scale) & ((wide > 0).sum(axis=1) == 1)).all())
            return ScoreKind("hard" if hard and n >= FEW else "probabilities", scale=scale)
    common = float(np.median(total))
    if n < TOO_FEW or not (math.isfinite(common) and common > 0) or bool((wide == wide[0]).all()):
        return None
    if (np.abs(total / common - 1) > CLOSE / 2).any() or not 0 <= low.min() <= LEAST * common / C:
        return None  # a larger least entry: a constant was added to what has a constant sum
    return ScoreKind("probabilities", scale=common)


def _complements(wide: NDArray[np.float64]) -> ScoreKind | None:
    """Return the kind of rows of 1 − p: in [0, 1], with the sum C − 1; two classes are their own complements."""
    n, C = wide.shape
    if C < 3 or n < FEW or bool((wide == wide[0]).all()):
        return None
    inside = (wide.min(axis=1) >= -EXACT) & (wide.max(axis=1) <= 1 + EXACT)
    return (
        ScoreKind("complements") if (inside & (np.abs(wide.sum(axis=1) - (C - 1)) <= CLOSE)).mean() >= SHARE else None
    )


def _logarithms(wide: NDArray[np.float64]) -> ScoreKind | None:
    """Return the kind of rows that are logarithms of distributions, to base e, 2, 10 or any other."""
    n = len(wide)
    close = CLOSE if n >= FEW else EXACT
    for kind in _LOGARITHMS:
        if _sum_to_one(kind.logits(wide), close):
            return kind
    if n < TOO_FEW:
        return None
    for sign in (1.0, -1.0):
        factor = _factor(sign * wide)
        if factor is not None and _sum_to_one(wide * (sign * factor), close):
            return ScoreKind("log-probabilities", base=math.exp(factor), sign=sign)
    return None


def _sum_to_one(logits: NDArray[np.float64], close: float) -> bool:
    """Whether ``Σ exp`` of nearly all rows is 1, and no logit is positive."""
    one_sided = logits.max(axis=1) <= 1e-6
    if one_sided.mean() < SHARE:
        return False
    with np.errstate(invalid="ignore"):
        return bool((one_sided & (np.abs(logsumexp(logits)) <= close)).mean() >= SHARE)


def _factor(scores: NDArray[np.float64]) -> float | None:
    """Return the factor k in [0.01, 100] for which ``Σ exp(k·s) = 1`` in the rows; None if they do not agree on it."""
    if (scores.max(axis=1) <= 1e-6).mean() < SHARE:
        return None
    clear = scores[scores.max(axis=1) < -0.05][:9]
    found = []
    for row in clear:

        def excess(log_k: float, row: NDArray[np.float64] = row) -> float:
            return float(logsumexp(row * math.exp(log_k)))

        low, high = math.log(0.01), math.log(100.0)
        if excess(low) <= 0 or excess(high) >= 0:
            return None
        found.append(math.exp(brentq(excess, low, high, xtol=1e-9)))
    if len(found) < FEW or max(found) > min(found) * (1 + CLOSE):
        return None
    return float(np.median(found))


def double_softmax(logits: NDArray[Any]) -> tuple[float, NDArray[np.float64], bool] | None:
    """Return the share of rows near the ceiling of a double softmax, the inner softmax, and whether rows gather there.

    None where these logits are no double softmax. If ``p = softmax(z)`` and z is itself a softmax's output, then
    ``z = ln p + (1 − Σ ln p)/C``: each z lies in [0, 1], and no probability passes e/(e + C − 1). A classifier that is
    merely unsure stays below that ceiling too, but does not gather there, with a z of 0.9 or more in a quarter of the
    rows.
    """
    n, C = logits.shape
    if n < TOO_FEW or C < 2 or not np.isfinite(logits).all():
        return None
    wide = logits.astype(np.float64)
    z = wide - wide.mean(axis=1, keepdims=True) + 1 / C
    if z.min() < -CLOSE or z.max() > 1 + CLOSE:
        return None
    top = z.max(axis=1)
    share = float((top >= 0.9).mean())
    gathered = share >= CEILING_SHARE and share > float(((top >= 0.8) & (top < 0.9)).mean())
    return share, np.clip(z, 0, 1), gathered
