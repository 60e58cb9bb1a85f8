"""Choose C on held-out rows: fits from a strong penalty to weaker ones, each started where the last one ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from softnll._classifier.estimator import SoftmaxClassifier
from softnll._classifier.prepare import folds, held_out_rows, with_mirrored
from softnll._numpy.blas import multiply
from softnll._numpy.functional import cross_entropy
from softnll.data import Dataset

_ENOUGH = 5000  # rows from which one part of them, held out, is enough; fewer take turns
_SHARE, _MOST = 0.1, 5000  # share of the rows that is held out, and the most rows
_FOLDS = 5
_CANDIDATES = 16
_STALE = 4  # iterations in which the held-out loss must improve by
_IMPROVEMENT = 5e-4  # this share of itself, or the fit of a candidate ends
_CLEARLY = 2.0  # standard errors by which the held-out loss is worse where the search ends at once


@dataclass(frozen=True)
class Candidate:
    """A value of C and what it gave."""

    C: float
    iterations: int
    loss: float  # mean NLL of the rows that were fitted
    held_out_loss: float  # mean NLL and accuracy of the rows held out
    held_out_accuracy: float


@dataclass(frozen=True)
class ChosenStrength:
    """The chosen C, all candidates in the order of the search, and how many rows judged them."""

    C: float
    candidates: tuple[Candidate, ...]
    held_out: int
    folds: int  # 1 where one part of the rows was held out
    start: tuple[NDArray[Any], NDArray[Any]] | None  # coefficients and intercept that the final fit starts from

    def describe(self) -> str:
        """Return the choice and its reason in one sentence."""
        chosen = next(each for each in self.candidates if each.C == self.C)
        lowest = min(self.candidates, key=lambda each: each.held_out_loss)
        rows = f"{self.held_out} held-out examples" if self.folds == 1 else f"{self.folds} parts held out in turn"
        why = f"the lowest of {len(self.candidates)}"
        if chosen is not lowest:
            why = f"within one standard error of the lowest, {lowest.held_out_loss:.4f} at C = {lowest.C:g},"
        return (
            f"C = {self.C:g}: mean NLL {chosen.held_out_loss:.4f}, accuracy {chosen.held_out_accuracy:.4f} on {rows}, "
            f"{why} from C = {self.candidates[0].C:g} to {self.candidates[-1].C:g}"
        )


@dataclass
class Part:
    """Rows to fit and rows held out; ``model`` is the classifier of this part."""

    X: NDArray[Any]
    y: NDArray[np.int64]
    held_rows: NDArray[Any]
    held_labels: NDArray[np.int64]
    model: SoftmaxClassifier

    def judge(self, coef: NDArray[Any], intercept: NDArray[Any]) -> tuple[NDArray[Any], float]:
        """Return the losses of the rows held out and their accuracy."""
        scores = scores_of(self.held_rows, coef, intercept)
        losses = cross_entropy(scores, self.held_labels, reduction="none")
        return losses, float((scores.argmax(axis=1) == self.held_labels).mean())


class Progress(NamedTuple):
    """An iteration of the search."""

    C: float
    iteration: int
    loss: float  # mean NLL of the rows that are fitted
    held_out_loss: float
    held_out_accuracy: float
    part: Part | None = None
    coef: Any = None
    intercept: Any = None


def split(labels: NDArray[np.int64], seed: int) -> list[NDArray[np.bool_]]:
    """Return the rows that are held out: in one part of many rows, in five parts in turn of fewer than 5000.

    The only row of a class is never held out.

    Examples
    --------
    >>> [int(held.sum()) for held in split(np.arange(100) % 2, seed=0)]
    [20, 20, 20, 20, 20]
    """
    random = np.random.default_rng(seed)
    if len(labels) >= _ENOUGH:
        return [held_out_rows(labels, min(_SHARE, _MOST / len(labels)), random)]
    fold = folds(labels, _FOLDS, random)
    return [fold == k for k in range(_FOLDS) if (fold == k).any()]


def arranged(data: Dataset, held: list[NDArray[np.bool_]], *, mirror: bool) -> Dataset:
    """Return the examples in the order that `parts_of` expects, with ``mirror`` and their mirror images.

    Where one part is held out it comes first, and its mirror images last: what is fitted and what is held out are then
    slices of one array, and no fit sees the mirror image of a held-out image.
    """
    first = 0
    if len(held) == 1:
        order = np.argsort(~held[0], kind="stable")
        data, first = replace(data, inputs=data.inputs[order], labels=data.labels[order]), int(held[0].sum())
    return with_mirrored(data, first) if mirror else data


def parts_of(
    X: NDArray[Any], y: NDArray[np.int64], held: list[NDArray[np.bool_]], new_model: Callable[[], SoftmaxClassifier]
) -> list[Part]:
    """Return the parts of `arranged` examples."""
    if len(held) == 1:
        n, mirrored = int(held[0].sum()), len(y) == 2 * len(held[0])
        fit = slice(n, len(y) - n if mirrored else None)
        return [Part(X[fit], y[fit], X[:n], y[:n], new_model())]
    parts = []
    for each in held:
        fitted, judged = np.resize(~each, len(y)), np.flatnonzero(each)
        parts.append(Part(X[fitted], y[fitted], X[judged], y[judged], new_model()))
    return parts


def first_strength(X: NDArray[Any]) -> float:
    """Return the C from which the search goes up: the penalty is then as curved as the loss, or more.

    That is ``1 / (N · mean of X²)`` of centred features, rounded down to 1 or 3 times a power of ten; 0 where the
    features do not vary.
    """
    step = max(1, (1 << 24) // max(1, X.shape[1]))
    total = sum(float(np.einsum("nh,nh->", block, block)) for block in _blocks(X, step))
    return 0.0 if total == 0 else _round_numbers_from(X.shape[1] / total)


def _blocks(X: NDArray[Any], step: int) -> Iterator[NDArray[Any]]:
    """Yield the rows, some at a time."""
    return (X[start : start + step] for start in range(0, len(X), step))


def _round_numbers_from(value: float) -> float:
    """Return the largest of 1 and 3 times powers of ten that is not larger than a value."""
    exponent = int(np.floor(np.log10(value)))
    return float(f"{3 if value >= 3 * 10.0**exponent else 1}e{exponent}")


def _weaker(C: float) -> float:
    """Return the next of 1 and 3 times powers of ten."""
    digit, _, exponent = f"{C:.0e}".partition("e")
    return float(f"3e{exponent}" if digit == "1" else f"1e{int(exponent) + 1}")


def choose(parts: list[Part], first: float, watch: Callable[[Progress], None]) -> ChosenStrength:
    """Return the C of the strongest penalty whose held-out loss is the lowest, up to one standard error.

    C grows by factors of about 3. The search ends where the loss is clearly worse than the lowest (by two standard
    errors of the mean difference), or was not lower twice. The fit of one candidate ends early where the held-out loss
    has stopped to improve.

    Parameters
    ----------
    parts
        The rows to fit and to judge by.
    first
        The smallest C.
    watch
        Called after each iteration; StopIteration from it ends the search.

    Notes
    -----
    Breiman, Friedman, Olshen, Stone (1984), "Classification and regression trees", 3.4.3, for the rule of one standard
    error; here it is that of the difference on the same rows.
    """
    candidates: list[Candidate] = []
    judged: list[NDArray[Any]] = []
    C, lowest, start, stopped = first, 0, None, False
    while len(candidates) < _CANDIDATES and not stopped:
        fitted = [_fit(part, C, watch) for part in parts]
        stopped = any(each[2] for each in fitted)
        found = [part.judge(part.model.coef_, part.model.intercept_) for part in parts]
        judged.append(np.concatenate([losses for losses, _ in found]))
        accuracy = float(np.average([each for _, each in found], weights=[len(part.held_labels) for part in parts]))
        iterations, loss = sum(each[0] for each in fitted), float(np.mean([each[1] for each in fitted]))
        candidates.append(Candidate(C, iterations, loss, float(judged[-1].mean()), accuracy))
        if len(parts) == 1 and (start is None or candidates[-1].held_out_loss < candidates[lowest].held_out_loss):
            start = (parts[0].model.coef_.copy(), parts[0].model.intercept_.copy())
        lowest = int(np.argmin([each.held_out_loss for each in candidates]))
        if len(candidates) - 1 - lowest == 2 or _errors_above(judged[-1], judged[lowest]) > _CLEARLY:
            break
        C = _weaker(C)
    chosen = next(k for k, losses in enumerate(judged) if _errors_above(losses, judged[lowest]) <= 1)
    return ChosenStrength(candidates[chosen].C, tuple(candidates), len(judged[0]), len(parts), start)


def _errors_above(losses: NDArray[Any], lowest: NDArray[Any]) -> float:
    """Return by how many standard errors of the mean difference the losses of one candidate are above another's."""
    difference = np.asarray(losses, np.float64) - lowest
    mean, error = float(difference.mean()), float(difference.std()) / np.sqrt(len(difference))
    return mean / error if error > 0 else 0.0


def _fit(part: Part, C: float, watch: Callable[[Progress], None]) -> tuple[int, float, bool]:
    """Fit a part's model; return iterations, loss and whether ``watch`` ended it."""
    last, ended, recent = Progress(C, 0, float("nan"), float("nan"), 0.0), False, []

    def after(iteration: int, loss: float, coef: NDArray[Any], intercept: NDArray[Any]) -> None:
        nonlocal last, ended
        losses, accuracy = part.judge(coef, intercept)
        last = Progress(C, iteration, loss, float(losses.mean()), accuracy, part, coef, intercept)
        try:
            watch(last)
        except StopIteration:
            ended = True
            raise
        recent.append(last.held_out_loss)
        if len(recent) > _STALE and recent[-1 - _STALE] - recent[-1] < _IMPROVEMENT * abs(recent[-1]):
            raise StopIteration

    part.model.set_params(C=C).fit(part.X, part.y, callback=after)
    return last.iteration, last.loss, ended


def scores_of(X: NDArray[Any], coef: NDArray[Any], intercept: NDArray[Any]) -> NDArray[Any]:
    """Return ``X Wᵀ + b`` in the type of X, by the BLAS of the fit: another one's idle threads would slow it."""
    scores = np.empty((len(X), len(coef)), X.dtype)
    multiply(X, np.ascontiguousarray(coef, X.dtype).T, scores)
    scores += intercept.astype(X.dtype)
    return scores
