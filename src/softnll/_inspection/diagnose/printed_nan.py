"""A printed loss of NaN or infinity: which rows of these scores and labels give it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from softnll._inspection.diagnose.finding import Evidence, Finding, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.diagnose.printed_loss import Printed

OVERFLOW = {"float16": 11.0899, "bfloat16": 88.7228, "float32": 88.7228}  # ln of the largest number


def not_finite(obs: Observations, printed: Printed) -> Finding:
    """Return which rows make a loss NaN or infinite, which formula would, or that these scores and labels do not."""
    nan = math.isnan(printed.value)
    known = obs.everything.y >= 0
    lost = known & ~obs.everything["usable"]
    infinite = known & np.isposinf(obs.everything["nll"]) if known.any() else lost
    facts: dict[str, Any] = {"printed": printed.text}
    if not known.any():
        if not (obs.has_classes and nan):
            text = "no row has a label that is a class, so that no loss was computed here"
            return finding("loss-not-finite/unexplained", Evidence(text, **facts))
        text = f"none of {len(known)} rows has a label that counts: the mean is 0 divided by 0"
        return finding("loss-not-finite/no-rows", Evidence(text, rows=0, **facts))
    for which, what in (
        (lost, "no softmax: NaN, +inf or nothing but -inf"),
        (infinite, "a probability of 0 at the label"),
    ):
        if which.any() and not (nan and what.startswith("a prob")):
            row = int(which.argmax())
            facts |= {"rows": int(which.sum()), "first": row}
            text = f"{facts['rows']} of {len(known)} rows have {what}; the first is row {row}"
            return finding("loss-not-finite", Evidence(text, **facts))
    masked = obs.columns.bad.get("-inf", (0, 0, 0))[0]
    if nan and (masked or infinite.any()):
        text = (
            f"{masked} scores are -inf"
            if masked
            else f"{int(infinite.sum())} rows have a probability of 0 at the label"
        )
        text += ": 0 times the logarithm of a probability of 0 is NaN, in a sum over all classes"
        return finding("loss-not-finite/zero", Evidence(text, **facts))
    most = OVERFLOW.get(obs.scores.dtype.name, OVERFLOW["float32"])
    high, worst = float(obs.columns.high.max()), float(np.nanmax(obs.labelled["nll"]))
    if high > most or worst > OVERFLOW["float32"]:
        text = f"the largest score is {high:.5g}, the largest loss {worst:.5g}; in float32, exp of more than 88.7 is "
        text += "infinite and exp of less than -104 is 0"
        return finding("loss-not-finite/overflow", Evidence(text, **facts))
    text = f"the mean loss of these {len(obs.labelled)} rows is {obs.labelled.mean:.6g}, every one of them finite"
    return finding("loss-not-finite/unexplained", Evidence(text, mean_loss=obs.labelled.mean, **facts))
