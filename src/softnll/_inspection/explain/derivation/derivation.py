"""The derivation of the gradient, with the numbers of one row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softnll._core import equation
from softnll._core.problem import loss_problem
from softnll._core.words import counted
from softnll._inspection.explain.derivation.formula import digits
from softnll._inspection.explain.derivation.numbers import DerivationNumbers
from softnll._inspection.explain.derivation.steps import as_html, as_text, steps
from softnll._inspection.format import plain

SHOWN = 6  # classes with a column of their own; where there are more, the others are one column together


@dataclass(frozen=True, eq=False, repr=False)
class Derivation(DerivationNumbers):
    """The derivation of one row's gradient from its scores, in float64; print it, or show it in a notebook.

    ``K`` classes are shown: all of them, or the true one, the likeliest, and all others as one class, the rest. Its
    probability is their sum; its derivatives are by a change that all their scores share.

    Attributes
    ----------
    row, target
        The numbers, from 0, of the row and of its true class.
    classes
        The numbers, from 0, of the classes with a column of their own, ascending.
    names
        ``(K,)`` names of the columns, the rest included.
    place
        The index of the true class among the names.
    n_rest
        The number of classes in the rest; 0 where every class has a column.
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

    def __repr__(self) -> str:
        C = len(self.classes) + self.n_rest
        slope = digits(float(self.gradient[self.place]))
        size = f"row {self.row}, {counted(C, 'class')}"
        return f"Derivation[{size}] nll {digits(self.nll)} gradient at the true class {slope}"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Return the derivation as plain text; a star marks the true class."""
        return as_text(self, steps(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything in the types of JSON; infinities as "inf" and "-inf", what the rest lacks as None."""
        return {field.name: plain(getattr(self, field.name), nan=None) for field in fields(self)}

    def _repr_html_(self) -> str:
        return as_html(self, steps(self))


def derive(
    row: int, scores: NDArray[Any], target: int, class_names: Sequence[str], *, shown: int = SHOWN
) -> Derivation:
    """Return the derivation for one row of scores ``(C,)`` of any real type that has a softmax.

    ``p_k = exp(f_k − m)/(1 + r)``, ``L = −ln p_y``, ``∂L/∂f_k = Σ_i ∂L/∂p_i · ∂p_i/∂f_k = p_k − 1[k = y]``. The numbers
    are those of ``softnll._core.equation``. With more than ``shown`` + 1 classes, ``shown`` have a column of their own.

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
