"""Findings about what the scores are: probabilities, logarithms, a softmax too many."""

from __future__ import annotations

import math

import numpy as np

from softnll.diagnosis.case import Case
from softnll.diagnosis.finding import Evidence, Finding, percent
from softnll.diagnosis.kinds import double_softmax
from softnll.functional import cross_entropy

__all__ = ["between_zero_and_one", "log_probabilities", "probabilities", "single_column", "softmax_twice"]

ENOUGH = 100  # scores, below which all of them in [0, 1] says little


def single_column(case: Case) -> Finding | None:
    """Find a single column: its softmax is 1."""
    if case.C != 1:
        return None
    return Finding(
        "single-column",
        "error",
        "The scores have one column: its softmax is always 1, its loss always 0",
        Evidence(f"the scores have shape {case.scores.shape}", rows=case.scores.shape[0], classes=1),
        "Nothing can be learned or measured.",
        "For a yes-or-no output x, use the two columns (0, x), or a binary cross-entropy.",
    )


def probabilities(case: Case) -> Finding | None:
    """Find rows in [0, 1] that sum to 1: the loss as if they were logits has a floor."""
    if not case.kind.exponentiated or case.C == 1:
        return None
    n, percent = len(case.sampled), case.kind.scale == 100
    away = float(np.abs(case.sampled.astype(np.float64).sum(axis=1) / case.kind.scale - 1).max())
    facts = {"rows": n, "largest_deviation": away, "floor": floor(case.C)}
    said = f"in {case.of_sample()}, scores lie in [0, {case.kind.scale:g}] and sum to {case.kind.scale:g} within "
    said += f"{away * case.kind.scale:.1g}"
    if len(case.labelled):
        facts |= {"loss_as_logits": _as_given(case), "loss": float(np.nanmean(case.survey.nll))}
        said += (
            f"; their mean loss is {facts['loss']:.4g} nats, taken for logits it would be {facts['loss_as_logits']:.4g}"
        )
    return Finding(
        "probabilities-as-logits",
        "error",
        f"The scores are probabilities{' in percent' * percent}: softmax has been applied already",
        Evidence(said, **facts),
        "A cross-entropy that expects logits applies softmax again: every row gives nearly the same probability "
        "to every "
        f"class, gradients are small, and the loss cannot fall below ln(e + C \N{MINUS SIGN} 1) \N{MINUS SIGN} 1 = "
        f"{floor(case.C):.4f}."
        if not percent
        else "A cross-entropy that expects logits makes near certainties of percentages.",
        "Pass the scores from before the softmax. The rest of this diagnosis takes the logarithm of the probabilities.",
    )


def floor(C: int) -> float:
    """Return the least loss that softmax leaves when it is applied twice."""
    return math.log(math.e + C - 1) - 1


def log_probabilities(case: Case) -> Finding | None:
    """Find Σ bˢ = 1 in each row: logarithms of probabilities, natural or of another base, or with their sign turned."""
    if case.kind.code != "log-probabilities":
        return None
    rows, base, sign = case.of_sample(), case.kind.base, case.kind.sign
    shown = "e" if base == math.e else f"{base:g}"
    evidence = Evidence(
        f"in {rows}, {'-' if sign < 0 else ''}scores are at most 0 and {shown} to their power sums to 1",
        rows=len(case.sampled),
        base=base,
        sign=sign,
    )
    if sign < 0:
        return Finding(
            "negative-log-probabilities",
            "error",
            "The scores are negative log-probabilities: the smallest belongs to the likeliest class",
            evidence,
            "Softmax and argmax of them choose the least likely class.",
            "Turn the sign. The rest of this diagnosis does.",
        )
    if base != math.e:
        return Finding(
            "log-base-of-scores",
            "error",
            f"The scores are logarithms to base {shown} of probabilities",
            evidence,
            f"Softmax takes the natural base: it sees them with a temperature of {1 / math.log(base):.4g}.",
            f"Multiply by ln {shown} = {math.log(base):.6f}. The rest of this diagnosis does.",
        )
    return Finding(
        "log-probabilities-as-logits",
        "note",
        "The scores are log-probabilities: log_softmax has been applied already",
        evidence,
        "Softmax of a log_softmax changes nothing: the loss is right, and is paid for twice in time and rounding. "
        "Their logarithm would be an error.",
        "Pass logits to a cross-entropy, or these to nll_loss.",
    )


def softmax_twice(case: Case) -> Finding | None:
    """Find confidences that gather at the ceiling e/(e + C − 1) that a softmax of a softmax has."""
    share = double_softmax(case.logits)
    if share is None:
        return None
    C = case.C
    ceiling = math.e / (math.e + C - 1)
    highest = float(np.nanmax(case.survey.confidence))
    facts = {"ceiling": ceiling, "highest_confidence": highest, "share_at_ceiling": share, "floor": floor(C)}
    said = f"no confidence passes {highest:.4f}, and a softmax of probabilities cannot pass e/(e + C - 1) = "
    said += f"{ceiling:.4f}; {percent(share)} of {case.of_sample()} are near that ceiling"
    if len(case.labelled):
        facts["loss"] = float(np.nanmean(case.survey.nll))
        said += f"; the mean loss is {facts['loss']:.4f}, the least possible {facts['floor']:.4f}"
    return Finding(
        "softmax-twice",
        "error",
        "Softmax has been applied twice",
        Evidence(said, **facts),
        f"The loss cannot fall below ln(e + C \N{MINUS SIGN} 1) \N{MINUS SIGN} 1 = {facts['floor']:.4f}, and gradients "
        "are small where they should be large.",
        "Remove one softmax: usually the one in the model, where the loss has its own.",
    )


def between_zero_and_one(case: Case) -> Finding | None:
    """Find scores that all lie in [0, 1] and are no softmax: sigmoids, or similarities."""
    low, high = case.survey.low, case.survey.high
    if case.scores.shape[0] * case.C < ENOUGH or case.kind.code != "logits" or not (low.min() >= 0 and high.max() <= 1):
        return None
    return Finding(
        "scores-between-0-and-1",
        "note",
        "All scores lie between 0 and 1, and do not sum to 1",
        Evidence(
            f"the smallest score is {low.min():.4g}, the largest {high.max():.4g}",
            smallest=float(low.min()),
            largest=float(high.max()),
            floor=floor(case.C),
        ),
        f"As logits they cannot bring the loss below {floor(case.C):.4f}: no class can be more than 1 ahead.",
        "If they are outputs of a sigmoid, pass what went into it; if they are similarities, divide by a temperature.",
    )


def _as_given(case: Case) -> float:
    """Return the mean loss of the sample's scores taken for logits."""
    y = case.y[case.sample]
    return float(cross_entropy(case.sampled[y >= 0], y[y >= 0])) if (y >= 0).any() else math.nan
