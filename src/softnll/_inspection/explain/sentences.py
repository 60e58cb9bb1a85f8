"""Sentences about the numbers of an explanation."""

from __future__ import annotations

import math

import numpy as np

from softnll._core.words import counted
from softnll._inspection.explain.contributions import contributions
from softnll._inspection.explain.numbers import FEW_ROWS, ExplanationNumbers, Losses
from softnll._inspection.format import percent, rounded_loss
from softnll.data.text import printable


def sentences(explained: ExplanationNumbers, *, bits: bool = False) -> list[str]:
    """Return sentences on each row's prediction and loss, on the total, and on tables with rounded probabilities."""
    N = len(explained.logits)
    found = [_row(explained, int(n), bits) for n in explained.order[:FEW_ROWS]]
    if N > FEW_ROWS:
        happier = "more" if explained.losses is None else "happier"
        found.append(f"And {counted(N - FEW_ROWS, f'{happier} row')}.")
    if explained.losses is not None:
        found.append(_whole(explained, explained.losses, bits))
        found.append(
            "The gradient p - onehot says how to lower the loss: raise the true class's score (its entry, p - 1, is "
            "never positive), lower every other in proportion to its probability."
        )
        rounding = _rounding(explained, explained.losses) if N <= FEW_ROWS and not bits else ""
        if rounding:
            found.append(rounding)
    return found


def _row(explained: ExplanationNumbers, n: int, bits: bool) -> str:
    """Return the sentence about one row: prediction, confidence, and loss."""
    names = [printable(name) for name in explained.class_names]
    best = int(explained.prediction[n])
    confidence = percent(float(explained.confidence[n]))
    if explained.ties[n]:
        tied = [names[c] for c in np.flatnonzero(explained.logits[n] == explained.logits[n].max())]
        text = f"{_list(tied)} tie at {confidence} each, and the first of them, {names[best]}, counts as the prediction"
    else:
        text = f"{confidence} {names[best]}"
        if len(names) > 1:
            others = explained.probabilities[n].copy()
            others[best] = -1
            text += f", ahead of {names[int(others.argmax())]} at {percent(float(others.max()))}"
    if explained.losses is None:
        return f"Row {n}: {text}."
    true = int(explained.losses.targets[n])
    verdict = "right" if true == best else f"wrong, it is {names[true]}"
    loss = _loss(float(explained.losses.nll[n]), bits)
    return f"Row {n}: {text}; {verdict}. Unhappiness {loss}{_rival(explained, n, bits)}."


def _rival(explained: ExplanationNumbers, n: int, bits: bool) -> str:
    """Return by how much the loss would fall without the most costly other class; "" below 0.005 nats."""
    losses = explained.losses
    if losses is None or explained.logits.shape[1] < 3 or not 0.005 <= losses.nll[n] < math.inf:
        return ""
    lower = contributions(explained.logits[n : n + 1], losses.targets[n : n + 1])[0]
    rival = int(lower.argmax())
    if not 0.005 <= lower[rival] < math.inf:
        return ""
    return f"; without {printable(explained.class_names[rival])} it would be {_loss(float(lower[rival]), bits)} less"


def _whole(explained: ExplanationNumbers, losses: Losses, bits: bool) -> str:
    """Return the sentences about accuracy, total and mean."""
    N, C = explained.logits.shape
    right = int((explained.prediction == losses.targets).sum())
    text = f"Right in {right} of {N}. Total {_loss(losses.total, bits)}, mean {_loss(losses.mean, bits)}"
    text += f": as if the true class had {percent(math.exp(-losses.mean))} every time"
    text += f"; a guess without any knowledge costs {_loss(math.log(C), bits)} a row."
    if N > 1 and 0 < losses.total < math.inf:
        worst = int(losses.nll.argmax())
        share = percent(float(losses.nll[worst]) / losses.total)
        text += f" Row {worst} is the unhappiest, with {share} of the total."
    return text


def _rounding(explained: ExplanationNumbers, losses: Losses) -> str:
    """Return the losses of probabilities rounded to two digits; "" where they look the same."""
    with np.errstate(divide="ignore"):  # a probability that rounds to 0 has an infinite loss, which the sentence shows
        logs = np.log(np.round(explained.probabilities.astype(np.float64), 2))
    wrong = -logs[np.arange(len(logs)), losses.targets]
    if not np.isfinite(losses.total) or all(f"{a:.2f}" == f"{b:.2f}" for a, b in zip(wrong, losses.nll, strict=True)):
        return ""
    early = " / ".join(f"{loss:.2f}" for loss in wrong)
    late = " / ".join(f"{loss:.2f}" for loss in losses.nll)
    total = sum(round(float(loss), 2) for loss in wrong)
    return (
        f"If you have seen {early}, total {total:.2f}, for this table: there the probabilities were rounded to two "
        f"digits before the logarithm. Rounded last, the losses are {late}, total {losses.total:.2f}."
    )


def _loss(value: float, bits: bool) -> str:
    """Return a loss with its unit."""
    return f"{rounded_loss(value / math.log(2))} bits" if bits else f"{rounded_loss(value)} nats"


def _list(names: list[str]) -> str:
    """Return names in a row: a, b and c."""
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}"
