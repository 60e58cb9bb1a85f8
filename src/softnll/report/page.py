"""What the page says, computed with softnll's own functions and handed to the template."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from markupsafe import Markup

import softnll
from softnll.calibration import reliability
from softnll.data.text import printable
from softnll.functional import cross_entropy, softmax
from softnll.report.charts import confusion_cells, curve, reliability_bars
from softnll.report.images import as_data_uri, weight_images

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Report", "environment", "percent", "render", "rounded"]

MOST_EXAMPLES = 24
MOST_BARS = 4  # probabilities shown of an example: the likeliest, and the true class's
MOST_MATRIX = 40  # classes up to which the confusion matrix can be read
MOST_MISTAKES = 10
MOST_WEIGHTS = 100
MOST_LETTERS = 32
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, eq=False)
class Report:
    """What the page is made from.

    Attributes
    ----------
    title
        What the data is called.
    class_names
        ``C`` names.
    logits, targets
        ``(N, C)`` scores and ``(N,)`` true classes.
    pixels
        ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 images to show, if the inputs are images.
    history
        ``(iteration, mean loss, accuracy)`` of the training, if there was one.
    weight
        ``(C, H·W)`` or ``(C, H·W·3)`` weights to show as images, if the inputs are images.
    interrupted
        Whether Ctrl-C ended the training.
    settings
        Names and values to state at the end.
    """

    title: str
    class_names: tuple[str, ...]
    logits: NDArray[Any]
    targets: NDArray[np.int64]
    pixels: NDArray[np.uint8] | None = None
    history: tuple[tuple[int, float, float], ...] = ()
    weight: NDArray[Any] | None = None
    interrupted: bool = False
    settings: tuple[tuple[str, str], ...] = ()


def render(report: Report) -> str:
    """Return the page: one HTML document that needs nothing else and fetches nothing.

    Examples
    --------
    >>> page = render(Report("three", ("cat", "dog"), np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])))
    >>> page.startswith("<!doctype html>")
    True
    """
    page, shared = environment()
    # A name of 200 characters, or with control characters in it, must not decide how the page looks.
    report = replace(report, class_names=tuple(printable(name, MOST_LETTERS) for name in report.class_names))
    return page.get_template("page.html.j2").render(report=report, **shared, **_content(report))


def environment() -> tuple[jinja2.Environment, dict[str, Any]]:
    """Return the templates, and what all pages share: style and script, and the hashes that policies know them by."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("softnll.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shared: dict[str, Any] = {"version": softnll.__version__}
    for name, file in (("style", "style.css"), ("script", "sort.js")):
        text = resources.files("softnll.report").joinpath(f"templates/{file}").read_text(encoding="utf-8")
        shared[name] = Markup(text)  # noqa: S704 - our own file
        shared[f"{name}_hash"] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return templates, shared


def _content(report: Report) -> dict[str, Any]:
    """Return everything that is computed."""
    N, C = report.logits.shape
    probabilities = softmax(report.logits)
    nll = cross_entropy(report.logits, report.targets, reduction="none")
    mean = float(cross_entropy(report.logits, report.targets))
    prediction = report.logits.argmax(axis=1)
    right = prediction == report.targets
    confidence = np.minimum(probabilities.max(axis=1), 1)
    found = reliability(confidence, right)
    order = np.argsort(-nll, kind="stable")
    shown = min(MOST_EXAMPLES, max(N // 2, 1))
    counts = np.zeros((C, C), np.int64) if C <= MOST_MATRIX else None
    if counts is not None:
        np.add.at(counts, (report.targets, prediction), 1)
    worst = np.sort(nll)[::-1]

    def example(n: int) -> dict[str, Any]:
        return _example(report, n, probabilities[n], float(nll[n]), int(prediction[n]))

    return {
        "examples": N,
        "classes": C,
        "right": int(right.sum()),
        "accuracy": float(right.mean()),
        "nll": mean,
        "perplexity": math.exp(min(mean, 700)),
        "typical": math.exp(-mean),
        "ece": found.ece,
        "confidence": float(confidence.mean()),
        "worst_share": float(worst[: max(N // 100, 1)].sum() / worst.sum())
        if N >= 200 and 0 < worst.sum() < math.inf
        else None,
        "chance_nll": math.log(C),
        "curves": _curves(report, C),
        "unhappiest": [example(int(n)) for n in order[:shown]],
        "happiest": [example(int(n)) for n in order[::-1][:shown]],
        "cells": None if counts is None else confusion_cells(counts),
        "mistakes": _mistakes(report, prediction),
        "bars": reliability_bars(found),
        "weights": _weights(report),
        "colour": report.pixels is not None and report.pixels.ndim == 4,
    }


def _example(report: Report, n: int, p: NDArray[Any], nll: float, predicted: int) -> dict[str, Any]:
    """Return what is shown of one example."""
    true = int(report.targets[n])
    likeliest = [int(c) for c in np.argsort(-p, kind="stable")[:MOST_BARS]]
    if true not in likeliest:
        likeliest[-1] = true
    bars = [
        {"name": report.class_names[c], "p": float(p[c]), "percent": percent(float(p[c])), "true": c == true}
        for c in likeliest
    ]
    return {
        "row": n,
        "image": None if report.pixels is None else as_data_uri(report.pixels[n]),
        "true": report.class_names[true],
        "predicted": report.class_names[predicted],
        "right": predicted == true,
        "nll": rounded(nll),
        "bars": bars,
    }


def _curves(report: Report, C: int) -> list[Any]:
    """Return loss and accuracy over the iterations."""
    if not report.history:
        return []
    steps, losses, accuracies = (list(column) for column in zip(*report.history, strict=True))
    most = max(*losses, math.log(C)) * 1.08
    return [
        curve("Mean NLL (training)", steps, losses, top=most, chance=(math.log(C), "chance, ln C"), digits=3),
        curve("Accuracy (training)", steps, accuracies, top=1.0, chance=(1 / C, "chance, 1/C"), digits=3),
    ]


def _mistakes(report: Report, prediction: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of true and wrongly predicted class."""
    wrong = np.flatnonzero(prediction != report.targets)
    pairs, counts = np.unique(np.stack([report.targets[wrong], prediction[wrong]], axis=1), axis=0, return_counts=True)
    totals = np.bincount(report.targets, minlength=len(report.class_names))
    found = []
    for k in np.argsort(-counts, kind="stable")[:MOST_MISTAKES]:
        true, predicted = (int(c) for c in pairs[k])
        names = {"true": report.class_names[true], "predicted": report.class_names[predicted]}
        found.append({**names, "count": int(counts[k]), "share": percent(float(counts[k] / totals[true]))})
    return found


def _weights(report: Report) -> list[dict[str, str]]:
    """Return the weights of each class as an image."""
    if report.weight is None or report.pixels is None or len(report.weight) != len(report.class_names):
        return []
    images = weight_images(report.weight[:MOST_WEIGHTS], report.pixels.shape[1:])
    return [
        {"name": name, "image": as_data_uri(image)} for name, image in zip(report.class_names, images, strict=False)
    ]


def rounded(nll: float) -> str:
    """Return a loss to two digits, a small one as a power of ten."""
    if nll == 0 or nll >= 0.005:
        return f"{nll:.2f}"
    digit, _, power = f"{nll:.0e}".partition("e")
    return f"{digit}\N{MULTIPLICATION SIGN}10" + str(int(power)).translate(_RAISED)


def percent(share: float) -> str:
    """Return a share in percent, one digit where it is small."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 or share > 0.995 else f"{100 * share:.0f} %"
