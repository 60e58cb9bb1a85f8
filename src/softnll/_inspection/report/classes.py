"""Figures of each class: precision, recall, F1, and its part of the loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from softnll._inspection.survey import Survey, Vector


def precision_recall_f1(found: Survey) -> tuple[Vector, Vector, Vector]:
    """Return precision, recall and F1 of each class, ``(C,)``; NaN where nothing is predicted, labelled, or either.

    ``precision = TP / predicted``, ``recall = TP / labelled``, ``F1 = 2·TP / (predicted + labelled)``.

    Examples
    --------
    >>> y, guess = np.array([0, 0, 1]), np.array([0, 1, 1])
    >>> [each.round(3).tolist() for each in precision_recall_f1(Survey(2, y, {"prediction": guess}))]
    [[1.0, 0.5], [0.5, 1.0], [0.667, 0.667]]
    """
    true = np.bincount(found.y[found.right], minlength=found.classes)
    predicted, labelled = np.bincount(found["prediction"], minlength=found.classes), found.support
    with np.errstate(invalid="ignore"):
        return true / predicted, true / labelled, 2 * true / (predicted + labelled)


def class_averages(found: Survey) -> dict[str, Any]:
    """Return averages over the classes that are labelled or predicted, as scikit-learn's macro averages: NaN is 0."""
    precision, recall, f1 = precision_recall_f1(found)
    seen = ~np.isnan(f1)
    macro = {"macro_precision": precision, "macro_recall": recall, "macro_f1": f1}
    averages = {name: float(np.nan_to_num(each[seen]).mean()) for name, each in macro.items()}
    return {"balanced_accuracy": float(np.nanmean(recall)), **averages}


def class_figures(found: Survey, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return for each class its name, counts, precision, recall, F1, mean loss and what it is most taken for."""
    precision, recall, f1 = precision_recall_f1(found)
    predicted = np.bincount(found["prediction"], minlength=found.classes)
    nll, confidence = (found.per_class(found[each]) for each in ("nll", "confidence"))
    first: dict[int, tuple[int, int]] = {}
    for true, taken, times in zip(*(each.tolist() for each in found.confusions()), strict=True):
        first.setdefault(true, (taken, times))
    figures = {"precision": precision, "recall": recall, "f1": f1, "nll": nll, "confidence": confidence}
    rows = []
    for c, name in enumerate(names):
        other, count = first.get(c, (None, 0))
        rows.append(
            {
                "class": c,
                "name": name,
                "support": int(found.support[c]),
                "predicted": int(predicted[c]),
                **{key: float(each[c]) if np.isfinite(each[c]) else None for key, each in figures.items()},
                "most_taken_for": None if other is None else names[other],
                "times": count,
            }
        )
    return rows
