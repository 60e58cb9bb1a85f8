"""Which convention yields the loss that a framework printed: unit, reduction, rounding, smoothing, or another loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.finding import Evidence, Finding
from softnll.diagnosis.measures import Measures, measure

__all__ = ["Convention", "conventions", "printed_loss"]

BATCHES = (8, 16, 32, 50, 64, 100, 128, 200, 256, 512, 1000, 1024)
SMOOTHINGS = (0.05, 0.1, 0.2)
CLIPS = ((1e-7, "Keras"), (1e-8, "1e-8"), (1e-15, "older scikit-learn"))
SHOWN = 5


class Convention(NamedTuple):
    """A way to make one number of the losses."""

    code: str
    words: str
    value: float


def printed_loss(case: Case) -> Finding | None:
    """Compare the printed loss with what each convention gives."""
    printed = case.printed
    if printed is None or len(case.labelled) == 0:
        return None
    known = list(conventions(measure(case)))
    true = known[0].value
    fitting = [each for each in known if printed.fits(each.value)]
    numbers = {
        "printed": printed.text,
        "mean_loss": true,
        "conventions": {each.code: each.value for each in fitting},
        "tried": len(known),
    }
    if fitting and fitting[0] is known[0]:
        return Finding(
            "loss-confirmed",
            "note",
            f"The printed loss {printed.text} is the mean loss in nats",
            Evidence(f"the mean over {len(case.labelled)} rows is {true:.6g}", **numbers),
            "Unit and reduction are the usual ones.",
            "Nothing to mend.",
        )
    said = f"the mean loss over {len(case.labelled)} rows is {true:.6g} nats, not {printed.text}"
    if not fitting:
        near = sorted(known, key=lambda each: abs(each.value - printed.value))[:3]
        numbers["nearest"] = {each.code: each.value for each in near}
        return Finding(
            "loss-unexplained",
            "warning",
            f"The printed loss {printed.text} is none that these scores and labels give",
            Evidence(f"{said}; the nearest of {len(known)} conventions: {_listed(near)}", **numbers),
            "It was computed from other rows, in another mode (dropout, augmentation), before a step that followed, or "
            "with weights or penalties that are not known here.",
            "Print the loss of exactly these rows, in evaluation mode; add penalties and auxiliary losses separately.",
        )
    # By accident: conventions within a factor e to either side, scattered evenly in the logarithm over these 2 units,
    # hit an interval of 2·slack/value so often.
    around = sum(
        abs(math.log(abs(each.value) / abs(printed.value))) < 1 for each in known if each.value * printed.value > 0
    )
    accident = around * printed.slack / abs(printed.value) if printed.value else 0.0
    numbers["by_accident"] = accident
    said += (
        f"; {printed.text} is {_listed(fitting)}. Of {len(known)} conventions tried, {_few(accident)} would fit these "
    )
    said += "digits by accident"
    return Finding(
        "loss-convention",
        "warning",
        f"The printed loss {printed.text} is {fitting[0].words}",
        Evidence(said, **numbers),
        "Losses of different conventions cannot be compared, and their gradients differ: by the same factor for "
        "another unit or reduction, otherwise in direction.",
        "Compare the mean in nats"
        + ("; more digits of the printed loss would decide between these." if len(fitting) > 1 else "."),
    )


def conventions(of: Measures) -> Iterator[Convention]:
    """Yield each convention's value, the true one first, then the likelier ones.

    Examples
    --------
    >>> import softnll as sn
    >>> scores = [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]
    >>> found = sn.diagnose(scores, [0, 2, 1], loss="1.07")[0]
    >>> found.title
    'The printed loss 1.07 is the sum of the losses of probabilities rounded to 2 digits, each rounded to 2 digits'
    """
    n, mean, total = len(of.nll), float(of.nll.mean()), float(of.nll.sum())
    yield Convention("mean-nats", "the mean loss in nats", mean)
    yield Convention("sum-nats", "the sum of the losses in nats", total)
    for code, word, unit in (
        ("log2", "in bits (base 2)", math.log(2)),
        ("log10", "with logarithms to base 10", math.log(10)),
    ):
        yield Convention(f"mean-{code}", f"the mean loss {word}", mean / unit)
        yield Convention(f"sum-{code}", f"the sum of the losses {word}", total / unit)
    yield from _rounded(of)
    yield Convention("double-softmax", "the mean loss with softmax applied once more", float(of.twice.mean()))
    yield Convention(
        "double-softmax-sum", "the sum of the losses with softmax applied once more", float(of.twice.sum())
    )
    if not np.array_equal(of.as_given, of.nll):
        yield Convention(
            "scores-as-logits", "the mean loss with the scores taken for logits", float(of.as_given.mean())
        )
    yield Convention("minus-probability", "minus the mean probability (nll_loss of probabilities)", float(-of.p.mean()))
    yield Convention("minus-score", "minus the mean score of the label (nll_loss of logits)", float(-of.given.mean()))
    yield from _averages(of)
    for smoothing in SMOOTHINGS:
        value = (1 - smoothing) * mean + smoothing * float(of.mean_nll.mean())
        yield Convention(f"label-smoothing-{smoothing:g}", f"the mean loss with label smoothing {smoothing:g}", value)
    yield Convention("perplexity", "the perplexity, exp of the mean loss", math.exp(min(mean, 700.0)))
    yield from _other_losses(of)
    for batch in BATCHES:
        if batch < n:
            words = f"the mean loss divided by {batch}: batch means (of {batch}) summed, then divided by all rows"
            yield Convention(f"mean-over-batch-{batch}", words, mean / batch)
            sums = f"the mean sum of a batch of {batch}"
            yield Convention(f"sum-of-batch-{batch}", sums, mean * batch)
            starts = np.arange(0, n, batch)
            means = np.add.reduceat(of.nll, starts) / np.minimum(batch, n - starts)
            words = f"the mean of the means of batches of {batch}, the last one smaller"
            if n % batch:
                yield Convention(f"mean-of-batch-means-{batch}", words, float(means.mean()))
            batches = len(starts)
            words = f"the sum of {batches} batch means (of {batch})"
            yield Convention(f"batch-means-{batch}", words, float(means.sum()))


def _rounded(of: Measures) -> Iterator[Convention]:
    """Yield losses of rounded or clipped probabilities."""
    with np.errstate(divide="ignore"):  # what rounds to 0 costs infinitely much
        for digits in (2, 3, 4):
            losses = -np.log(np.round(of.p, digits))
            words = f"of probabilities rounded to {digits} digits"
            yield Convention(f"rounded-{digits}-mean", f"the mean loss {words}", float(losses.mean()))
            both = np.round(losses, digits)
            each = f", each rounded to {digits} digits"
            yield Convention(
                f"rounded-{digits}-sum-of-rounded", f"the sum of the losses {words}{each}", float(both.sum())
            )
            yield Convention(f"rounded-{digits}-sum", f"the sum of the losses {words}", float(losses.sum()))
    for least, who in CLIPS:
        losses = -np.log(np.clip(of.p, least, 1 - least))
        yield Convention(
            f"clipped-{least:g}", f"the mean loss of probabilities clipped at {least:g} ({who})", float(losses.mean())
        )


def _averages(of: Measures) -> Iterator[Convention]:
    """Yield means over other things than all rows."""
    n = len(of.nll)
    yield Convention("mean-over-classes", "the sum divided by rows and classes", float(of.nll.sum()) / (n * of.C))
    if (of.y != 0).any() and (of.y == 0).any():
        words = "the mean loss without the rows of class 0 (ignore_index=0)"
        yield Convention("ignoring-class-0", words, float(of.nll[of.y != 0].mean()))
        words = "the sum without the rows of class 0, divided by all rows"
        yield Convention("ignoring-class-0-in-sum", words, float(of.nll[of.y != 0].sum()) / n)
    support = np.bincount(of.y)
    sums = np.bincount(of.y, weights=of.nll)
    present = support > 0
    balanced = float((sums[present] / support[present]).mean())
    yield Convention(
        "class-mean", "the mean of the classes' mean losses (classes weighted inversely to their frequency)", balanced
    )
    yield Convention("median", "the median of the losses", float(np.median(of.nll)))
    yield Convention("labels-minus-1", "the mean loss at labels one too low", float(of.below.mean()))
    yield Convention("labels-plus-1", "the mean loss at labels one too high", float(of.above.mean()))


def _other_losses(of: Measures) -> Iterator[Convention]:
    """Yield other losses of the same scores."""
    brier = float((of.square - 2 * of.p + 1).mean())
    yield Convention("brier", "the Brier score, the mean squared distance to one-hot", brier)
    yield Convention("mse", "the mean squared error of the probabilities, over rows and classes", brier / of.C)
    binary = float(of.binary.mean())
    yield Convention("binary-mean", "the mean binary cross-entropy of sigmoids, over rows and classes", binary / of.C)
    yield Convention("binary-sum", "binary cross-entropies of sigmoids, summed over the classes", binary)
    yield Convention("one-minus-probability", "one minus the mean probability of the label", float(1 - of.p.mean()))
    focal = float(((1 - of.p) ** 2 * of.nll)[np.isfinite(of.nll)].mean()) if np.isfinite(of.nll).any() else math.inf
    yield Convention("focal-2", "the focal loss with exponent 2", focal)


def _listed(known: list[Convention]) -> str:
    """Return conventions with their values."""
    shown = "; ".join(f"{each.words} ({each.value:.6g})" for each in known[:SHOWN])
    return shown + (f"; and {len(known) - SHOWN} more" if len(known) > SHOWN else "")


def _few(count: float) -> str:
    """Return a small expected count."""
    return "fewer than 0.01" if count < 0.01 else f"about {count:.2g}"
