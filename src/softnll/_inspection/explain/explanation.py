"""What the last layer makes of some scores: probabilities, losses and gradients as numbers, tables, words, a figure."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from softnll.contributions import contributions, entropy
from softnll.foreign import as_numpy
from softnll.functional import cross_entropy, cross_entropy_and_grad, log_softmax, softmax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike, NDArray

    from softnll.derivation import Derivation
    from softnll.explanation_display import ExplanationDisplay

__all__ = ["Explanation", "Losses", "explain"]

_IGNORED = -100  # the default ignore_index of the loss


class Losses(NamedTuple):
    """What an `Explanation` knows where the true classes are known."""

    targets: NDArray[np.int64]
    nll: NDArray[Any]
    gradient: NDArray[Any]
    total: float
    mean: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What `explain` found, row by row; ``N`` rows of ``C`` classes.

    Attributes
    ----------
    logits
        ``(N, C)`` scores as they were given.
    class_names
        ``C`` names.
    targets
        ``(N,)`` true classes, or None if none were given; then so are `nll`, `gradient`, `total` and `mean`.
    probabilities, log_probabilities
        ``(N, C)`` softmax of each row, and its natural logarithm.
    prediction
        ``(N,)`` the class of the highest score, the first one of a tie.
    confidence
        ``(N,)`` the probability of that class.
    margin
        ``(N,)`` by how much that probability is ahead of the next one; 0 in a tie, 1 where there is one class.
    entropy
        ``(N,)`` −Σ p·ln p in nats: the loss that the row itself expects.
    ties
        ``(N,)`` whether several classes share the highest score.
    nll
        ``(N,)`` negative log-likelihood of the true class, in nats.
    gradient
        ``(N, C)`` derivative of the total by each score.
    total, mean
        The sum and the mean of `nll`.
    """

    logits: NDArray[Any]
    class_names: tuple[str, ...]
    targets: NDArray[np.int64] | None
    probabilities: NDArray[Any]
    log_probabilities: NDArray[Any]
    prediction: NDArray[np.int64]
    confidence: NDArray[Any]
    margin: NDArray[Any]
    entropy: NDArray[Any]
    ties: NDArray[np.bool_]
    nll: NDArray[Any] | None
    gradient: NDArray[Any] | None
    total: float | None
    mean: float | None

    @property
    def losses(self) -> Losses | None:
        """The five attributes that need true classes, together, or None."""
        if self.targets is None or self.nll is None or self.gradient is None or self.total is None or self.mean is None:
            return None
        return Losses(self.targets, self.nll, self.gradient, self.total, self.mean)

    @property
    def nll_bits(self) -> NDArray[Any] | None:
        """``(N,)`` losses in bits: nats / ln 2."""
        return None if self.nll is None else self.nll / math.log(2)

    @property
    def contributions(self) -> NDArray[np.float64] | None:
        """``(N, C)`` by how many nats the loss would fall if that class were not there; 0 at the true one.

        Without class k the true class has p_y/(1 − p_k), so the loss is lower by −ln(1 − p_k).
        """
        return None if self.targets is None else contributions(self.logits, self.targets)

    @property
    def correct(self) -> NDArray[np.bool_] | None:
        """Whether each prediction is the true class."""
        return None if self.targets is None else self.prediction == self.targets

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
        from softnll.stages import as_text, stages  # noqa: PLC0415 - loaded when it is asked for

        return as_text(stages(self, bits=bits))

    def words(self, *, bits: bool = False) -> list[str]:
        """Return what the numbers say, one sentence or two an entry."""
        from softnll.wording import sentences  # noqa: PLC0415 - loaded when it is asked for

        return sentences(self, bits=bits)

    def _repr_html_(self) -> str:
        from softnll.stages import as_html, stages  # noqa: PLC0415 - loaded when it is asked for

        return as_html(stages(self), self.words())

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
        >>> told = sn.explain([[5, 4, 2]], [0], class_names=["cat", "dog", "horse"])
        >>> print("\n".join(told.derivation(0).text().splitlines()[-6:-1]))
             k other than y: -(1/p_y)·(-p_y·p_k) = p_k
                             cat*       dog      horse
             p          0.705385   0.259496   0.035119
             onehot            1          0          0
             gradient  -0.294615   0.259496   0.035119
        """
        from softnll.derivation import derive  # noqa: PLC0415 - loaded when it is asked for

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
        """Return what `plot` draws as an object with the values, in the manner of scikit-learn; needs matplotlib."""
        from softnll.explanation_display import ExplanationDisplay  # noqa: PLC0415 - loaded when it is asked for

        return ExplanationDisplay.from_explanation(self)

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities, which JSON lacks, as the strings "inf" and "-inf"."""
        return {
            "class_names": list(self.class_names),
            "scores": _plain(self.logits),
            "targets": _plain(self.targets),
            "probabilities": _plain(self.probabilities),
            "log_probabilities": _plain(self.log_probabilities),
            "prediction": _plain(self.prediction),
            "confidence": _plain(self.confidence),
            "margin": _plain(self.margin),
            "entropy": _plain(self.entropy),
            "ties": _plain(self.ties),
            "nll": _plain(self.nll),
            "nll_bits": _plain(self.nll_bits),
            "gradient": _plain(self.gradient),
            "total": _plain(self.total),
            "mean": _plain(self.mean),
        }


def explain(
    logits: ArrayLike, targets: ArrayLike | None = None, *, class_names: Sequence[str] | None = None
) -> Explanation:
    """Explain what softmax, the negative log-likelihood and its gradient make of some scores.

    ``p = exp(f) / Σ exp(f)``, ``NLL = −ln p`` at the true class, ``d total / d f = p − onehot``.

    Parameters
    ----------
    logits
        ``(N, C)`` scores, or ``(C,)`` for one row; integers are taken as floating-point numbers. A NumPy array, a
        torch tensor (also one that requires a gradient, or bfloat16), a JAX array, or lists.
    targets
        ``(N,)`` true classes as integers in ``[0, C)`` (or one integer for one row). Without them there is no loss.
    class_names
        ``C`` names; ``class 0``, ``class 1``, … if None.

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
    >>> told = sn.explain([[5, 4, 2], [4, 2, 8], [4, 4, 1]], [0, 2, 1], class_names=["cat", "dog", "horse"])
    >>> told
    Explanation[3×3 float64] nll 0.362 acc 2/3 (1 tie) confidence 0.488–0.980
    >>> told.nll.round(6).tolist()
    [0.349012, 0.020581, 0.717736]
    """
    scores = _rows(logits)
    N, C = scores.shape
    names = tuple(f"class {c}" for c in range(C)) if class_names is None else tuple(str(name) for name in class_names)
    if len(names) != C:
        raise ValueError(f"class_names has {len(names)} names; the scores have {C} columns")
    labels = None if targets is None else _labels(targets, N)

    probabilities = softmax(scores)
    lost = np.isnan(probabilities).any(axis=1)
    if lost.any():
        raise ValueError(f"row {int(lost.argmax())} has no softmax: it holds NaN, only -inf, or +inf more than once")
    confidence = probabilities.max(axis=1)
    second = np.partition(probabilities, -2, axis=1)[:, -2] if C > 1 else np.zeros_like(confidence)
    nll = gradient = total = mean = None
    if labels is not None:
        nll = cross_entropy(scores, labels, reduction="none")
        mean = float(cross_entropy(scores, labels, reduction="mean"))
        loss, gradient = cross_entropy_and_grad(scores, labels, reduction="sum")
        total = float(loss)
    return Explanation(
        logits=scores,
        class_names=names,
        targets=labels,
        probabilities=probabilities,
        log_probabilities=log_softmax(scores),
        prediction=scores.argmax(axis=1).astype(np.int64),
        confidence=confidence,
        margin=confidence - second,
        entropy=entropy(scores),
        ties=(scores == scores.max(axis=1, keepdims=True)).sum(axis=1) > 1,
        nll=nll,
        gradient=gradient,
        total=total,
        mean=mean,
    )


def _rows(logits: ArrayLike) -> NDArray[Any]:
    """Return the scores as ``(N, C)`` with at least one row and one class."""
    try:
        scores = np.asarray(as_numpy(logits))
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"the scores are not a table: {error}") from None
    if scores.ndim == 1:
        scores = scores[np.newaxis]
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"the scores have shape {scores.shape}; expected (rows, classes), at least one of each")
    return scores


def _labels(targets: ArrayLike, N: int) -> NDArray[Any]:
    """Return the targets as ``(N,)``; their range is checked where the loss is computed."""
    labels = np.atleast_1d(np.asarray(as_numpy(targets)))
    if labels.shape != (N,):
        raise ValueError(f"the targets have shape {labels.shape}; expected ({N},), one for each row of scores")
    if labels.dtype.kind in "iu" and (labels == _IGNORED).any():
        where = int((labels == _IGNORED).argmax())
        raise ValueError(f"targets[{where}] is {_IGNORED}, which the loss ignores: leave such rows out")
    return labels


def _plain(value: Any) -> Any:
    """Return an array or number as lists and numbers that JSON has."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist() if value.dtype.kind in "biuf" else value.astype(np.float64).tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
