"""Bounds on the probability of a count, if labels are drawn from the classifier's own probabilities.

The null hypothesis everywhere is a calibrated classifier: row n's label is drawn from its probabilities p_n, rows
independently. Each finding that rests on sampling is tested at `ALPHA`; there are about ten of them, so that a
calibrated classifier, of any number of classes and rows, gets one with a probability of at most about 0.1 %.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, xlogy

from softnll._numpy.normaliser import logsumexp

ALPHA = 1e-4


def half_tail(wins: int, losses: int) -> float:
    """Return P(at least so many wins) where each of wins + losses is a win with probability 1/2 at most (exact).

    McNemar's exact test: of two ways to read the labels, only rows that just one of them has right count, and where a
    calibrated classifier predicts its likeliest class, no other class is right more often than that one.

    Examples
    --------
    >>> half_tail(10, 0)
    0.0009765625
    """
    return 1.0 if wins == 0 else float(bdtrc(wins - 1, wins + losses, 0.5))


def sum_tail(count: float, expected: float, trials: int) -> float:
    """Return a bound on P(a sum of independent indicators is as far from its expectation as this count, on its side).

    ``exp(−n·KL(count/n ‖ expected/n))``: Hoeffding (1963), "Probability inequalities for sums of bounded random
    variables", theorem 1. It holds for indicators of different probabilities.

    Examples
    --------
    >>> sum_tail(0, 10, 100) < 1e-4  # ten expected, none observed
    True
    >>> sum_tail(9, 10, 100) > 0.5
    True
    """
    a, b = count / trials, min(max(expected / trials, 0.0), 1.0)
    if (a > 0 and b == 0) or (a < 1 and b == 1):
        return 0.0
    divergence = xlogy(a, a) - xlogy(a, b) + xlogy(1 - a, 1 - a) - xlogy(1 - a, 1 - b)
    return math.exp(-trials * max(float(divergence), 0.0))


def likelihood_ratio(gains: list[float]) -> float:
    """Return a bound on the probability, under the null, of gains in log-likelihood such as these.

    Each alternative's likelihood ratio ``exp(gain)`` has mean 1 under the null, so their average has, and by Markov's
    inequality is ``1/α`` or more with a probability of at most α, whatever the number of rows. The alternatives must be
    fixed before the labels are read.

    Examples
    --------
    >>> round(likelihood_ratio([math.log(1000.0), 0.0]), 6)
    0.001998
    """
    log_average = float(logsumexp(gains)) - math.log(len(gains))
    return min(1.0, math.exp(-max(log_average, 0.0)))


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and its standard error; infinite where it has none."""
    n, mean = len(values), float(values.mean())
    return mean, float(values.std(ddof=1) / math.sqrt(n)) if n > 1 and math.isfinite(mean) else math.inf


def independent(y: NDArray[np.int64], guess: NDArray[np.int64], C: int) -> float:
    """Return how often ``(n,)`` labels in [0, C) would be guessed if they had no relation to the guesses.

    Examples
    --------
    >>> independent(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2)
    0.5
    """
    return float(np.bincount(guess, minlength=C) @ np.bincount(y, minlength=C)) / max(len(y), 1) ** 2


def related(y: NDArray[np.int64], guess: NDArray[np.int64], C: int) -> bool:
    """Whether labels are guessed more often than without any relation, beyond chance; negative labels do not count.

    Examples
    --------
    >>> y = np.arange(60) % 3
    >>> related(y, y, 3), related(y, (y + 1) % 3, 3), related(y, np.zeros(60, int), 3)
    (True, False, False)
    """
    known = y >= 0
    if not known.all():
        y, guess = y[known], guess[known]
    n = len(y)
    if n == 0:
        return False
    hits, expected = int((y == guess).sum()), n * independent(y, guess, C)
    return hits > expected and sum_tail(hits, expected, n) <= ALPHA
