"""Figures of scores and labels like scikit-learn's displays: values as attributes, and ``plot(ax)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.arrays import as_numpy
from softnll._core.words import counted
from softnll._inspection.calibration import Reliability
from softnll._inspection.survey import Block, confusion_counts, largest_bin, worst_share
from softnll._numpy.functional import cross_entropy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ConfusionDisplay", "LossDisplay", "ReliabilityDisplay"]

BLUE, RED, GREY = "#0063a3", "#b3350b", "#5b6475"
IGNORED = -100  # the default ignore_index of cross_entropy


def _counted(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    """Return scores, labels and losses of the rows whose label is not ignored; raise for what is no class.

    `cross_entropy` checks scores and labels, so that every display refuses what the loss refuses.
    """
    nll = np.asarray(cross_entropy(scores, labels, reduction="none"), np.float64)
    x, y = np.asarray(as_numpy(scores)), np.asarray(as_numpy(labels))
    if x.ndim != 2 or y.ndim != 1:
        raise ValueError(f"scores have shape {x.shape}, labels {y.shape}; allowed: (N, C) and (N,) class numbers")
    counted = y != IGNORED
    if not counted.any():
        raise ValueError(f"all {len(y)} labels are {IGNORED}, which losses ignore; allowed: at least one class")
    return (x, y, nll) if counted.all() else (x[counted], y[counted], nll[counted])


class _Display:
    """The base of the displays: ``ax_`` and ``figure_`` after ``plot``."""

    ax_: Axes
    figure_: Figure

    def _axes(self, ax: Axes | None) -> Axes:
        """Return the axes to draw on; those of a new figure if ``ax`` is None."""
        if ax is None:
            from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - loaded to draw
            from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

            figure = Figure(figsize=(5, 4), layout="constrained")
            FigureCanvasAgg(figure)
            ax = figure.subplots()
        self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
        return ax


class LossDisplay(_Display):
    """A histogram of the losses, and the share of their sum that the largest hundredth has.

    Parameters
    ----------
    nll
        ``(N,)`` losses in nats.

    Attributes
    ----------
    nll
        As given.
    worst_share
        The largest hundredth of the losses as a share of their sum.

    Examples
    --------
    >>> display = LossDisplay.from_scores([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0], [4.0, 4.0, 1.0]], [0, 2, 1])
    >>> display.nll.round(4).tolist()
    [0.349, 0.0206, 0.7177]
    >>> display.plot().ax_.get_xlabel()
    'loss, nats'
    """

    def __init__(self, nll: ArrayLike) -> None:
        self.nll: NDArray[np.float64] = np.asarray(nll, np.float64)
        self.worst_share: float = worst_share(self.nll)

    @classmethod
    def from_scores(cls, scores: ArrayLike, labels: ArrayLike) -> Self:
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes, or ``(N, C)`` distributions.

        Rows with the label −100 are left out; errors are those of ``cross_entropy``.
        """
        if np.ndim(as_numpy(labels)) == 2:
            return cls(cross_entropy(scores, labels, reduction="none"))
        return cls(_counted(scores, labels)[2])

    def plot(self, ax: Axes | None = None, *, bins: int = 40) -> Self:
        """Draw the histogram of the losses, with the largest thousandth in the last bar, and the mean."""
        ax = self._axes(ax)
        top = largest_bin(self.nll)
        ax.hist(np.clip(self.nll, 0, top), bins=bins, range=(0, top), color=BLUE)
        ax.axvline(float(self.nll.mean()), color=RED, label=f"mean {self.nll.mean():.3f}")
        ax.set(
            xlabel="loss, nats", ylabel="examples", title=f"worst hundredth: {100 * self.worst_share:.0f} % of the loss"
        )
        ax.legend(frameon=False)
        return self


class ReliabilityDisplay(_Display):
    """The accuracy of predictions in bins of their confidence.

    Parameters
    ----------
    reliability
        Bins of confidence, as :func:`softnll._inspection.calibration.reliability` returns them.

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
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes.

        Rows with the label −100 are left out; errors are those of ``cross_entropy`` and ``reliability``.
        """
        x, y, _ = _counted(scores, labels)
        return cls(Block(x, y).reliability(bins))

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
    """The confusion matrix: counts by true and predicted class.

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
        self.counts: NDArray[Any] = np.asarray(counts)
        if self.counts.ndim != 2 or self.counts.shape[0] != self.counts.shape[1]:
            raise ValueError(f"counts has shape {self.counts.shape}; allowed: (C, C)")
        self.class_names: tuple[str, ...] = tuple(
            map(str, range(len(self.counts)) if class_names is None else class_names)
        )
        if len(self.class_names) != len(self.counts):
            raise ValueError(
                f"class_names has {counted(len(self.class_names), 'name')}; "
                f"allowed: {len(self.counts)}, one for each class"
            )

    @classmethod
    def from_scores(cls, scores: ArrayLike, labels: ArrayLike, *, class_names: Sequence[str] | None = None) -> Self:
        """Return the display of ``(N, C)`` scores and ``(N,)`` true classes in [0, C).

        Rows with the label −100 are left out; errors are those of ``cross_entropy``.
        """
        x, y, _ = _counted(scores, labels)
        return cls(confusion_counts(y, x.argmax(axis=1), x.shape[1]), class_names)

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
