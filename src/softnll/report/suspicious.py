"""Labels that the classifier contradicts more surely than it usually says that class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from softnll.report.survey import Survey

__all__ = ["suspicious"]


def suspicious(found: Survey, most: int) -> tuple[NDArray[np.int64], int]:
    """Return the rows whose labels look wrong, the surest first, and how many there are in all.

    A label is suspicious if another class j is predicted with at least the confidence that rows labelled j get on
    average: ``p_j ≥ t_j``, ``t_j = mean p_j over the rows labelled j``. Ordered by the normalised margin
    ``p_y − p_j``.

    Parameters
    ----------
    found
        Of the pass over all rows.
    most
        How many rows to return.

    Notes
    -----
    Northcutt, Jiang, Chuang (2021), "Confident learning": the part that needs the predicted class only.
    """
    thresholds = np.nan_to_num(found.per_class(found.self_confidence), nan=np.inf)
    doubted = ~found.right & (found.confidence >= thresholds[found.prediction])
    rows = np.flatnonzero(doubted)
    order = np.argsort(found.margin[rows], kind="stable")
    return rows[order][:most], len(rows)
