"""The numbers that are printed as a loss: unit, reduction, rounding, smoothing, and other losses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from softnll._inspection.survey import Survey

SMOOTHINGS = (0.05, 0.1, 0.2)
CLIPS = ((1e-7, "Keras"), (1e-8, "1e-8"), (1e-15, "older scikit-learn"))


class Convention(NamedTuple):
    """A way to compute one number from the losses."""

    code: str
    words: str
    value: float


def conventions(of: Survey, rows: int) -> Iterator[Convention]:
    """Yield each convention's value, the true one first, then the likelier ones; ``rows`` counts ignored ones as well.

    Examples
    --------
    >>> import softnll as sn
    >>> scores = [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]
    >>> found = sn.diagnose(scores, [0, 2, 1], loss="1.07")[0]
    >>> found.title
    'The printed loss 1.07 is the sum of the losses of probabilities rounded to 2 digits, each rounded to 2 digits'
    """
    for code, words, value in _values(of, rows):
        yield Convention(code, words, float(value))


def _values(of: Survey, rows: int) -> Iterator[tuple[str, str, float]]:
    """Yield code, words and value of each convention."""
    nll, mean, total = of["nll"], of.mean, of["nll"].sum()
    yield "mean-nats", "the mean loss in nats", mean
    yield "sum-nats", "the sum of the losses in nats", total
    for code, words, unit in (("log2", "in bits (base 2)", 2), ("log10", "with logarithms to base 10", 10)):
        yield f"mean-{code}", f"the mean loss {words}", mean / math.log(unit)
        yield f"sum-{code}", f"the sum of the losses {words}", total / math.log(unit)
    yield from _rounded(of)
    yield "double-softmax", "the mean loss with softmax applied once more", of["twice"].mean()
    yield "double-softmax-sum", "the sum of the losses with softmax applied once more", of["twice"].sum()
    if not np.array_equal(of["as_given"], nll):
        yield "scores-as-logits", "the mean loss with the scores taken for logits", of["as_given"].mean()
    yield "minus-probability", "minus the mean probability (nll_loss of probabilities)", -of["p_true"].mean()
    yield "minus-score", "minus the mean score of the label (nll_loss of logits)", -of["given"].mean()
    yield from _averages(of)
    for smoothing in SMOOTHINGS:
        value = (1 - smoothing) * mean + smoothing * float(of["mean_nll"].mean())
        yield f"label-smoothing-{smoothing:g}", f"the mean loss with label smoothing {smoothing:g}", value
    yield "perplexity", "the perplexity, exp of the mean loss", math.exp(min(mean, 700.0))
    yield from _other_losses(of)
    yield "minus-mean", "minus the mean loss (a sign too many)", -mean
    yield "minus-sum", "minus the sum of the losses (a sign too many)", -total
    if rows > len(of):
        words = "the sum over the rows that count, divided by all rows, ignored ones as well"
        yield "ignored-rows-counted", words, total / rows


def _rounded(of: Survey) -> Iterator[tuple[str, str, float]]:
    """Yield losses of rounded or clipped probabilities."""
    with np.errstate(divide="ignore"):  # a probability that rounds to 0 has an infinite loss
        for digits in (2, 3, 4):
            losses = -np.log(np.round(of["p_true"], digits))
            words = f"of probabilities rounded to {digits} digits"
            yield f"rounded-{digits}-mean", f"the mean loss {words}", losses.mean()
            both = f"the sum of the losses {words}, each rounded to {digits} digits"
            yield f"rounded-{digits}-sum-of-rounded", both, np.round(losses, digits).sum()
            yield f"rounded-{digits}-sum", f"the sum of the losses {words}", losses.sum()
    for least, who in CLIPS:
        losses = -np.log(np.clip(of["p_true"], least, 1 - least))
        yield f"clipped-{least:g}", f"the mean loss of probabilities clipped at {least:g} ({who})", losses.mean()


def _averages(of: Survey) -> Iterator[tuple[str, str, float]]:
    """Yield means over classes, over some of the rows, of other labels, and the median."""
    n, nll, first = len(of), of["nll"], of.y == 0
    yield "mean-over-classes", "the sum divided by rows and classes", nll.sum() / (n * of.classes)
    if first.any() and not first.all():
        words = "the mean loss without the rows of class 0 (ignore_index=0)"
        yield "ignoring-class-0", words, nll[~first].mean()
        yield (
            "ignoring-class-0-in-sum",
            "the sum without the rows of class 0, divided by all rows",
            nll[~first].sum() / n,
        )
    words = "the mean of the classes' mean losses (classes weighted inversely to their frequency)"
    yield "class-mean", words, of.per_class(nll)[of.support > 0].mean()
    yield "median", "the median of the losses", np.median(nll)
    yield "labels-minus-1", "the mean loss at labels one too low", of["below"].mean()
    yield "labels-plus-1", "the mean loss at labels one too high", of["above"].mean()


def _other_losses(of: Survey) -> Iterator[tuple[str, str, float]]:
    """Yield other losses of the same scores."""
    C, nll, p = of.classes, of["nll"], of["p_true"]
    yield "brier", "the Brier score, the mean squared distance to one-hot", of.brier
    yield "mse", "the mean squared error of the probabilities, over rows and classes", of.brier / C
    binary = of["binary"].mean()
    yield "binary-mean", "the mean binary cross-entropy of sigmoids, over rows and classes", binary / C
    yield "binary-sum", "binary cross-entropies of sigmoids, summed over the classes", binary
    both = of["binary_softmax"].mean()
    yield "binary-softmax-mean", "the mean binary cross-entropy of the softmax, over rows and classes", both / C
    yield "binary-softmax-sum", "binary cross-entropies of the softmax, summed over the classes", both
    words = "the mean loss of the scores divided by their sum and clipped (Keras' categorical_crossentropy with "
    yield "keras-from-logits-false", words + "from_logits=False)", of["divided"].mean()
    words = "the mean loss of the scores clipped to [1e-7, 1 - 1e-7] and divided by their sum (Keras' "
    yield (
        "keras-sparse-from-logits-false",
        words + "sparse_categorical_crossentropy with from_logits=False)",
        of["clipped"].mean(),
    )
    yield "one-minus-probability", "one minus the mean probability of the label", 1 - p.mean()
    finite = np.isfinite(nll)
    focal = ((1 - p[finite]) ** 2 * nll[finite]).mean() if finite.any() else math.inf
    yield "focal-2", "the focal loss with exponent 2", focal
