"""The derivation of the gradient with one row's own numbers in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from softnll import equation
from softnll.options import loss_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Derivation", "derive"]

SHOWN = 6  # classes with a column of their own; where there are more, the others are one column together
_TOO_SMALL = 1e-290  # below, a product has lost digits or is 0


@dataclass(frozen=True, eq=False, repr=False)
class Derivation:
    """From one row's scores to its gradient, step by step; print it, or show it in a notebook. All in float64.

    ``K`` classes are shown: all of them, or the true one and the likeliest, and then ``rest``, all others together.
    What is said of the rest holds for a score that all of them share: its probability is their sum.

    Attributes
    ----------
    row, target
        Which row, and its true class, as numbers from 0.
    classes
        Those that are shown, as numbers from 0, in order.
    names
        ``(K,)`` what they are called, the rest included.
    place
        Where the true class stands among the names.
    n_rest
        How many classes the rest has, 0 where all are shown.
    scores
        ``(K,)`` f, NaN for the rest.
    largest, rest, total
        m, the largest score; r, the sum of the other classes' exp(f − m); 1 + r.
    differences, exponentials
        ``(K,)`` f − m (NaN for the rest) and exp(f − m).
    probabilities, complements
        ``(K,)`` p and 1 − p, each without cancellation.
    ahead, log_total
        The two parts of the loss: m − f_y, and log1p(r).
    nll
        −ln p_y, in nats.
    loss_by_probability
        ``(K,)`` ∂L/∂p_i: −1/p_y at the true class, 0 elsewhere.
    jacobian
        ``(K, K)`` ∂p_i/∂f_k: p_i·(1[i = k] − p_k).
    gradient
        ``(K,)`` ∂L/∂f_k: p − 1 at the true class, p elsewhere.
    """

    row: int
    target: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    place: int
    n_rest: int
    scores: NDArray[np.float64]
    largest: float
    rest: float
    total: float
    differences: NDArray[np.float64]
    exponentials: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    complements: NDArray[np.float64]
    ahead: float
    log_total: float
    nll: float
    loss_by_probability: NDArray[np.float64]
    jacobian: NDArray[np.float64]
    gradient: NDArray[np.float64]

    @property
    def whole(self) -> bool:
        """Whether step 7 can be done in numbers: not where p_y is 0 or its products are too small for float64."""
        p_y = self.probabilities[self.place]
        least = self.probabilities.min(initial=1.0, where=self.probabilities > 0)
        return bool(p_y > 0 and p_y * least >= _TOO_SMALL)

    def __repr__(self) -> str:
        from softnll.formula import digits  # noqa: PLC0415 - loaded when it is asked for

        C = len(self.classes) + self.n_rest
        slope = digits(float(self.gradient[self.place]))
        return f"Derivation[row {self.row}, {C} classes] nll {digits(self.nll)} gradient at the true class {slope}"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the derivation as plain text; a star stands at the true class."""
        from softnll.derivation_steps import as_text, steps  # noqa: PLC0415 - loaded when it is asked for

        return as_text(self, steps(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities as "inf" and "-inf", what the rest lacks as None."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def _repr_html_(self) -> str:
        from softnll.derivation_html import as_html  # noqa: PLC0415 - loaded when it is asked for
        from softnll.derivation_steps import steps  # noqa: PLC0415 - loaded when it is asked for

        return as_html(self, steps(self))


def derive(
    row: int, scores: NDArray[Any], target: int, class_names: Sequence[str], *, shown: int = SHOWN
) -> Derivation:
    """Return the derivation for one row of scores ``(C,)`` that has a softmax.

    ``p_k = exp(f_k − m)/(1 + r)``, ``L = −ln p_y``, ``∂L/∂f_k = Σ_i ∂L/∂p_i · ∂p_i/∂f_k = p_k − 1[k = y]``.

    Parameters
    ----------
    row
        What the row is called.
    scores
        ``(C,)`` scores of any real type.
    target
        The true class, in ``[0, C)``.
    class_names
        ``C`` names.
    shown
        How many classes have a column of their own where there are more than one above that.

    Returns
    -------
    Derivation
        The numbers are those of ``softnll.equation``.

    Examples
    --------
    >>> import numpy as np
    >>> derived = derive(0, np.array([5.0, 4.0, 2.0]), 0, ["cat", "dog", "horse"])
    >>> derived
    Derivation[row 0, 3 classes] nll 0.349012 gradient at the true class -0.294615
    >>> derived.gradient.round(6).tolist()
    [-0.294615, 0.259496, 0.035119]
    """
    problem, _ = loss_problem(scores[np.newaxis], np.array([target]), reduction="sum")
    parts = equation.normalise(problem)
    f = problem.x[0].astype(np.float64)
    p, complement = equation.probabilities(parts)[0], equation.complements(parts)[0]
    gradient = equation.gradient(problem, parts)[0]
    classes = _shown(p, target, shown)
    others = np.ones(len(f), bool)
    others[classes] = False
    n_rest = int(others.sum())

    def column(values: NDArray[np.float64], rest: float) -> NDArray[np.float64]:
        return np.append(values[classes], rest) if n_rest else values[classes]

    shown_p = column(p, float(p[others].sum()))
    shown_complement = column(complement, float(p[~others].sum()))
    place = int(np.searchsorted(classes, target))
    by_probability = np.zeros(len(shown_p))
    with np.errstate(divide="ignore", over="ignore"):
        by_probability[place] = -1.0 / p[target]
    jacobian = -shown_p[:, None] * shown_p[None, :]
    np.fill_diagonal(jacobian, shown_p * shown_complement)
    names = [class_names[c] for c in classes]
    return Derivation(
        row=row,
        target=target,
        classes=tuple(int(c) for c in classes),
        names=tuple([*names, f"{n_rest} others"] if n_rest else names),
        place=place,
        n_rest=n_rest,
        scores=column(f, np.nan),
        largest=float(parts.m[0, 0]),
        rest=float(parts.r[0, 0]),
        total=float(1.0 + parts.r[0, 0]),
        differences=column(parts.hi[0] + parts.lo[0], np.nan),
        exponentials=column(parts.e[0], float(parts.e[0][others].sum())),
        probabilities=shown_p,
        complements=shown_complement,
        ahead=float(-(parts.hi[0, target] + parts.lo[0, target])) + 0.0,
        log_total=float(parts.log_r[0, 0]),
        nll=float(equation.losses(problem, parts)[0]),
        loss_by_probability=by_probability,
        jacobian=jacobian + 0.0,
        gradient=column(gradient, float(gradient[others].sum())),
    )


def _shown(p: NDArray[np.float64], target: int, most: int) -> NDArray[np.int64]:
    """Return the classes to show: all, where one more than ``most`` suffices; else the true one and the likeliest."""
    if len(p) <= most + 1:
        return np.arange(len(p))
    likeliest = np.argsort(-p, kind="stable")
    return np.sort(np.append(likeliest[likeliest != target][: most - 1], target)).astype(np.int64)


def _plain(value: Any) -> Any:
    """Return a value in the types of JSON."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf" if value > 0 else "-inf"
    return value
