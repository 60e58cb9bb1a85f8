"""The HTML pages about a training run (`render`) and about scores from anywhere (`inspect`)."""

from __future__ import annotations

import base64
import hashlib
import io
import math
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from softnll._inspection.diagnose.finding import Findings
from softnll._inspection.format import middle
from softnll._inspection.report.charts import confusion_cells, curve, histogram, reliability_bars
from softnll._inspection.report.classes import class_figures
from softnll._inspection.report.summary import (
    CANDIDATES,
    Examined,
    examine,
    figures,
    finite,
    summary,
    suspicious,
)
from softnll._inspection.survey import LargestRows, Survey, confusion_counts
from softnll._numpy.functional import softmax
from softnll._version import __version__
from softnll.data.rows import as_rows
from softnll.data.text import printable

__all__ = ["Inspection", "Report", "inspect", "render", "summary"]

MOST_EXAMPLES = 24
MOST_BARS = 4  # probabilities shown of an example: the likeliest, and the true class's
MOST_MATRIX = 40  # classes up to which the confusion matrix can be read
MOST_MISTAKES = 10
MOST_WEIGHTS = 100
MOST_LETTERS = 32  # of a class name
MOST_CLASSES = 300  # rows of the table of classes: those with the largest sums of losses
MOST_SUSPICIOUS = 24
ENOUGH = 200  # rows, below which the share of the worst hundredth is a share of one row
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# From the most negative weight over none to the most positive: blue, near-white, orange; distinct for colour-blind
# readers too, and darker towards both ends.
_STOPS = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
_COLOURS = np.array([[8, 48, 107], [66, 146, 198], [247, 247, 247], [241, 133, 50], [127, 39, 4]], np.float64)


@dataclass(frozen=True, eq=False)
class Report:
    """A training run and its scores on test data."""

    title: str  # the name of the data
    class_names: tuple[str, ...]
    logits: NDArray[Any]  # (N, C)
    targets: NDArray[np.int64]  # (N,)
    pixels: NDArray[np.uint8] | None = None  # (N, H, W) or (N, H, W, 3), if the inputs are images
    history: tuple[tuple[int, float, float], ...] = ()  # iteration, mean loss and accuracy of the training
    held_out: tuple[tuple[int, float, float], ...] = ()  # the same of the examples held out while C was chosen
    weight: NDArray[Any] | None = None  # (C, H·W) or (C, H·W·3), to show as images
    interrupted: bool = False  # whether Ctrl-C ended the training
    settings: tuple[tuple[str, str], ...] = ()  # names and values to state at the end


@dataclass(frozen=True, eq=False)
class Inspection:
    """Scores that were examined, with their names and images."""

    title: str  # the name of the scores
    class_names: tuple[str, ...]
    examined: Examined
    pixels: NDArray[np.uint8] | None = None  # (N, H, W) or (N, H, W, 3)
    findings: Findings | None = None  # of `diagnose`
    scores_are: str = "logits"  # what they are, in words
    changed: tuple[str, ...] = ()  # titles of findings after which scores or labels were read otherwise
    read: tuple[str, ...] = ()  # how the files were read: which column is what
    table_beside: str = ""  # the name of the file with all suspicious rows, if there is one


def render(report: Report) -> str:
    """Return the page of a training run: one HTML document that needs no other file and fetches nothing.

    Examples
    --------
    >>> page = render(Report("three", ("cat", "dog"), np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])))
    >>> page.startswith("<!doctype html>")
    True
    """
    examined = examine(as_rows(report.logits), report.targets)
    values = figures(examined.found)
    if len(examined.found) < ENOUGH:
        values["worst_hundredth_of_loss"] = math.nan
    return _page(
        "training.html.j2",
        Inspection(report.title, report.class_names, examined, report.pixels),
        values,
        report=report,
        right=int(examined.found.right.sum()),
        typical=math.exp(-examined.found.mean),
        curves=_curves(report),
        weights=_weights(report),
        colour=report.pixels is not None and report.pixels.ndim == 4,
    )


def inspect(given: Inspection) -> str:
    """Return the page about scores: one HTML document that needs no other file and fetches nothing.

    Examples
    --------
    >>> examined = examine(as_rows([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    >>> inspect(Inspection("two", ("cat", "dog"), examined)).startswith("<!doctype html>")
    True
    """
    examined, found = given.examined, given.examined.found
    doubted, doubtful = suspicious(found, CANDIDATES)
    place = {row: k for k, row in enumerate(examined.doubtful.rows.tolist())}
    unhappiest = examined.worst.rows[: min(MOST_EXAMPLES, max(len(found) // 2, 1))].tolist()
    others = [place[row] for row in doubted.tolist() if row in place and row not in unhappiest]
    return _page(
        "scores.html.j2",
        given,
        summary(examined),
        histogram=histogram(found["nll"]),
        suspects=_examples(given, examined.doubtful, others[:MOST_SUSPICIOUS]),
        doubted={*doubted.tolist()} & {*unhappiest},
        doubtful=doubtful,
        read=[printable(line, 400) for line in given.read],
        table=_classes(found, _names(given)),
        hidden_classes=max(0, found.classes - MOST_CLASSES),
    )


def _page(template: str, given: Inspection, values: dict[str, Any], **more: Any) -> str:
    """Return a page: the values that both pages show, and those of one."""
    found = given.examined.found
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("softnll._inspection.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters["middle"] = middle
    shown = range(min(MOST_EXAMPLES, max(len(found) // 2, 1), len(given.examined.worst.rows)))
    seen = set(given.examined.worst.rows[: len(shown)].tolist()) | {each["row"] for each in more.get("suspects", ())}
    best = [k for k, row in enumerate(given.examined.best.rows.tolist()) if row not in seen]
    matrix = found.classes <= MOST_MATRIX
    counts = confusion_counts(found.y, found["prediction"], found.classes) if matrix else None
    return templates.get_template(template).render(
        **_inline("style", "style.css"),
        **_inline("script", "sort.js"),
        version=__version__,
        title=printable(given.title, 200),
        class_names=_names(given),
        f=finite(values),
        given=given,
        bars=reliability_bars(found.reliability),
        worst=_examples(given, given.examined.worst, shown),
        best=_examples(given, given.examined.best, best[: len(shown)]),
        cells=None if counts is None else confusion_cells(counts),
        mistakes=_mistakes(found, _names(given)),
        **more,
    )


def _inline(name: str, file: str) -> dict[str, str]:
    """Return the text of a style sheet or script, and its hash, which the page's content security policy allows."""
    text = resources.files("softnll._inspection.report").joinpath(f"templates/{file}").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return {name: Markup(text), f"{name}_hash": digest}  # noqa: S704 - our own file


def _names(given: Inspection) -> tuple[str, ...]:
    """Return the class names without control characters, shortened so that they do not spoil the layout."""
    return tuple(printable(name, MOST_LETTERS) for name in given.class_names)


def _examples(given: Inspection, kept: LargestRows, places: Any) -> list[dict[str, Any]]:
    """Return the template's values for the rows at these places among those kept."""
    found, names, examples = given.examined.found, _names(given), []
    for k in places:
        row, p = int(kept.rows[k]), softmax(kept.logits[k])
        at = found.place(row)
        true, predicted = int(found.y[at]), int(found["prediction"][at])
        likeliest = [int(c) for c in np.argsort(-p, kind="stable")[:MOST_BARS]]
        if true not in likeliest:
            likeliest[-1] = true
        examples.append(
            {
                "row": row,
                "image": None if given.pixels is None else as_data_uri(given.pixels[row]),
                "true": names[true],
                "predicted": names[predicted],
                "right": predicted == true,
                "nll": _rounded(float(found["nll"][at])),
                "bars": [
                    {"name": names[c], "p": min(float(p[c]), 1.0), "percent": _percent(float(p[c])), "true": c == true}
                    for c in likeliest
                ],
            }
        )
    return examples


def _mistakes(found: Survey, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the most frequent pairs of true and wrongly predicted class."""
    return [
        {"true": names[a], "predicted": names[b], "count": int(n), "share": _percent(float(n / found.support[a]))}
        for a, b, n in zip(*(each[:MOST_MISTAKES] for each in found.confusions()), strict=True)
    ]


def _classes(found: Survey, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the rows of the table of classes: those with the largest sums of losses, in order."""
    rows = class_figures(found, names)
    total = [(row["nll"] or 0) * row["support"] if row["support"] else 0 for row in rows]
    return [rows[c] for c in sorted(np.argsort(-np.array(total), kind="stable")[:MOST_CLASSES].tolist())]


def _curves(report: Report) -> list[Any]:
    """Return loss and accuracy over the iterations."""
    if not report.history:
        return []
    C = len(report.class_names)
    most = max(*(loss for _, loss, _ in (*report.history, *report.held_out)), math.log(C)) * 1.08
    found = []
    for name, history in (("training", report.history), ("held out", report.held_out)):
        if history:
            steps, losses, accuracies = (list(column) for column in zip(*history, strict=True))
            chance = (math.log(C), "chance, ln C")
            found.append(curve(f"Mean NLL ({name})", steps, losses, top=most, chance=chance))
            chance = (1 / C, "chance, 1/C")
            found.append(curve(f"Accuracy ({name})", steps, accuracies, top=1.0, chance=chance))
    return found


def _weights(report: Report) -> list[dict[str, str]]:
    """Return the weights of each class as an image."""
    if report.weight is None or report.pixels is None or len(report.weight) != len(report.class_names):
        return []
    images = weight_images(report.weight[:MOST_WEIGHTS], report.pixels.shape[1:])
    names = (printable(name, MOST_LETTERS) for name in report.class_names)
    return [{"name": name, "image": as_data_uri(image)} for name, image in zip(names, images, strict=False)]


def _rounded(nll: float) -> str:
    """Return a loss to two digits, a small one as a power of ten."""
    if nll == 0 or nll >= 0.005:
        return f"{nll:.2f}"
    digit, _, power = f"{nll:.0e}".partition("e")
    return f"{digit}\N{MULTIPLICATION SIGN}10" + str(int(power)).translate(_RAISED)


def _percent(share: float) -> str:
    """Return a share in percent, one digit where it is small."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %" if share < 0.0995 or share > 0.995 else f"{100 * share:.0f} %"


def as_data_uri(pixels: NDArray[np.uint8]) -> str:
    """Return ``(H, W)`` or ``(H, W, 3)`` pixels as a ``data:`` address that holds a PNG."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def colour_ramp(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return values in [−1, 1] as colours of the diverging map, in one more axis of 3."""
    channels = [np.interp(values, _STOPS, _COLOURS[:, k]) for k in range(3)]
    colours: NDArray[np.uint8] = np.rint(np.stack(channels, axis=-1)).astype(np.uint8)
    return colours


def weight_images(weight: NDArray[Any], shape: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """Return the weights of each class as an image of the inputs' shape, all on one scale that is symmetric about 0.

    For grey inputs: blue where ink lowers the score of the class, orange where it raises it. For colour inputs: the
    weight of red, green and blue as a colour, mid-grey for none.
    """
    most = float(np.abs(weight).max()) or 1.0
    relative = np.asarray(weight, np.float64).reshape(-1, *shape) / most
    if len(shape) == 2:
        return [colour_ramp(image) for image in relative]
    return list(np.rint(127.5 + 127.5 * relative).astype(np.uint8))
