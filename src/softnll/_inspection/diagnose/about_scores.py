"""Findings about the kind of the scores: probabilities, their logarithms, softmax applied twice."""

from __future__ import annotations

import math

import numpy as np

from softnll._inspection.diagnose.chance import ALPHA, likelihood_ratio, related
from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.diagnose.score_kind import double_softmax
from softnll._inspection.format import percent
from softnll._inspection.survey import Vector
from softnll._numpy.functional import cross_entropy

LEAST = 1e-2  # of a uniform probability: the least of an inner softmax, so that one label at 0 does not decide
TEMPERATURES = tuple(2.0**-k for k in range(1, 9))  # of a classifier that is merely unsure
ENOUGH = 100  # scores, below which all of them may lie in [0, 1] by chance


def single_column(obs: Observations) -> Finding | None:
    """Find a single column: its softmax is 1."""
    if obs.C != 1:
        return None
    return finding(
        "single-column", Evidence(f"the scores have shape {obs.scores.shape}", rows=obs.scores.shape[0], classes=1)
    )


def probabilities(obs: Observations) -> Finding | None:
    """Find rows in [0, 1] that sum to 1: the loss as if they were logits has a floor."""
    if obs.kind.code != "probabilities" or obs.C == 1:
        return None
    n = len(obs.sampled)
    away = float(np.abs(obs.sampled.astype(np.float64).sum(axis=1) / obs.kind.scale - 1).max())
    facts = {"rows": n, "largest_deviation": away, "floor": floor(obs.C)}
    text = f"in {obs.of_sample()}, scores lie in [0, {obs.kind.scale:g}] and sum to {obs.kind.scale:g} within "
    text += f"{away * obs.kind.scale:.1g}"
    if len(obs.labelled):
        facts |= {"loss_as_logits": _as_given(obs), "loss": obs.labelled.mean}
        text += (
            f"; their mean loss is {facts['loss']:.4g} nats, taken for logits it would be {facts['loss_as_logits']:.4g}"
        )
    name = {1.0: "probabilities-as-logits", 100.0: "probabilities-as-logits/percent"}.get(obs.kind.scale)
    return finding(name or "probabilities-as-logits/scaled", Evidence(text, **facts), scale=obs.kind.scale)


def floor(C: int) -> float:
    """Return the least loss that softmax leaves when it is applied twice."""
    return math.log(math.e + C - 1) - 1


def complements(obs: Observations) -> Finding | None:
    """Find rows of 1 − p, which sum to C − 1."""
    if obs.kind.code != "complements":
        return None
    text = f"in {obs.of_sample()}, scores lie in [0, 1] and sum to C - 1 = {obs.C - 1}"
    return finding("complements-as-logits", Evidence(text, rows=len(obs.sampled), classes=obs.C))


def hard(obs: Observations) -> Finding | None:
    """Find rows of one 1 and zeros: predictions in place of scores."""
    if obs.kind.code != "hard":
        return None
    text = f"in {obs.of_sample()}, each row of {obs.C} has one {obs.kind.scale:g} and zeros"
    facts: dict[str, float] = {"rows": len(obs.sampled)}
    if len(obs.labelled):
        facts["agreement"] = obs.labelled.accuracy
        text += f"; the label is at it in {percent(obs.labelled.accuracy)}"
    return finding("hard-predictions", Evidence(text, **facts))


def along_rows(obs: Observations) -> Finding | None:
    """Find columns that sum to 1, or to the number of batches."""
    if obs.kind.code not in {"along-rows", "log-along-rows"}:
        return None
    batches = int(obs.kind.scale)
    logarithms = obs.kind.code == "log-along-rows"
    text = f"each of the {obs.C} columns{' of exp(score)' * logarithms} sums to {batches} over the "
    text += f"{obs.scores.shape[0]} rows, and no row to 1"
    if batches > 1:
        text += f": a softmax over the rows in {batches} batches"
    evidence = Evidence(text, batches=batches, rows=obs.scores.shape[0])
    return finding("softmax-along-rows", evidence, used="the scores as they are" if logarithms else "the logarithm")


def log_probabilities(obs: Observations) -> Finding | None:
    """Find Σ bˢ = 1 in each row: logarithms of probabilities, natural or of another base, or with their sign turned."""
    if obs.kind.code != "log-probabilities":
        return None
    rows, base, sign = obs.of_sample(), obs.kind.base, obs.kind.sign
    shown = "e" if base == math.e else f"{base:.6g}"
    evidence = Evidence(
        f"in {rows}, {'-' if sign < 0 else ''}scores are at most 0 and {shown} to their power sums to 1",
        rows=len(obs.sampled),
        base=base,
        sign=sign,
    )
    if sign < 0:
        return finding(f"negative-log-probabilities{'' if base == math.e else '/base'}", evidence)
    if base != math.e:
        return finding("log-base-of-scores", evidence, temperature=1 / math.log(base), factor=math.log(base))
    return finding("log-probabilities-as-logits", evidence)


def softmax_twice(obs: Observations) -> Finding | None:
    """Find confidences that gather at the ceiling e/(e + C − 1) that a softmax of a softmax has.

    Votes of an ensemble may gather there too: labels that have a relation to the scores must fit the inner softmax
    better, by a likelihood ratio.
    """
    double = double_softmax(obs.logits)
    if double is None or not _inner_fits(obs, double[1], gathered=double[2]):
        return None
    share, C = double[0], obs.C
    ceiling = math.e / (math.e + C - 1)
    highest = float(obs.usable["confidence"].max())
    facts = {"ceiling": ceiling, "highest_confidence": highest, "share_at_ceiling": share, "floor": floor(C)}
    text = f"no confidence passes {highest:.4f}, and a softmax of probabilities cannot pass e/(e + C - 1) = "
    text += f"{ceiling:.4f}; {percent(share)} of {obs.of_sample()} are near that ceiling"
    if not double[2]:
        text += ", and the labels fit the softmax inside better than any temperature of these scores"
    if len(obs.labelled):
        facts["loss"] = obs.labelled.mean
        text += f"; the mean loss is {facts['loss']:.4f}, the least possible {facts['floor']:.4f}"
    return finding("softmax-twice", Evidence(text, **facts))


def _inner_fits(obs: Observations, inner: Vector, *, gathered: bool) -> bool:
    """Whether the labels fit the inner softmax clearly better.

    Where confidences gather at the ceiling, the labels must only not speak against it: True without a relation to the
    scores. Where they do not, the inner softmax must be better than every temperature of the outer one.
    """
    known = obs.y >= 0
    y, outer = obs.y[known], obs.logits[known]
    if not related(y, outer.argmax(axis=1), obs.C):
        return gathered
    losses = [float(cross_entropy(outer, y, reduction="sum"))]
    if not gathered:
        losses += [float(cross_entropy(outer, y, temperature=tau, reduction="sum")) for tau in TEMPERATURES]
    with np.errstate(divide="ignore"):
        logits = np.log(np.maximum(inner[known], LEAST / obs.C))
    gains = [min(losses) - float(cross_entropy(power * logits, y, reduction="sum")) for power in (0.5, 1.0)]
    return likelihood_ratio(gains) <= ALPHA


def between_zero_and_one(obs: Observations) -> Finding | None:
    """Find scores that all lie in [0, 1] and are no softmax: sigmoids, or similarities."""
    low, high = obs.columns.low, obs.columns.high
    if obs.scores.shape[0] * obs.C < ENOUGH or obs.kind.code != "logits" or not (low.min() >= 0 and high.max() <= 1):
        return None
    return finding(
        "scores-between-0-and-1",
        Evidence(
            f"the smallest score is {low.min():.4g}, the largest {high.max():.4g}",
            smallest=float(low.min()),
            largest=float(high.max()),
            floor=floor(obs.C),
        ),
    )


def _as_given(obs: Observations) -> float:
    """Return the mean loss of the sample's scores taken for logits."""
    y = obs.y
    return float(cross_entropy(obs.sampled[y >= 0], y[y >= 0])) if (y >= 0).any() else math.nan
