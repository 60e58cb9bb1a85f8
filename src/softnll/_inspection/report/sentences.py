"""Sentences about the figures of a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from softnll._core.words import counted
from softnll._inspection.format import percent, rounded_loss

_WELL = 0.02  # ECE up to which confidence and accuracy agree


def sentences(figures: Mapping[str, Any]) -> list[str]:
    """Return sentences about the figures that ``summary`` returns; what is not known has none.

    Examples
    --------
    >>> known = {"examples": 200, "classes": 10, "accuracy": 0.95, "nll": 0.2, "chance_nll": 2.302585, "ece": 0.01}
    >>> sentences(known)[0]
    '200 examples of 10 classes; 95.00 % are predicted right.'
    """
    found = [_right, _loss, _worst, _calibration, _temperature, _averages, _suspicious, _ignored]
    return [text for each in found if (text := each(_Known(figures)))]


class _Known(dict[str, Any]):
    """Figures by name; what is not finite, or not there, is None."""

    def __missing__(self, name: str) -> None:
        return None


def _right(known: _Known) -> str:
    """Return the size of the data and the accuracy."""
    size = f"{known['examples']:,} {'example' if known['examples'] == 1 else 'examples'}"
    accuracy = "" if known["accuracy"] is None else f"; {100 * known['accuracy']:.2f} % are predicted right"
    return f"{size} of {counted(known['classes'], 'class')}{accuracy}."


def _loss(known: _Known) -> str:
    """Return the mean loss beside those of two guesses."""
    if known["nll"] is None:
        return "The mean loss is not finite: a true class has the probability 0."
    text = f"The mean loss is {known['nll']:.4f} nats"
    if known["perplexity"] is not None:
        text += f", a perplexity of {known['perplexity']:.4g}"
    text += f"; a guess without any knowledge costs {known['chance_nll']:.4f}"
    prior = known["prior_nll"]
    return f"{text}, one by the classes' frequencies {prior:.4f}." if prior is not None else f"{text}."


def _worst(known: _Known) -> str:
    """Return how much of the loss few examples have."""
    share = known["worst_hundredth_of_loss"]
    return "" if share is None else f"The unhappiest hundredth of the examples has {percent(share)} of the loss."


def _calibration(known: _Known) -> str:
    """Return how confidence and accuracy agree."""
    ece, confidence, accuracy = known["ece"], known["confidence"], known["accuracy"]
    if ece is None or confidence is None or accuracy is None:
        return ""
    verdict = "agree" if ece <= _WELL else "differ: too sure" if confidence > accuracy else "differ: too modest"
    brier = "" if known["brier"] is None else f", Brier score {known['brier']:.4f}"
    return (
        f"Mean confidence {percent(confidence)} and accuracy {percent(accuracy)} {verdict} "
        f"(calibration error {ece:.4f}{brier})."
    )


def _temperature(known: _Known) -> str:
    """Return the best temperature and what it gains."""
    tau, gain, rows = known["temperature"], known["temperature_gain"], known["temperature_rows"]
    if tau is None or gain is None:
        return "No temperature is the best one."
    return (
        f"Dividing the logits by {tau:.4g} would lower the loss by {rounded_loss(gain)} nats (found on {rows:,} rows)."
    )


def _averages(known: _Known) -> str:
    """Return the averages over classes."""
    names = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
    words = {name: name.removeprefix("macro_").replace("_", " ").replace("f1", "F1") for name in names}
    shown = [f"{word} {known[name]:.4f}" for name, word in words.items() if known[name] is not None]
    return f"Averaged over the classes: {', '.join(shown)}." if shown else ""


def _suspicious(known: _Known) -> str:
    """Return how many labels look wrong."""
    count = known["suspicious_labels"]
    return f"{count:,} {'label looks' if count == 1 else 'labels look'} wrong." if count else "No label looks wrong."


def _ignored(known: _Known) -> str:
    """Return how many rows were left out."""
    count = known["ignored_rows"]
    return f"{count:,} {'row was' if count == 1 else 'rows were'} left out: the label is ignored." if count else ""
