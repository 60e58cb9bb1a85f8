"""The figures of a report, from one pass over scores and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._inspection.calibration import fit_temperature
from softnll._inspection.report.classes import class_averages
from softnll._inspection.survey import Chosen, LargestRows, Quantity, Survey, survey, worst_share
from softnll._numpy.functional import cross_entropy
from softnll.data.rows import Rows

SAMPLE = 50_000  # rows that the temperature is fitted on
SHOWN = 24  # rows shown with the largest loss, and with the smallest; more are kept, so that none is shown twice
QUANTITIES: tuple[Quantity, ...] = ("prediction", "confidence", "p_true", "nll", "margin", "square")
CANDIDATES = 400  # rows that may turn out to have suspicious labels


@dataclass(frozen=True, eq=False)
class Examined:
    """The results of one pass over scores and labels for a report."""

    found: Survey  # the quantities of all rows
    worst: LargestRows  # the rows with the largest loss,
    best: LargestRows  # with the smallest loss,
    doubtful: LargestRows  # and with the smallest margin
    sample: Chosen  # the rows that the temperature is fitted on
    left_out: int = 0  # rows whose label is ignored

    @cached_property
    def temperature(self) -> tuple[float | None, float]:
        """The best temperature of the sample and the fall of its mean loss; None and 0 if no temperature is best."""
        known = np.isin(self.sample.rows, self.found.rows)
        logits = self.sample.logits[known]
        y = self.found.y[np.searchsorted(self.found.rows, self.sample.rows[known])]
        try:
            tau = fit_temperature(logits, y)
        except ValueError:
            return None, 0.0
        return tau, float(cross_entropy(logits, y)) - float(cross_entropy(logits, y, temperature=tau))


def examine(scores: Rows, y: NDArray[np.int64], *, seed: int = 0) -> Examined:
    """Return the results of one pass over ``(N, C)`` scores with ``(N,)`` true classes in [0, C).

    ``seed`` chooses the rows that the temperature is fitted on. Raise ValueError for a row that has no softmax: NaN,
    only −∞, or +∞ more than once.

    Examples
    --------
    >>> from softnll.data.rows import as_rows
    >>> examined = examine(as_rows([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]), np.array([0, 2, 1]))
    >>> round(examined.found.mean, 6), examined.worst.rows.tolist()
    (0.362443, [2, 0, 1])
    """
    kept = collectors(scores.shape[0], seed)
    try:
        found = survey(scores, y, QUANTITIES, kept)
    except ValueError as error:
        raise ValueError(f"{error}; softnll diagnose tells more") from None
    return Examined(found, *kept)


def collectors(N: int, seed: int) -> tuple[LargestRows, LargestRows, LargestRows, Chosen]:
    """Return what a report keeps of the blocks of scores: rows with extreme losses and margins, and a sample."""
    worst, best = LargestRows(SHOWN, lambda block: block.nll), LargestRows(3 * SHOWN, lambda block: -block.nll)
    doubtful = LargestRows(CANDIDATES, lambda block: -block.margin)
    return worst, best, doubtful, Chosen(np.sort(np.random.default_rng(seed).choice(N, min(N, SAMPLE), replace=False)))


def figures(found: Survey) -> dict[str, Any]:
    """Return the figures that every report shows."""
    return {
        "examples": len(found),
        "classes": found.classes,
        "accuracy": found.accuracy,
        "nll": found.mean,
        "chance_nll": math.log(found.classes),
        "prior_nll": found.prior_nll,
        "perplexity": math.exp(found.mean) if found.mean < 700 else math.inf,
        "ece": found.reliability.ece,
        "brier": found.brier,
        "confidence": float(found["confidence"].mean()),
        "worst_hundredth_of_loss": worst_share(found["nll"]),
    }


def summary(examined: Examined) -> dict[str, Any]:
    """Return the figures of ``softnll report`` in the types of JSON; None for what is not finite."""
    tau, gain = examined.temperature
    more = {"temperature": tau, "temperature_gain": gain, "temperature_rows": len(examined.sample.rows)}
    averages = class_averages(examined.found)
    counts = {"suspicious_labels": suspicious(examined.found, 0)[1], "ignored_rows": examined.left_out}
    return finite({**figures(examined.found), **averages, **more, **counts})


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with None for numbers that are not finite."""
    return {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in values.items()}


def suspicious(found: Survey, most: int) -> tuple[NDArray[np.int64], int]:
    """Return the rows whose labels look wrong, the most certain first, and how many there are in all.

    A label is suspicious if another class j is predicted with at least the confidence that rows labelled j get on
    average: ``p_j ≥ t_j``, ``t_j = mean p_j over the rows labelled j``. At most ``most`` rows are returned, ordered by
    the normalised margin ``p_y − p_j``.

    Notes
    -----
    Northcutt, Jiang, Chuang (2021), "Confident learning": the part that needs the predicted class only.
    """
    thresholds = np.nan_to_num(found.per_class(found["p_true"]), nan=np.inf)
    rows = np.flatnonzero(~found.right & (found["confidence"] >= thresholds[found["prediction"]]))
    order = np.argsort(found["margin"][rows], kind="stable")
    return found.rows[rows[order][:most]], len(rows)
