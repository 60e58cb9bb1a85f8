"""Findings about confidence that is too high or too low, with the temperature that corrects it."""

from __future__ import annotations

import math

import numpy as np

from softnll._inspection.calibration import fit_temperature
from softnll._inspection.diagnose.chance import ALPHA, likelihood_ratio
from softnll._inspection.diagnose.finding import Evidence, Finding, Severity, Unseen, finding
from softnll._inspection.diagnose.observations import Observations
from softnll._inspection.format import percent
from softnll._inspection.survey import Block
from softnll._numpy.functional import cross_entropy

# The alternatives that calibration is tested against, fixed beforehand: temperatures from 1/16 to 16. They are a factor
# 2^(1/4) apart: the nearest of them is better than 1 from about 1.09 on, where a temperature begins to gain 1 %.
TEMPERATURES = tuple(2.0 ** (k / 4) for k in range(-16, 17) if k)
MATTERS, MUCH = 0.01, 0.05  # of the mean loss that the temperature would gain
SCALED = 16.0  # a temperature beyond this does not come from training
KNOWN = 0.9  # of the entropy of the classes' frequencies: a loss below it shows that the scores know the labels


def miscalibrated(obs: Observations) -> Finding | Unseen | None:
    """Find a temperature that gives a likelihood which a calibrated classifier would not show."""
    chosen = obs.y >= 0
    chosen[chosen] = np.isfinite(cross_entropy(obs.logits[chosen], obs.y[chosen], reduction="none"))
    logits, y = obs.logits[chosen], obs.y[chosen]
    n = len(y)
    if obs.C < 2 or n == 0:
        return Unseen("no row has a finite loss")
    loss = float(cross_entropy(logits, y))
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
    return _finding(obs, logits, y, (loss, best, tau), over)


def _finding(
    obs: Observations, logits: np.ndarray, y: np.ndarray, fit: tuple[float, float, float | None], over: bool
) -> Finding:
    """Return the finding: how far confidence and accuracy are apart, and the temperature that corrects it."""
    loss, best, tau = fit
    rows = Block(logits, y)
    confidence = np.minimum(rows.confidence.astype(np.float64), 1.0)
    ece = rows.reliability().ece
    numbers = {"accuracy": float(rows.right.mean()), "mean_confidence": float(confidence.mean()), "ece": ece}
    numbers |= {"loss": loss, "loss_mended": best, "gain": loss - best, "rows": len(y)}
    text = f"mean confidence is {percent(numbers['mean_confidence'])}, accuracy {percent(numbers['accuracy'])}, "
    text += f"calibration error {percent(ece)}, in {obs.of_sample()}; "
    if tau is None:
        text += f"the loss of {loss:.4f} keeps falling as the temperature {'grows' if over else 'falls'}"
        correction = (
            "No temperature is best: the scores do not fit the labels."
            if over
            else "Every row is right: no temperature is best. Train on with less regularisation or label smoothing, or "
            "calibrate on harder data."
        )
    else:
        numbers["temperature"] = tau
        text += f"divided by {tau:.4g}, the scores have a mean loss of {best:.4f} instead of {loss:.4f}"
        correction = (
            f"Divide the scores by {tau:.4g}; fit it (softnll.fit_temperature) on data that was not trained on."
        )
    frequencies = -np.log(np.bincount(y, minlength=obs.C)[y] / len(y)).mean()
    # A factor is named only where the divided scores know the labels: otherwise any large one gives the loss of
    # guessing.
    if tau is not None and abs(math.log(tau)) > math.log(SCALED) and best <= KNOWN * frequencies:
        name = "common-scale/multiplied" if over else "common-scale/divided"
        return finding(name, Evidence(text, **numbers), divisor=1 / tau, correction=correction)
    severity: Severity = "warning" if loss - best >= MUCH * loss else "note"
    name = "overconfident" if over else "underconfident"
    return finding(name, Evidence(text, **numbers), severity=severity, correction=correction)
