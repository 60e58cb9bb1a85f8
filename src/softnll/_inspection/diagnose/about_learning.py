"""Findings about a classifier that has learned nothing, or only how frequent the classes are."""

from __future__ import annotations

import math

import numpy as np

from softnll._core.words import counted
from softnll._inspection.diagnose.chance import ALPHA, independent, mean_and_error, sum_tail
from softnll._inspection.diagnose.finding import Evidence, Finding, Unseen, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.format import percent
from softnll._inspection.survey import Block

ENOUGH = 100  # rows, below which a mean is too uncertain
PER_CLASS = 10  # rows a class, below which the entropy of their frequencies is too uncertain
ERRORS = 4.0  # standard errors: beyond them by chance once in 16 000
SAME = 0.02  # of the loss of guessing: a smaller difference counts as none


def identical_rows(obs: Observations) -> Finding | Unseen | None:
    """Find that every row has the same scores."""
    N = len(obs.usable)
    if N < 2:
        return Unseen("one row")
    if obs.C < 2 or not bool((obs.columns.low == obs.columns.high).all()):
        return None
    return finding(
        "constant-scores", Evidence(f"each of the {obs.C} columns has one value in all {N} rows", rows=N, classes=obs.C)
    )


def loss_at_chance(obs: Observations) -> Finding | Unseen | None:
    """Find a mean loss of ln C, that of uniform probabilities."""
    chance = math.log(obs.C)
    if obs.C < 2 or len(obs.labelled) < ENOUGH:
        return Unseen(f"fewer than {ENOUGH} rows")
    mean, error = mean_and_error(obs.labelled["nll"])
    if not _same(mean - chance, error, chance):
        return None
    spread = float(np.median(obs.labelled["confidence"]))
    text = f"the mean loss of {counted(len(obs.labelled), 'row')} is {mean:.4f} \N{PLUS-MINUS SIGN} {error:.4f}, "
    text += f"ln {obs.C} is {chance:.4f}; the median confidence is {spread:.3f}, 1/C is {1 / obs.C:.3f}"
    return finding(
        "loss-at-ln-c", Evidence(text, mean_loss=mean, standard_error=error, ln_C=chance, median_confidence=spread)
    )


def loss_at_prior(obs: Observations) -> Finding | Unseen | None:
    """Find a mean loss at the entropy of the classes' frequencies, that of always predicting them."""
    beside = _beside_prior(obs)
    if beside is None:
        return Unseen(f"one class, or fewer than {ENOUGH} rows or {PER_CLASS} a class")
    mean, error, entropy = beside
    if math.log(obs.C) - entropy <= SAME * math.log(obs.C) or not _same(mean - entropy, error, entropy):
        return None
    text = f"the mean loss of {counted(len(obs.labelled), 'row')} is {mean:.4f}, the entropy of their labels' "
    text += f"frequencies {entropy:.4f}; the difference is {mean - entropy:+.4f} \N{PLUS-MINUS SIGN} {error:.4f}"
    return finding("loss-at-prior", Evidence(text, mean_loss=mean, prior_entropy=entropy, standard_error=error))


def _same(difference: float, error: float, whole: float) -> bool:
    """Whether a mean difference is 0 but for less than `SAME` of the whole, its uncertainty included."""
    return math.isfinite(difference) and abs(difference) + ERRORS * error <= SAME * whole


def _beside_prior(obs: Observations) -> tuple[float, float, float] | None:
    """Return mean loss, standard error of its difference to the prior's, and the prior's entropy in nats."""
    N, counts = len(obs.labelled), obs.labelled.support
    if obs.C < 2 or max(ENOUGH, PER_CLASS * obs.C) > N or (counts > 0).sum() < 2:
        return None
    with np.errstate(divide="ignore"):
        prior = -np.log(counts / N)
    y = obs.labelled.y
    mean, _ = mean_and_error(obs.labelled["nll"])
    with np.errstate(invalid="ignore"):
        _, error = mean_and_error(obs.labelled["nll"] - prior[y])
    return mean, error, float(prior[y].mean())


def shuffled(obs: Observations) -> Finding | None:
    """Find accuracy at chance, clearly below confidence, and probabilities that say nothing of the labels."""
    N = len(obs.labelled)
    accuracy, sure = obs.labelled.accuracy, float(obs.labelled["confidence"].mean())
    chance = independent(obs.labelled.y, obs.labelled["prediction"], obs.C)
    error = math.sqrt(chance * (1 - chance) / N)
    if accuracy > chance + 3 * error or sum_tail(accuracy * N, sure * N, N) > ALPHA or not _unrelated(obs):
        return None
    text = f"accuracy is {percent(accuracy)} in {N} rows, and without any relation it would be "
    text += f"{percent(chance)}; the classifier is {percent(sure)} sure on average"
    return finding("labels-shuffled", Evidence(text, accuracy=accuracy, chance=chance, mean_confidence=sure, rows=N))


def _unrelated(obs: Observations) -> bool:
    """Whether p at the labels is as large as at shuffled labels, and not half as much larger as calibration demands."""
    known = obs.y >= 0
    y, p = obs.y[known], np.asarray(Block(obs.logits[known]).probabilities)
    if len(y) < 2:
        return False
    others = np.random.default_rng(0).permutation(y)
    at = np.arange(len(y))
    gained, error = mean_and_error(p[at, y].astype(np.float64) - p[at, others])
    mean_p = p.mean(axis=0, dtype=np.float64)
    expected = float(np.einsum("nc,nc->", p, p, dtype=np.float64)) / len(y) - float(mean_p @ mean_p)
    return abs(gained) <= ERRORS * error and gained + ERRORS * error <= expected / 2


def imbalance(obs: Observations) -> Finding | Unseen | None:
    """Find that always predicting the most frequent class would be right as often."""
    N = len(obs.labelled)
    if obs.C < 2 or N < ENOUGH:
        return Unseen(f"fewer than {ENOUGH} rows")
    support, accuracy = obs.labelled.support, obs.labelled.accuracy
    largest = int(support.argmax())
    share = support[largest] / N
    if share < min(1.5 / obs.C, 0.75):
        return None
    y, guess = obs.labelled.y, obs.labelled["prediction"]
    better, error = mean_and_error((guess == y).astype(np.float64) - (y == largest))
    if better + ERRORS * error > SAME * min(share, 1 - share):
        return None
    beside = _beside_prior(obs)
    # A warning only if the loss is shown to be no better than that of the frequencies; few rows do not show it.
    informed = beside is None or beside[2] - beside[0] + ERRORS * beside[1] > 2 * SAME * beside[2]
    hits = np.bincount(y[guess == y], minlength=obs.C)
    balanced = float((hits[support > 0] / support[support > 0]).mean())
    text = f"{percent(share)} of {N} rows are {obs.name(largest)}, accuracy is {percent(accuracy)}; averaged over "
    text += f"the classes it is {percent(balanced)}"
    if beside is not None:
        text += f"; the mean loss is {beside[0]:.4f}, that of the frequencies alone {beside[2]:.4f}"
    return finding(
        f"imbalance-explains-accuracy/{'informed' if informed else 'uninformed'}",
        Evidence(text, largest_share=float(share), accuracy=accuracy, balanced_accuracy=balanced, rows=N),
    )
