"""What an explanation's numbers say, in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from softnll.contributions import contributions
from softnll.data.text import printable
from softnll.functional import nll_loss
from softnll.stages import rounded_loss

if TYPE_CHECKING:
    from softnll.explanation import Explanation, Losses

__all__ = ["sentences"]

MOST_ROWS = 6


def sentences(told: Explanation, *, bits: bool = False) -> list[str]:
    """Return confidence, unhappiness and ties row by row, then the whole, then why rounded tables differ."""
    N = len(told.logits)
    said = [_row(told, n, bits) for n in range(min(N, MOST_ROWS))]
    if N > MOST_ROWS:
        said.append(f"And {N - MOST_ROWS} more rows like these.")
    if told.losses is not None:
        said.append(_whole(told, told.losses, bits))
        said.append(
            "The gradient p - onehot says how to lower the loss: raise the true class's score (its entry, p - 1, is "
            "never positive), lower every other in proportion to its probability."
        )
        rounding = _rounding(told, told.losses) if N <= MOST_ROWS and not bits else ""
        if rounding:
            said.append(rounding)
    return said


def _row(told: Explanation, n: int, bits: bool) -> str:
    """Say what one row shows."""
    names = [printable(name) for name in told.class_names]
    best = int(told.prediction[n])
    confidence = _percent(float(told.confidence[n]))
    if told.ties[n]:
        tied = [names[c] for c in np.flatnonzero(told.logits[n] == told.logits[n].max())]
        said = f"{_list(tied)} tie at {confidence} each, and the first of them, {names[best]}, counts as the prediction"
    else:
        said = f"{confidence} {names[best]}"
        if len(names) > 1:
            others = told.probabilities[n].copy()
            others[best] = -1
            said += f", ahead of {names[int(others.argmax())]} at {_percent(float(others.max()))}"
    if told.losses is None:
        return f"Row {n}: {said}."
    true = int(told.losses.targets[n])
    verdict = "right" if true == best else f"wrong, it is {names[true]}"
    return f"Row {n}: {said}; {verdict}. Unhappiness {_loss(float(told.losses.nll[n]), bits)}{_rival(told, n, bits)}."


def _rival(told: Explanation, n: int, bits: bool) -> str:
    """Say which other class costs the most, where there are several and it shows."""
    losses = told.losses
    if losses is None or told.logits.shape[1] < 3 or not 0.005 <= losses.nll[n] < math.inf:
        return ""
    lower = contributions(told.logits[n : n + 1], losses.targets[n : n + 1])[0]
    rival = int(lower.argmax())
    if not 0.005 <= lower[rival] < math.inf:
        return ""
    return f"; without {printable(told.class_names[rival])} it would be {_loss(float(lower[rival]), bits)} less"


def _whole(told: Explanation, losses: Losses, bits: bool) -> str:
    """Say what the total and the mean mean."""
    N, C = told.logits.shape
    right = int((told.prediction == losses.targets).sum())
    said = f"Right in {right} of {N}. Total {_loss(losses.total, bits)}, mean {_loss(losses.mean, bits)}"
    said += f": as if the true class had {_percent(math.exp(-losses.mean))} every time"
    said += f"; a guess without any knowledge costs {_loss(math.log(C), bits)} a row."
    if N > 1 and 0 < losses.total < math.inf:
        worst = int(losses.nll.argmax())
        share = _percent(float(losses.nll[worst]) / losses.total)
        said += f" Row {worst} is the unhappiest, with {share} of the total."
    return said


def _rounding(told: Explanation, losses: Losses) -> str:
    """Say what comes out if probabilities are rounded to two digits before the logarithm, where that shows."""
    with np.errstate(divide="ignore"):  # a probability that rounds to 0 makes the loss infinite: worth saying
        logs = np.log(np.round(told.probabilities.astype(np.float64), 2))
    wrong = nll_loss(logs, losses.targets, reduction="none")
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


def _percent(share: float) -> str:
    """Return a share in percent; one that is neither nothing nor all is not shown as such."""
    text = f"{100 * share:.1f} %"
    if share < 1 and text == "100.0 %":
        return "over 99.9 %"
    return "under 0.1 %" if share > 0 and text == "0.0 %" else text


def _list(names: list[str]) -> str:
    """Return names in a row: a, b and c."""
    if len(names) > 4:
        names = [*names[:3], f"{len(names) - 3} more"]
    return f"{', '.join(names[:-1])} and {names[-1]}"
