"""The table of what is looked for, in its order, and the function that goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from softnll.diagnosis import classes, confidence, conventions, learning, logits, precision, rows
from softnll.diagnosis.case import Case, open_case
from softnll.diagnosis.finding import Finding, Findings
from softnll.diagnosis.printed import as_printed

__all__ = ["CHECKS", "Check", "diagnose"]


@dataclass(frozen=True)
class Check:
    """One thing to look for.

    Attributes
    ----------
    words
        What it is called where nothing was found.
    look
        Returns the finding, or None.
    needs
        ``"scores"``; ``"labels"``, ``"loss"``: not looked for where there are none.
    unless
        Codes of findings that explain this one: after one of them it is not looked for.
    """

    words: str
    look: Callable[[Case], Finding | None]
    needs: str = "scores"
    unless: frozenset[str] = frozenset()


_NO_INPUT = frozenset({"single-column", "constant-scores"})
_NO_RELATION = _NO_INPUT | {"labels-shuffled"}

# Causes stand before what they cause.
CHECKS: tuple[Check, ...] = (
    Check("NaN and infinities", rows.not_finite),
    Check("a single column", logits.single_column),
    Check("rows all alike", learning.identical_rows, unless=frozenset({"single-column"})),
    Check("softmax applied twice", logits.softmax_twice, unless=_NO_INPUT),
    Check("probabilities in place of logits", logits.probabilities, unless=frozenset({"softmax-twice"}) | _NO_INPUT),
    Check("log-probabilities in place of logits", logits.log_probabilities, unless=_NO_INPUT),
    Check("scores between 0 and 1", logits.between_zero_and_one, unless=frozenset({"softmax-twice"}) | _NO_INPUT),
    Check("an offset common to a row", precision.offset, unless=_NO_INPUT),
    Check("a scale that makes softmax a maximum", precision.scale, unless=_NO_INPUT),
    Check("labels at classes of probability 0", rows.infinite_loss, "labels"),
    Check("labels without relation to the scores", learning.shuffled, "labels", _NO_INPUT),
    Check(
        "confidence beside accuracy",
        confidence.miscalibrated,
        "labels",
        _NO_RELATION | {"softmax-twice", "common-scale"},
    ),
    Check("a loss of ln C", learning.loss_at_chance, "labels", _NO_RELATION | {"common-scale"}),
    Check(
        "a loss at the entropy of the frequencies",
        learning.loss_at_prior,
        "labels",
        _NO_RELATION | {"common-scale", "loss-at-ln-c"},
    ),
    Check("accuracy explained by imbalance", learning.imbalance, "labels", _NO_RELATION),
    Check("constant columns", classes.constant, unless=_NO_INPUT),
    Check("classes never predicted", classes.dead, "labels", _NO_RELATION),
    Check("classes without labels", classes.unlabelled, "labels", _NO_RELATION | {"softmax-twice"}),
    Check("float32 losses and gradients that round to 0", precision.saturation, "labels", _NO_INPUT),
    Check("repeated rows", rows.duplicates, unless=_NO_INPUT),
    Check("the convention of the printed loss", conventions.printed_loss, "loss"),
)

_LABELS = "labels that are one-hot, text, off by one, out of range, in another order of classes or rows"


def diagnose(
    scores: Any,
    labels: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    loss: float | str | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Return what is wrong with scores, labels, or the loss made of them, the worst first.

    Looked for are mistakes that leave their trace in ``p = softmax(f)`` and ``NLL = −ln p_y``: probabilities where
    logits were meant, softmax applied twice, labels that are off by one or in another order, confidence that is not
    accuracy, a loss of ``ln C``, and so on. Labels that cannot be taken as they are get the reading that fits, which is
    said; the rest is found with that reading. docs/diagnose.md lists every finding.

    Parameters
    ----------
    scores
        ``(N, C)`` real numbers: an array, a tensor, or rows that stay in a file (an object with ``shape``, ``dtype``,
        ``rows`` and ``blocks``). All rows are looked at in blocks; what is too slow for that uses a sample of 50 000
        rows with a fixed seed, and its evidence says so.
    labels
        ``(N,)`` true classes in [0, C), or what was meant as such: one-hot rows, names, floats.
    class_names
        ``C`` names, in the order of the columns.
    loss
        The loss that a framework printed for these rows, as text where its last digits are 0: finds the convention that
        yields it, within its digits.
    watch
        Called with how many rows have been looked at, and how many there are.

    Returns
    -------
    list of Finding
        A `Findings`, which also knows what was looked for. A calibrated classifier whose labels are as its
        probabilities say gets an error or a warning with a probability of about 0.1 % at most.

    Raises
    ------
    ValueError
        For shapes that do not fit and a loss that is no number.
    TypeError
        For scores that are not real numbers.

    Examples
    --------
    >>> import softnll as sn
    >>> import numpy as np
    >>> scores = np.random.default_rng(0).normal(size=(500, 10)) * 3
    >>> labels = scores.argmax(axis=1)
    >>> [finding.code for finding in sn.diagnose(scores, labels + 1)]
    ['labels-off-by-one', 'underconfident']

    Notes
    -----
    Calibration: Guo, Pleiss, Sun, Weinberger (2017), "On calibration of modern neural networks"; tests by likelihood
    ratios that hold at any sample size: Wasserman, Ramdas, Balakrishnan (2020), "Universal inference".
    """
    printed = None if loss is None else as_printed(loss)
    case = open_case(scores, labels, class_names, printed, watch or (lambda _done, _all: None))
    found = list(case.label_findings)
    codes = {finding.code for finding in found}
    checked, unchecked = [_LABELS], []
    for check in CHECKS:
        if check.needs != "scores" and len(case.labelled) == 0:
            if check.needs == "labels" or printed is not None:
                unchecked.append(f"{check.words} (no labels)")
        elif check.needs == "loss" and printed is None:
            unchecked.append(f"{check.words} (none given)")
        elif codes & check.unless:
            unchecked.append(f"{check.words} (explained by {min(codes & check.unless)})")
        else:
            checked.append(check.words)
            finding = check.look(case)
            if finding is not None:
                found.append(finding)
                codes.add(finding.code)
    N, C = case.scores.shape
    return Findings(found, checked=tuple(checked), unchecked=tuple(unchecked), rows=N, classes=C)
