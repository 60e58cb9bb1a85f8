"""`ExplanationDisplay`: the figure of an explanation with its values, like scikit-learn's displays."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Self

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from softnll._inspection.explain.figure import draw_panels, figure_bytes, shown
from softnll._inspection.explain.numbers import ExplanationNumbers
from softnll._inspection.figure_style import figure_style


class ExplanationDisplay:
    """The values of an explanation's figure, at most 8 rows and 8 classes: probabilities, losses, and gradient.

    Attributes
    ----------
    explanation
        The explanation that the values are part of.
    classes
        ``(K,)`` the classes drawn, as numbers from 0.
    class_names
        ``(K,)`` their names.
    probabilities
        ``(n, K)`` of the rows drawn.
    targets, true_probabilities, nll
        ``(n,)`` true class, its probability, and the loss in nats; None without targets.
    gradient
        ``(n, K)`` derivative of the total by each score; None without targets.
    figure_, axes_, ax_
        After `plot`: the figure, the list of panels, and the first of them.

    Examples
    --------
    >>> import softnll as sn
    >>> display = sn.explain([[5, 4, 2]], [0]).display()
    >>> display.plot().axes_[1].get_xlabel()
    'probability p of the true class'
    >>> display.true_probabilities.round(6).tolist()
    [0.705385]
    """

    figure_: Figure
    axes_: list[Axes]
    ax_: Axes

    def __init__(self, explanation: ExplanationNumbers) -> None:
        N, classes = shown(explanation)
        self.explanation = explanation
        self.classes: NDArray[np.int64] = classes
        self.class_names: tuple[str, ...] = tuple(explanation.class_names[c] for c in classes)
        self.probabilities: NDArray[Any] = explanation.probabilities[:N, classes]
        self.targets: NDArray[np.int64] | None = None
        self.true_probabilities: NDArray[Any] | None = None
        self.nll: NDArray[Any] | None = None
        self.gradient: NDArray[Any] | None = None
        if explanation.losses is not None:
            self.targets = explanation.losses.targets[:N]
            self.true_probabilities = explanation.probabilities[np.arange(N), self.targets]
            self.nll = explanation.losses.nll[:N]
            self.gradient = explanation.losses.gradient[:N, classes]

    @classmethod
    def from_explanation(cls, explanation: ExplanationNumbers) -> Self:
        """Return the display of an explanation, before it is drawn."""
        return cls(explanation)

    def plot(self, ax: Any = None, *, figure: Figure | None = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax
            None for a figure of its own; axes whose place the panels take (they are switched off); or as many axes as
            there are panels, one each: three, or one without targets.
        figure
            A figure to draw into, instead of ``ax``.

        Raises
        ------
        TypeError, ValueError
            If both are given, or ``ax`` is neither axes nor the right number of them.
        """
        if ax is not None and figure is not None:
            raise ValueError("ax and figure are both given; allowed: one of them")
        with figure_style() if ax is None and figure is None else nullcontext():
            return self._plot(ax, figure)

    def _plot(self, ax: Any, figure: Figure | None) -> Self:
        """Draw the panels in the style that is set."""
        panels = 1 if self.nll is None else 3
        widths = [1.15, 1, 1][:panels]
        if ax is None:
            if figure is None:
                figure = Figure(figsize=(12, 3.9), layout="constrained")
                FigureCanvasAgg(figure)
            axes = list(np.atleast_1d(figure.subplots(1, panels, width_ratios=widths)))
        elif isinstance(ax, Axes):
            axes = [ax] if panels == 1 else _within(ax, widths)
        else:
            axes = list(np.ravel(np.asarray(ax, dtype=object)))
            if not all(isinstance(one, Axes) for one in axes):
                raise TypeError("ax holds what are not matplotlib axes; allowed: axes, or an array of them")
            if len(axes) != panels:
                raise ValueError(f"ax holds {len(axes)} axes; allowed: one to share, or {panels}, one for each panel")
        draw_panels(self.explanation, axes)
        owner = axes[0].get_figure(root=True)
        assert owner is not None  # noqa: S101 - the panels belong to a figure
        self.figure_, self.axes_, self.ax_ = owner, axes, axes[0]
        return self

    def _repr_png_(self) -> bytes:
        """Return the picture, which notebooks show."""
        return figure_bytes(type(self)(self.explanation).plot().figure_, "png")


def _within(ax: Axes, widths: list[float]) -> list[Axes]:
    """Return one panel for each width, side by side in the place of these axes."""
    place = ax.get_subplotspec()
    figure = ax.get_figure()
    assert figure is not None  # noqa: S101 - axes that were removed from theirs cannot be drawn into
    if place is None:
        raise ValueError("ax was placed by hand; allowed: axes of a grid (plt.subplots), or an array of axes")
    ax.set_axis_off()
    grid = place.subgridspec(1, len(widths), width_ratios=widths, wspace=0.35)
    return [figure.add_subplot(grid[0, i]) for i in range(len(widths))]
