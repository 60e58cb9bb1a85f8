"""What a library offers the benchmark: for each measure its best way to compute it.

A library is a class with a method for each measure it has a way of its own for. Where it cannot write into a given
buffer, its way with a fresh output is its best there, and the note says so.
"""

from __future__ import annotations

import numpy as np

from ways import Unavailable, Way

MEASURES = (
    "loss",
    "loss+grad fresh",
    "loss+grad out",
    "loss+grad in place",
    "softmax fresh",
    "softmax out",
    "log_softmax fresh",
    "log_softmax out",
    "logsumexp",
)
# The limit each measure is held against.
LIMIT_OF = {
    "loss": "read",
    "logsumexp": "read",
    "loss+grad out": "non-temporal copy",
    "softmax out": "non-temporal copy",
    "log_softmax out": "non-temporal copy",
    "loss+grad in place": "in-place scale",
}
# What a library without a way of its own does instead.
INSTEAD = {
    "loss+grad in place": ("loss+grad out", "separate output"),
    "loss+grad out": ("loss+grad fresh", "fresh output: it has no out="),
    "softmax out": ("softmax fresh", "fresh output: it has no out="),
    "log_softmax out": ("log_softmax fresh", "fresh output: it has no out="),
}


class Library:
    """What all have in common: the data, and how a result becomes float64."""

    name = ""
    loss_note = ""  # what is different about its loss
    divisor = 1  # of the gradient: N where the library returns the gradient of the sum

    def __init__(self, x: np.ndarray, y: np.ndarray, threads: int):
        self.x, self.y, self.threads = x, y, threads
        self.rows = np.arange(len(y))

    def way(self, measure: str) -> Way:
        """Return the best way to compute a measure."""
        note = ""
        while not hasattr(self, method := measure.replace("+", "_").replace(" ", "_")):
            if measure not in INSTEAD:
                raise Unavailable("it has no such function")
            measure, note = INSTEAD[measure]
        way = getattr(self, method)()
        way = way if isinstance(way, Way) else Way(way)
        notes = (note, way.note, self.loss_note if measure.startswith("loss") else "")
        return Way(way.call, way.refill, note="; ".join(filter(None, notes)))

    def wide(self, values) -> np.ndarray:
        """Return a result, or rows of it, as float64."""
        return np.asarray(values, np.float64)


def touched(x: np.ndarray) -> np.ndarray:
    """Return a buffer like x whose pages exist."""
    buffer = np.empty_like(x)
    np.copyto(buffer, x)
    return buffer
