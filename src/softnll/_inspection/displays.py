"""Figures of scores and labels in the manner of scikit-learn's displays: values kept as attributes, ``plot(ax)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll.calibration import Reliability, reliability
from softnll.functional import cross_entropy, softmax

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ConfusionDisplay", "LossDisplay", "ReliabilityDisplay"]

Vector = NDArray[Any]
BLUE, RED, GREY = "#0063a3", "#b3350b", "#5b6475"


class _Display:
    """What the displays have in common: ``ax_`` and ``figure_`` after ``plot``."""

    ax_: Axes
    figure_: Figure

    def _axes(self, ax: Axes | None) -> Axes:
        """Return the axes to draw on, of a figure of its own if none were given."""
        if ax is None:
            from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - loaded to draw
            from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

            figure = Figure(figsize=(5, 4), layout="constrained")
            FigureCanvasAgg(figure)
            ax = figure.subplots()
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return ax


class LossDisplay(_Display):
    """The distribution of the loss over the examples, and what share of it the worst carry.

    Parameters
    ----------
    nll
        ``(N,)`` losses in nats.

    Attributes
    ----------
    nll
        As given.
    worst_share
        Share of the sum that the worst hundredth of the examples carry.

    Examples
    --------
    >>> display = LossDisplay.from_scores([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]], [0, 2, 1])
    >>> display.nll.round(4).tolist()
    [0.349, 0.0206, 0.7177]
    >>> display.plot().ax_.get_xlabel()
    'loss, nats'
    """

    def __init__(self, nll: ArrayLike) -> None:
        self.nll = np.asarray(nll, np.float64)
        count = max(1, len(self.nll) // 100)
        total = float(self.nll.sum())
        self.worst_share = float(np.sort(self.nll)[-count:].sum() / total) if 0 < total < np.inf else float("nan")

    @classmethod
    def from_scores(cls, scores: ArrayLike, labels: ArrayLike) -> Self:
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes; errors as in ``cross_entropy``."""
        return cls(cross_entropy(scores, labels, reduction="none"))

    def plot(self, ax: Axes | None = None, *, bins: int = 40) -> Self:
        """Draw the histogram of the losses, the largest thousandth in its last bar, and mark the mean."""
        ax = self._axes(ax)
        finite = self.nll[np.isfinite(self.nll)]
        top = max(float(np.quantile(finite, 0.999)) if finite.size else 0.0, 1e-12)
        ax.hist(np.clip(self.nll, 0, top), bins=bins, range=(0, top), color=BLUE)
        ax.axvline(float(self.nll.mean()), color=RED, label=f"mean {self.nll.mean():.3f}")
        ax.set(
            xlabel="loss, nats", ylabel="examples", title=f"worst hundredth: {100 * self.worst_share:.0f} % of the loss"
        )
        ax.legend(frameon=False)
        return self


class ReliabilityDisplay(_Display):
    """How often predictions of a given confidence are right.

    Parameters
    ----------
    reliability
        Bins of confidence, as :func:`softnll.calibration.reliability` returns them.

    Attributes
    ----------
    reliability
        As given: ``edges``, ``counts``, ``confidence``, ``accuracy``, ``ece``.

    Examples
    --------
    >>> display = ReliabilityDisplay.from_scores([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]], [0, 2, 1])
    >>> round(display.reliability.ece, 4)
    0.2676
    """

    def __init__(self, reliability: Reliability) -> None:
        self.reliability = reliability

    @classmethod
    def from_scores(cls, scores: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> Self:
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes; errors as in ``reliability``."""
        p = softmax(scores)
        return cls(reliability(np.minimum(p.max(axis=1), 1), p.argmax(axis=1) == np.asarray(labels), bins=bins))

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw accuracy as bars, a mark for the mean confidence of each, the diagonal, and the counts."""
        ax = self._axes(ax)
        found = self.reliability
        filled = found.counts > 0
        left, width = found.edges[:-1][filled], np.diff(found.edges)[filled]
        ax.bar(left, found.accuracy[filled], width, align="edge", color=BLUE, alpha=0.6, label="accuracy")
        ax.hlines(found.confidence[filled], left, left + width, color=RED, label="mean confidence")
        ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for x, y, n in zip(left + width / 2, found.accuracy[filled], found.counts[filled], strict=True):
            ax.annotate(f"{n}", (x, y), ha="center", va="bottom", fontsize=7, color=GREY)
        ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.08), title=f"ECE {found.ece:.4f}")
        ax.legend(frameon=False, loc="upper left")
        return self


class ConfusionDisplay(_Display):
    """How often each class is taken for each other.

    Parameters
    ----------
    counts
        ``(C, C)``: true class by predicted class.
    class_names
        ``C`` names; None: their numbers.

    Attributes
    ----------
    counts, class_names
        As given.

    Examples
    --------
    >>> scores = [[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]]
    >>> ConfusionDisplay.from_scores(scores, [0, 2, 1], class_names=["cat", "dog", "horse"]).counts.tolist()
    [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    """

    def __init__(self, counts: ArrayLike, class_names: Sequence[str] | None = None) -> None:
        self.counts = np.asarray(counts)
        if self.counts.ndim != 2 or self.counts.shape[0] != self.counts.shape[1]:
            raise ValueError(f"counts has shape {self.counts.shape}; allowed: (C, C)")
        self.class_names = tuple(map(str, range(len(self.counts)) if class_names is None else class_names))
        if len(self.class_names) != len(self.counts):
            raise ValueError(f"class_names has {len(self.class_names)} names; there are {len(self.counts)} classes")

    @classmethod
    def from_scores(cls, scores: ArrayLike, labels: ArrayLike, *, class_names: Sequence[str] | None = None) -> Self:
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes in [0, C)."""
        x, y = np.asarray(scores), np.asarray(labels)
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise ValueError(f"scores have shape {x.shape}, labels {y.shape}; allowed: (N, C) and (N,)")
        if y.dtype.kind not in "iu" or (y.size and not 0 <= y.min() <= y.max() < x.shape[1]):
            raise ValueError(f"labels hold other values than classes; allowed: integers from 0 to {x.shape[1] - 1}")
        counts = np.zeros((x.shape[1], x.shape[1]), np.int64)
        np.add.at(counts, (y, x.argmax(axis=1)), 1)
        return cls(counts, class_names)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the matrix, shaded by each cell's share of its true class; up to 20 classes with counts."""
        ax = self._axes(ax)
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        if len(self.counts) <= 20:
            for i, j in np.argwhere(self.counts):
                ink = "white" if shares[i, j] > 0.55 else "black"
                ax.annotate(f"{self.counts[i, j]}", (j, i), ha="center", va="center", color=ink, fontsize=8)
            ax.set_xticks(range(len(self.counts)), self.class_names, rotation=45, ha="right")
            ax.set_yticks(range(len(self.counts)), self.class_names)
        ax.set(xlabel="predicted", ylabel="true")
        return self
