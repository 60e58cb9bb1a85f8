"""What scores are: logits, or probabilities and logarithms of them; and the logits that each stands for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll.functional import logsumexp

__all__ = ["LOGITS", "Kind", "double_softmax", "kind_of"]

FEW = 5  # rows below which sums must be as close as float32 has them
CLOSE, ROUNDED, EXACT = 2e-3, 0.02, 1e-5
SHARE = 0.99  # of the rows; a broken one among them does not hide what the others are
TOO_FEW = 20  # rows below which the ceiling of a double softmax shows nothing
CEILING_SHARE = 0.25


@dataclass(frozen=True)
class Kind:
    """What the scores are."""

    code: str
    base: float = math.e
    sign: float = 1.0
    scale: float = 1.0

    @property
    def exponentiated(self) -> bool:
        """Whether the scores are probabilities rather than logarithms."""
        return self.code == "probabilities"

    def logits(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return the logits that these scores stand for."""
        if self.code == "logits" or (self.base == math.e and self.sign == 1 and not self.exponentiated):
            return block
        wide = block.astype(np.float64)
        if not self.exponentiated:
            return wide * (self.sign * math.log(self.base))
        with np.errstate(divide="ignore", invalid="ignore"):  # a probability of 0 is a logit of -inf
            return np.asarray(np.log(wide / self.scale))


LOGITS = Kind("logits")
_LOGARITHMS = (
    Kind("log-probabilities"),
    Kind("log-probabilities", base=2.0),
    Kind("log-probabilities", base=10.0),
    Kind("log-probabilities", sign=-1.0),
)


def kind_of(scores: NDArray[Any]) -> Kind:
    """Return what these rows, none with NaN or +inf, are; ``(n, C)`` of float32 or float64.

    Probabilities lie in [0, 1] and sum to 1; logarithms of them, to base b, are ≤ 0 and Σ bˢ = 1. Logits that do so
    in each of n rows by accident do not occur: the chance is below 0.02 a row where n ≥ 10 (rounded probabilities are
    allowed for), and 10⁻⁵ where there are fewer than 5.

    Examples
    --------
    >>> kind_of(np.array([[0.7, 0.3], [0.25, 0.75]])).code
    'probabilities'
    >>> kind_of(np.log2([[0.7, 0.3], [0.25, 0.75]])).base
    2.0
    """
    n, C = scores.shape
    if n == 0 or C < 2:
        return LOGITS
    tolerance = ROUNDED if n >= 2 * FEW else CLOSE if n >= FEW else EXACT
    wide = scores.astype(np.float64)
    whole = n < FEW and bool((wide == np.rint(wide)).all())  # [1, 0] may be a logit
    for scale in (1.0, 100.0):
        inside = (wide.min(axis=1) >= 0) & (wide.max(axis=1) <= scale * (1 + 1e-6))
        if not whole and (inside & (np.abs(wide.sum(axis=1) / scale - 1) <= tolerance)).mean() >= SHARE:
            return Kind("probabilities", scale=scale)
    close = CLOSE if n >= FEW else EXACT
    for kind in _LOGARITHMS:
        logits = kind.logits(wide)
        one_sided = logits.max(axis=1) <= 1e-6
        if one_sided.mean() < SHARE:
            continue
        with np.errstate(invalid="ignore"):
            if (one_sided & (np.abs(logsumexp(logits)) <= close)).mean() >= SHARE:
                return kind
    return LOGITS


def double_softmax(logits: NDArray[Any]) -> float | None:
    """Return the share of rows at the ceiling of a double softmax, or None where these logits are no such thing.

    If ``p = softmax(z)`` and z is itself a softmax's output, then z is got back as ``ln p + (1 − Σ ln p)/C``: each z
    lies in [0, 1], and no probability passes e/(e + C − 1). A classifier that is merely unsure stays below that ceiling
    too, but does not gather there: a quarter of the rows must have a z of 0.9 or more.
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
    return share if share >= CEILING_SHARE and share > float(((top >= 0.8) & (top < 0.9)).mean()) else None
