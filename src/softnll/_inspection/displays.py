"""Figures of scores and labels like scikit-learn's displays: values as attributes, and ``plot(ax)``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.arrays import as_numpy
from softnll._core.words import counted
from softnll._inspection.calibration import Reliability
from softnll._inspection.figure_style import INK, MUTED, SERIES, figure_style
from softnll._inspection.survey import Block, confusion_counts, largest_bin, worst_share
from softnll._numpy.functional import cross_entropy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, LIGHT_BLUE, RED = SERIES[0], "#66a1c8", "#b3350b"
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

    @contextmanager
    def _drawing(self, ax: Axes | None) -> Iterator[Axes]:
        """Give the axes to draw on; those of a new figure, in our style, if ``ax`` is None."""
        if ax is not None:
            self.ax_, self.figure_ = ax, ax.figure  # type: ignore[assignment]
            yield ax
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - loaded to draw
        from matplotlib.figure import Figure  # noqa: PLC0415 - likewise

        with figure_style():
            self.figure_ = Figure(figsize=(5, 4))
            FigureCanvasAgg(self.figure_)
            self.ax_ = self.figure_.subplots()
            yield self.ax_


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
        top = largest_bin(self.nll)
        title = f"worst hundredth: {100 * self.worst_share:.0f} % of the loss"
        with self._drawing(ax) as axes:
            axes.hist(np.clip(self.nll, 0, top), bins=bins, range=(0, top), color=BLUE)
            axes.axvline(float(self.nll.mean()), color=RED, label=f"mean {self.nll.mean():.3f}")
            axes.set(xlabel="loss, nats", ylabel="examples", title=title)
            axes.legend(frameon=False)
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
        """Draw accuracy as bars, a mark for the mean confidence of each, the diagonal, and counts above them."""
        found = self.reliability
        filled = found.counts > 0
        left, width = found.edges[:-1][filled], np.diff(found.edges)[filled]
        with self._drawing(ax) as axes:
            axes.bar(left, found.accuracy[filled], width, align="edge", color=LIGHT_BLUE, label="accuracy")
            axes.hlines(found.confidence[filled], left, left + width, color=RED, label="mean confidence")
            axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1)
            upright = 0 if len(found.counts) <= 15 else 90  # what has no room side by side
            for x, n in zip(left + width / 2, found.counts[filled], strict=True):
                style: dict[str, Any] = {
                    "ha": "center",
                    "va": "center",
                    "fontsize": 7,
                    "color": MUTED,
                    "rotation": upright,
                }
                axes.text(x, 1.08, _shortened(int(n)), **style)
            ticks = np.linspace(0, 1, 6)
            axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.14), xticks=ticks, yticks=ticks)
            axes.set_title(f"ECE {found.ece:.4f}; examples in each bin above")
            axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 0.92))
        return self


def _shortened(n: int) -> str:
    """Return a count in at most four characters: 9999, 12k, 3.4M."""
    if n < 10_000:
        return str(n)
    for size, unit in ((10**3, "k"), (10**6, "M"), (10**9, "G")):
        value = n / size
        if value < 9.95:
            return f"{value:.1f}{unit}"
        if value < 999.5:
            return f"{value:.0f}{unit}"
    return f"{n:.0e}"


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
        shares = self.counts / np.maximum(self.counts.sum(axis=1, keepdims=True), 1)
        with self._drawing(ax) as axes:
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.grid(visible=False)
            if len(self.counts) <= 20:
                for i, j in np.argwhere(self.counts):
                    ink = "white" if shares[i, j] > 0.55 else INK
                    axes.annotate(f"{self.counts[i, j]}", (j, i), ha="center", va="center", color=ink, fontsize=8)
                longest = max(map(len, self.class_names))
                turned: dict[str, Any] = (
                    {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest > 2 else {}
                )
                axes.set_xticks(range(len(self.counts)), self.class_names, **turned)
                axes.set_yticks(range(len(self.counts)), self.class_names)
            axes.set(xlabel="predicted", ylabel="true")
        return self
