"""Findings about confidence: too high, too low, and the temperature that mends it."""

from __future__ import annotations

import math

import numpy as np

from softnll.calibration import fit_temperature, reliability
from softnll.diagnosis.case import Case
from softnll.diagnosis.chance import ALPHA, likelihood_ratio
from softnll.diagnosis.finding import Evidence, Finding, percent
from softnll.functional import cross_entropy, softmax

__all__ = ["miscalibrated"]

# The alternatives that calibration is tested against, fixed beforehand: temperatures from 1/16 to 16. They are a factor
# 2^(1/4) apart: the nearest of them is better than 1 from about 1.09 on, where a temperature begins to gain 1 %.
TEMPERATURES = tuple(2.0 ** (k / 4) for k in range(-16, 17) if k)
MATTERS, MUCH = 0.01, 0.05  # of the mean loss that the temperature would gain
SCALED = 16.0  # a temperature beyond this is no matter of training


def miscalibrated(case: Case) -> Finding | None:
    """Find a temperature that gives a likelihood which a calibrated classifier would not show."""
    chosen = case.y[case.sample] >= 0
    chosen &= np.isfinite(case.logits).all(axis=1)
    logits, y = case.logits[chosen], case.y[case.sample][chosen]
    if case.C < 2 or len(y) == 0:
        return None
    n = len(y)
    loss = float(cross_entropy(logits, y))
    # Logits are of any size: relative to their row's largest, so that a division cannot overflow.
    losses = [float(cross_entropy(logits, y, temperature=tau)) for tau in TEMPERATURES]
    if likelihood_ratio([n * (loss - each) for each in losses]) > ALPHA:
        return None
    try:
        tau: float | None = fit_temperature(logits, y)
    except ValueError:  # none is best: every row is right, or the scores do not fit the labels at all
        tau = None
    best = float(cross_entropy(logits, y, temperature=tau)) if tau is not None else min(losses)
    gain = loss - best
    if gain < MATTERS * loss:
        return None
    over = (tau if tau is not None else TEMPERATURES[int(np.argmin(losses))]) > 1
    return _finding(case, logits, y, (loss, best, tau), over)


def _finding(
    case: Case, logits: np.ndarray, y: np.ndarray, fit: tuple[float, float, float | None], over: bool
) -> Finding:
    """Say how far confidence and accuracy are apart, and what mends it."""
    loss, best, tau = fit
    right = logits.argmax(axis=1) == y
    confidence = np.minimum(softmax(logits).max(axis=1).astype(np.float64), 1.0)
    ece = reliability(confidence, right).ece
    numbers = {"accuracy": float(right.mean()), "mean_confidence": float(confidence.mean()), "ece": ece}
    numbers |= {"loss": loss, "loss_mended": best, "gain": loss - best, "rows": len(y)}
    said = f"mean confidence is {percent(numbers['mean_confidence'])}, accuracy {percent(numbers['accuracy'])}, "
    said += f"calibration error {percent(ece)}, in {case.of_sample()}; "
    if tau is None:
        said += f"the loss of {loss:.4f} keeps falling as the temperature {'grows' if over else 'falls'}"
        remedy = (
            "No temperature is best: the scores do not fit the labels."
            if over
            else "Every row is right: no temperature is best. Train on with less regularisation or label smoothing, or "
            "calibrate on harder data."
        )
    else:
        numbers["temperature"] = tau
        said += f"divided by {tau:.4g}, the scores have a mean loss of {best:.4f} instead of {loss:.4f}"
        remedy = f"Divide the scores by {tau:.4g}; fit it (softnll.fit_temperature) on data that was not trained on."
    severity = "warning" if loss - best >= MUCH * loss else "note"
    if tau is not None and abs(math.log(tau)) > math.log(SCALED):
        return Finding(
            "common-scale",
            "error",
            f"All scores are multiplied by about {tau:.3g}"
            if over
            else f"All scores are divided by about {1 / tau:.3g}",
            Evidence(said, **numbers),
            "Accuracy is right, loss and gradients are not: "
            + ("softmax is a maximum." if over else "every class has nearly the same probability."),
            f"Look for a scale or temperature applied twice or not at all. {remedy}",
        )
    return Finding(
        "overconfident" if over else "underconfident",
        "warning" if severity == "warning" else "note",
        "The classifier is surer than it is right" if over else "The classifier is right more often than it is sure",
        Evidence(said, **numbers),
        "Its probabilities cannot be taken at their word, and the loss is higher than its accuracy deserves.",
        remedy,
    )
