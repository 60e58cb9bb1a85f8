"""The rows whose labels look wrong, for scripts: as numbers, and as a table beside the page."""

from __future__ import annotations

import csv
import io
from typing import Any

from softnll._inspection.report.summary import suspicious
from softnll._inspection.survey import Survey

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for the start of a formula


def suspects(found: Survey, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return all rows whose labels look wrong, the most certain first: row, label, prediction, probabilities, margin.

    ``row`` counts from 0 in the scores as they were given; ``margin`` is ``p_label − p_prediction``.
    """
    rows = []
    for row in suspicious(found, len(found))[0].tolist():
        at = found.place(row)
        label, prediction = int(found.y[at]), int(found["prediction"][at])
        rows.append(
            {
                "row": row,
                "label": label,
                "label_name": names[label],
                "prediction": prediction,
                "prediction_name": names[prediction],
                "p_label": float(found["p_true"][at]),
                "p_prediction": float(found["confidence"][at]),
                "margin": float(found["margin"][at]),
            }
        )
    return rows


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Return the rows of `suspects` as a table with a header; names cannot be formulas of a spreadsheet.

    Examples
    --------
    >>> print(as_csv([{"row": 3, "label_name": "=1+1", "margin": -0.5}]))
    row,label_name,margin
    3,'=1+1,-0.5
    <BLANKLINE>
    """
    stream = io.StringIO()
    columns = list(rows[0]) if rows else list(_COLUMNS)
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return stream.getvalue()


_COLUMNS = ("row", "label", "label_name", "prediction", "prediction_name", "p_label", "p_prediction", "margin")


def _inert(value: Any) -> Any:
    """Return a value that no spreadsheet calculates."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
