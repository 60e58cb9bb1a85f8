"""Find the convention that yields a printed loss: unit, reduction, rounding, smoothing, batches, or another loss."""

from __future__ import annotations

import math
from typing import Any

from softnll._core.words import counted
from softnll._inspection.diagnose.batches import ALL_SIZES, USUAL_SIZES, batch_conventions
from softnll._inspection.diagnose.conventions import Convention, conventions
from softnll._inspection.diagnose.finding import Evidence, Finding, Unseen, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.diagnose.printed_loss import Printed
from softnll._inspection.diagnose.printed_nan import not_finite

SHOWN = 5
TOO_MANY = 1.0  # conventions that would fit by accident: then the digits show nothing
RARE = 0.05  # of thousands of unusual batch sizes, one counts only where an accident is rarer than this
WINDOWS = (1.0, 0.1, 0.01)  # widths of the logarithm in which the conventions around the printed loss are counted


def printed_loss(obs: Observations) -> Finding | Unseen | None:
    """Find the conventions whose value prints as the printed loss."""
    printed = obs.printed
    if printed is not None and not math.isfinite(printed.value):
        return not_finite(obs, printed)
    if printed is None or len(obs.labelled) == 0:
        return Unseen("none given" if printed is None else "no labels")
    known, fitting = _fitting(obs, printed)
    true, rows = known[0].value, counted(len(obs.labelled), "row")
    numbers: dict[str, Any] = {
        "printed": printed.text,
        "mean_loss": true,
        "conventions": {each.code: each.value for each in fitting},
        "tried": len(known),
    }
    zero = abs(printed.value) <= printed.slack  # "0.0" is what any small number prints
    if fitting and fitting[0] is known[0] and not zero:
        return finding("loss-confirmed", Evidence(f"the mean over {rows} is {true:.6g}", **numbers))
    text = f"the mean loss over {rows} is {true:.6g} nats"
    text += "" if fitting and fitting[0] is known[0] else f", not {printed.text}"
    if not fitting:
        near = sorted(known, key=lambda each: abs(each.value - printed.value))[:3]
        numbers["nearest"] = {each.code: each.value for each in near}
        text += f"; the nearest of {len(known)} conventions: {_listed(near)}"
        return finding("loss-unexplained", Evidence(text, **numbers))
    accident = float(len(fitting)) if zero else _by_accident(known, fitting, printed)
    numbers["by_accident"] = accident
    if accident >= TOO_MANY:
        text += f"; of {len(known)} conventions tried {len(fitting)} print {printed.text}, {_few(accident)} by accident"
        return finding("loss-ambiguous", Evidence(f"{text}: {_listed(fitting)}", **numbers))
    text += f"; {printed.text} is {_listed(fitting)}. Of {len(known)} conventions tried, {_few(accident)} would fit "
    text += "these digits by accident"
    return finding(
        "loss-convention",
        Evidence(text, **numbers),
        convention=fitting[0].words,
        hint="; more digits of the printed loss would decide between these" if len(fitting) > 1 else "",
    )


def _fitting(obs: Observations, printed: Printed) -> tuple[list[Convention], list[Convention]]:
    """Return the conventions tried, and those that fit; unusual batch sizes are tried where no other one fits."""
    nll, counted = obs.everything["nll"], obs.everything.y >= 0
    known = list(conventions(obs.labelled, len(obs.everything)))
    fitting = _that_fit(known, printed)
    if not fitting:
        known += batch_conventions(nll, counted, USUAL_SIZES)
        fitting = _that_fit(known, printed)
    if not fitting:
        more = known + list(batch_conventions(nll, counted, ALL_SIZES))
        found = _that_fit(more, printed)
        if found and _by_accident(more, found, printed) < RARE:
            return more, found
    return known, fitting


def _that_fit(known: list[Convention], printed: Printed) -> list[Convention]:
    """Return the conventions that print as the printed loss."""
    return [each for each in known if printed.fits(each.value)]


def _by_accident(known: list[Convention], fitting: list[Convention], printed: Printed) -> float:
    """Return how many conventions would have these digits by accident.

    The other conventions near the printed value, scattered evenly in the logarithm over a window to either side of it,
    hit an interval of 2·slack/value so often; the window with the most counts.
    """
    value = printed.value
    apart = [
        abs(math.log(each.value / value)) for each in known if each.value * printed.value > 0 and each not in fitting
    ]
    return max(sum(each < width for each in apart) * printed.slack / (abs(value) * width) for width in WINDOWS)


def _listed(known: list[Convention]) -> str:
    """Return conventions with their values."""
    shown = "; ".join(f"{each.words} ({each.value:.6g})" for each in known[:SHOWN])
    return shown + (f"; and {len(known) - SHOWN} more" if len(known) > SHOWN else "")


def _few(count: float) -> str:
    """Return an expected count as text; a count below 0.01 as such."""
    return "fewer than 0.01" if count < 0.01 else f"about {count:.2g}"
