"""Findings about what has been learned: nothing, only how frequent the classes are, or nothing of these labels."""

from __future__ import annotations

import math

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.chance import ALPHA, mean_and_error, sum_tail
from softnll.diagnosis.finding import Evidence, Finding, percent

__all__ = ["identical_rows", "imbalance", "loss_at_chance", "loss_at_prior", "shuffled"]

ENOUGH = 100  # rows, below which a mean says little about equality
PER_CLASS = 10  # rows a class, below which the entropy of their frequencies is too uncertain
ERRORS = 4.0  # standard errors: beyond them by chance once in 16 000
SAME = 0.02  # of the loss of guessing: less knowledge than this is none
HIGH = 0.2  # how far confidence must be above chance to be called high


def identical_rows(case: Case) -> Finding | None:
    """Find that every row has the same scores."""
    N = int(case.survey.usable.sum())
    if case.C < 2 or N < 2 or not bool((case.survey.low == case.survey.high).all()):
        return None
    return Finding(
        "constant-scores",
        "error",
        "Every row has the same scores",
        Evidence(f"each of the {case.C} columns has one value in all {N} rows", rows=N, classes=case.C),
        "The classifier does not look at its input: at best its loss is the entropy of the classes' frequencies.",
        "Look for features that are all zero, dead units before the last layer, a learning rate that overflowed, "
        "or one row written over all.",
    )


def loss_at_chance(case: Case) -> Finding | None:
    """Find a mean loss of ln C: what a classifier that knows nothing pays."""
    chance = math.log(case.C)
    if case.C < 2 or len(case.labelled) < ENOUGH:
        return None
    mean, error = mean_and_error(case.survey.nll[case.labelled])
    if not _same(mean - chance, error, chance):
        return None
    spread = float(np.median(case.survey.confidence[case.labelled]))
    said = f"the mean loss of {len(case.labelled)} rows is {mean:.4f} \N{PLUS-MINUS SIGN} {error:.4f}, "
    said += f"ln {case.C} is {chance:.4f}; the median confidence is {spread:.3f}, 1/C is {1 / case.C:.3f}"
    return Finding(
        "loss-at-ln-c",
        "warning",
        "The loss is ln C: that of guessing among all classes alike",
        Evidence(said, mean_loss=mean, standard_error=error, ln_C=chance, median_confidence=spread),
        "The classifier knows nothing of these labels, or its scores are too small to show it.",
        "Before training this is as it should be. After it, look for a learning rate of 0 or far too large, features "
        "without information, labels of other data, or a softmax too many.",
    )


def loss_at_prior(case: Case) -> Finding | None:
    """Find a mean loss at the entropy of the classes' frequencies: what a classifier that knows only them pays."""
    told = _beside_prior(case)
    if told is None:
        return None
    mean, error, entropy = told
    if math.log(case.C) - entropy <= SAME * math.log(case.C) or not _same(mean - entropy, error, entropy):
        return None
    said = f"the mean loss of {len(case.labelled)} rows is {mean:.4f}, the entropy of their labels' frequencies "
    said += f"{entropy:.4f}; the difference is {mean - entropy:+.4f} \N{PLUS-MINUS SIGN} {error:.4f}"
    return Finding(
        "loss-at-prior",
        "warning",
        "The loss is that of knowing nothing but how frequent each class is",
        Evidence(said, mean_loss=mean, prior_entropy=entropy, standard_error=error),
        "The last layer's bias has been learned and nothing else: the features do not tell the classes apart.",
        "Look at the features (constant, shuffled against the labels, dead units), and at the learning rate of "
        "everything before the bias.",
    )


def _same(difference: float, error: float, whole: float) -> bool:
    """Whether a mean difference is 0 but for less than `SAME` of the whole, its uncertainty included."""
    return math.isfinite(difference) and abs(difference) + ERRORS * error <= SAME * whole


def _beside_prior(case: Case) -> tuple[float, float, float] | None:
    """Return mean loss, standard error of its difference to the prior's, and the prior's entropy in nats."""
    N, counts = len(case.labelled), case.support
    if case.C < 2 or max(ENOUGH, PER_CLASS * case.C) > N or (counts > 0).sum() < 2:
        return None
    with np.errstate(divide="ignore"):
        prior = -np.log(counts / N)
    y = case.y[case.labelled]
    mean, _ = mean_and_error(case.survey.nll[case.labelled])
    with np.errstate(invalid="ignore"):
        _, error = mean_and_error(case.survey.nll[case.labelled] - prior[y])
    return mean, error, float(prior[y].mean())


def shuffled(case: Case) -> Finding | None:
    """Find accuracy at chance while confidence is high."""
    N = len(case.labelled)
    if case.C < 2 or N == 0:
        return None
    said_sure = case.survey.confidence[case.labelled]
    guessed = np.bincount(case.survey.prediction[case.labelled], minlength=case.C)
    independent = float((guessed / N) @ (case.support / N))  # agreement where labels do not depend on predictions
    sure = float(said_sure.mean())
    error = math.sqrt(independent * (1 - independent) / N)
    by_chance = case.accuracy <= independent + 3 * error
    if not by_chance or sure < independent + HIGH or sum_tail(case.accuracy * N, sure * N, N) > ALPHA:
        return None
    said = f"accuracy is {percent(case.accuracy)} in {N} rows, and without any relation it would be "
    said += f"{percent(independent)}; the classifier is {percent(sure)} sure on average"
    return Finding(
        "labels-shuffled",
        "error",
        "Accuracy is at chance while confidence is high: these labels do not belong to these scores",
        Evidence(said, accuracy=case.accuracy, chance=independent, mean_confidence=sure, rows=N),
        "Loss and accuracy say nothing about the classifier; the loss is far above ln C.",
        "Look for one of the two shuffled, sorted or filtered without the other, or another split's labels. No "
        "order of "
        "classes and no shift by up to three rows mends it. (A classifier fitted to random labels looks like this too, "
        "on new data.)",
    )


def imbalance(case: Case) -> Finding | None:
    """Find that always saying the most frequent class would be right as often."""
    N = len(case.labelled)
    if case.C < 2 or N < ENOUGH:
        return None
    largest = int(case.support.argmax())
    share = case.support[largest] / N
    if share < min(1.5 / case.C, 0.75):
        return None
    y, guess = case.y[case.labelled], case.survey.prediction[case.labelled]
    better, error = mean_and_error((guess == y).astype(np.float64) - (y == largest))
    if better + ERRORS * error > max(SAME * (1 - share), 0):
        return None
    told = _beside_prior(case)
    # Nothing is known where the loss is shown to be no better than the frequencies' own; few rows show neither.
    knows = told is None or told[2] - told[0] + ERRORS * told[1] > 2 * SAME * told[2]
    hits = np.bincount(y[guess == y], minlength=case.C)
    balanced = float((hits[case.support > 0] / case.support[case.support > 0]).mean())
    said = (
        f"{percent(share)} of {N} rows are {case.name(largest)}, accuracy is {percent(case.accuracy)}; averaged over "
    )
    said += f"the classes it is {percent(balanced)}"
    if told is not None:
        said += f"; the mean loss is {told[0]:.4f}, that of the frequencies alone {told[2]:.4f}"
    return Finding(
        "imbalance-explains-accuracy",
        "note" if knows else "warning",
        "Always answering the most frequent class would be right as often",
        Evidence(said, largest_share=float(share), accuracy=case.accuracy, balanced_accuracy=balanced, rows=N),
        "Accuracy says nothing here; only a loss below that of the frequencies shows what is known all the same."
        if knows
        else "Accuracy says nothing here, and neither does the loss: it is not below that of the frequencies.",
        "Judge by the loss against the entropy of the frequencies, and by the balanced accuracy.",
    )
