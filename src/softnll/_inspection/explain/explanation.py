"""`explain` and its result: probabilities, losses and gradients of scores, as tables, sentences and figures."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from softnll._core.arrays import as_numpy
from softnll._core.words import counted
from softnll._inspection.explain.contributions import entropy
from softnll._inspection.explain.derivation.derivation import Derivation, derive
from softnll._inspection.explain.few_rows import functions
from softnll._inspection.explain.numbers import ExplanationNumbers
from softnll._inspection.explain.sentences import sentences
from softnll._inspection.explain.tables import as_html, as_text
from softnll._inspection.format import plain
from softnll._inspection.survey import Block
from softnll.data.class_labels import by_name
from softnll.data.frames import is_frame, label_values, named_rows
from softnll.data.text_arrays import is_text

if TYPE_CHECKING:  # matplotlib is imported to draw
    from matplotlib.figure import Figure

    from softnll._inspection.explain.display import ExplanationDisplay

_IGNORED = -100  # the default ignore_index of the loss


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ExplanationNumbers):
    """The probabilities, losses and gradients of ``N`` rows of ``C`` scores, as `explain` returns them.

    Attributes
    ----------
    logits
        ``(N, C)`` scores as they were given.
    class_names
        ``C`` names.
    targets
        ``(N,)`` true classes; None without targets, as are then `nll`, `gradient`, `total` and `mean`.
    probabilities, log_probabilities
        ``(N, C)`` softmax of each row, and its natural logarithm.
    prediction
        ``(N,)`` the class of the highest score, the first one of a tie.
    confidence
        ``(N,)`` the probability of that class.
    margin
        ``(N,)`` that probability minus the next one; 0 in a tie, 1 where there is one class.
    entropy
        ``(N,)`` −Σ p·ln p in nats: the expected loss if the true class is drawn from p.
    ties
        ``(N,)`` whether several classes share the highest score.
    nll
        ``(N,)`` negative log-likelihood of the true class, in nats.
    gradient
        ``(N, C)`` derivative of the total by each score.
    total, mean
        The sum and the mean of `nll`.
    """

    def __repr__(self) -> str:
        N, C = self.logits.shape
        facts = f"Explanation[{N}\N{MULTIPLICATION SIGN}{C} {self.probabilities.dtype}]"
        if self.mean is not None and self.correct is not None:
            facts += f" nll {self.mean:.3f} acc {int(self.correct.sum())}/{N}"
        tied = int(self.ties.sum())
        if tied:
            facts += f" ({tied} {'tie' if tied == 1 else 'ties'})"
        return f"{facts} confidence {self.confidence.min():.3f}\N{EN DASH}{self.confidence.max():.3f}"

    def __str__(self) -> str:
        return self.text()

    def text(self, *, bits: bool = False) -> str:
        """Return the tables as plain text, with losses in nats or in bits."""
        return as_text(self, bits=bits)

    def words(self, *, bits: bool = False) -> list[str]:
        """Return sentences about the numbers, one or two an entry."""
        return sentences(self, bits=bits)

    def _repr_html_(self) -> str:
        return as_html(self, self.words())

    def derivation(self, row: int = 0) -> Derivation:
        r"""Return the derivation of one row's gradient with its own numbers; print it or show it in a notebook.

        Parameters
        ----------
        row
            Which row; negative ones count from the end.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError
            If no targets were given: without a true class there is no loss to derive.

        Examples
        --------
        >>> import softnll as sn
        >>> explained = sn.explain([[5, 4, 2]], [0], class_names=["cat", "dog", "horse"])
        >>> print("\n".join(explained.derivation(0).text().splitlines()[-6:-1]))
             k other than y: -(1/p_y)·(-p_y·p_k) = p_k
                             cat*       dog      horse
             p          0.705385   0.259496   0.035119
             onehot            1          0          0
             gradient  -0.294615   0.259496   0.035119
        """
        N = len(self.logits)
        n = operator.index(row)
        if not -N <= n < N:
            raise IndexError(f"row is {n}; allowed: 0 to {N - 1}")
        if self.targets is None:
            raise ValueError("a derivation needs the row's true class: pass targets to explain")
        n %= N
        return derive(n, self.logits[n], int(self.targets[n]), self.class_names)

    def plot(self, figure: Figure | None = None, *, ax: Any = None) -> Figure:
        """Draw the probabilities, the losses on the curve of −ln p, and the gradient; needs matplotlib.

        Parameters
        ----------
        figure
            A figure to draw into; a new one if both are None.
        ax
            Axes whose place the three panels take, as scikit-learn's displays do; or an array of three axes, one each.

        Returns
        -------
        Figure
            The one that was drawn into. For the values that are drawn see :meth:`display`.
        """
        return self.display().plot(figure=figure, ax=ax).figure_

    def display(self) -> ExplanationDisplay:
        """Return the figure's values as an object that plots them, as scikit-learn's displays do; needs matplotlib."""
        from softnll._inspection.explain.display import ExplanationDisplay  # noqa: PLC0415 - imports matplotlib

        return ExplanationDisplay.from_explanation(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities, which JSON lacks, as the strings "inf" and "-inf"."""
        names = (
            "targets", "probabilities", "log_probabilities", "prediction", "confidence", "margin", "entropy", "ties",
            "nll", "nll_bits", "gradient", "total", "mean",
        )  # fmt: skip
        values = {name: getattr(self, name) for name in names}
        return plain({"class_names": self.class_names, "scores": self.logits, **values})  # type: ignore[no-any-return]


def explain(
    logits: ArrayLike, targets: ArrayLike | None = None, *, class_names: Sequence[str] | None = None
) -> Explanation:
    """Return the probabilities, losses and gradients of scores, in an object that shows and explains them.

    ``p = exp(f) / Σ exp(f)``, ``NLL = −ln p`` at the true class, ``d total / d f = p − onehot``.

    Parameters
    ----------
    logits
        ``(N, C)`` scores, or ``(C,)`` for one row; integers are taken as floating-point numbers. A NumPy array, a
        torch tensor (also one that requires a gradient, or bfloat16), a JAX array, a data frame, or lists.
    targets
        ``(N,)`` true classes as integers in ``[0, C)`` (or one integer for one row), or names of classes. Without them
        there is no loss.
    class_names
        ``C`` names; the columns' names of a data frame, else ``class 0``, ``class 1``, … if None.

    Returns
    -------
    Explanation
        Print it for tables; see its attributes for the arrays.

    Raises
    ------
    ValueError
        If the shapes do not fit, a target is out of range, or a row has no softmax (NaN, only -inf, +inf twice).
    TypeError
        If scores are not real numbers or targets not integers.

    Examples
    --------
    >>> import softnll as sn
    >>> explained = sn.explain([[5, 4, 2], [4, 2, 8], [4, 4, 1]], [0, 2, 1], class_names=["cat", "dog", "horse"])
    >>> explained
    Explanation[3×3 float64] nll 0.362 acc 2/3 (1 tie) confidence 0.488–0.980
    >>> explained.nll.round(6).tolist()
    [0.349012, 0.020581, 0.717736]
    """
    scores, own_names = _rows(logits)
    N, C = scores.shape
    names = own_names if class_names is None else tuple(str(name) for name in class_names)
    names = tuple(f"class {c}" for c in range(C)) if names is None else names
    if len(names) != C:
        raise ValueError(f"class_names has {counted(len(names), 'name')}; the scores have {counted(C, 'column')}")
    labels = None if targets is None else _labels(targets, N, names)

    compute = functions(scores.size)
    rows = Block(scores, labels, functions=compute)
    rows.require_softmax()
    p, confidence = rows.probabilities, rows.confidence
    second = np.partition(p, -2, axis=1)[:, -2] if C > 1 else np.zeros_like(confidence)
    nll = gradient = total = mean = None
    if labels is not None:
        nll = rows.nll
        mean = float(compute.cross_entropy(scores, labels, reduction="mean"))
        loss, gradient = compute.cross_entropy_and_grad(scores, labels, reduction="sum")
        total = float(loss)
    return Explanation(
        logits=scores,
        class_names=names,
        targets=labels,
        probabilities=p,
        log_probabilities=compute.log_softmax(scores),
        prediction=rows.prediction.astype(np.int64),
        confidence=confidence,
        margin=confidence - second,
        entropy=entropy(scores),
        ties=(scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1,
        nll=nll,
        gradient=gradient,
        total=total,
        mean=mean,
    )


def _rows(logits: Any) -> tuple[NDArray[Any], tuple[str, ...] | None]:
    """Return the scores as ``(N, C)`` with at least one row and one class, and the names of a data frame's columns."""
    if is_frame(logits):
        rows, names = named_rows(logits)
        return rows.rows(slice(None)), names
    try:
        scores = np.asarray(as_numpy(logits))
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"the scores are not a table: {error}") from None
    if scores.ndim == 1:
        scores = scores[np.newaxis]
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"the scores have shape {scores.shape}; expected (rows, classes), at least one of each")
    return scores, None


def _labels(targets: Any, N: int, names: tuple[str, ...]) -> NDArray[Any]:
    """Return the targets as ``(N,)``, words as the classes of these names; the range is checked with the loss."""
    labels = np.atleast_1d(label_values(as_numpy(targets))[0])
    if labels.shape != (N,):
        raise ValueError(f"the targets have shape {labels.shape}; expected ({N},), one for each row of scores")
    if labels.dtype.kind in "iu" and (labels == _IGNORED).any():
        where = int((labels == _IGNORED).argmax())
        raise ValueError(f"targets[{where}] is {_IGNORED}, which the loss ignores: leave such rows out")
    if labels.dtype.kind == "S":
        labels = labels.astype(str)
    if is_text(labels) and (named := by_name(labels.tolist(), names)) is not None:
        return named
    return labels
