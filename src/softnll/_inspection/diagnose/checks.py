"""`diagnose`, and the table of its checks in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

import softnll._inspection.diagnose.about_classes as classes
import softnll._inspection.diagnose.about_confidence as confidence
import softnll._inspection.diagnose.about_learning as learning
import softnll._inspection.diagnose.about_printed_loss as conventions
import softnll._inspection.diagnose.about_rounding as rounding
import softnll._inspection.diagnose.about_rows as rows
import softnll._inspection.diagnose.about_scores as kinds
from softnll._inspection.diagnose.finding import Finding, Findings, Unseen
from softnll._inspection.diagnose.observations import Observations, observe
from softnll._inspection.diagnose.printed_loss import as_printed


@dataclass(frozen=True)
class Check:
    """A check: its name, and the function that returns its finding or None."""

    words: str  # its name
    look: Callable[[Observations], Finding | Unseen | None]
    needs: str = "rows"  # "scores", "rows" with a softmax, "labels" or "loss": without them the check is skipped
    unless: frozenset[str] = frozenset()  # codes of findings that explain this one: after one of them it is skipped


_NO_INPUT = frozenset({"single-column", "constant-scores", "hard-predictions"})
_NO_LOSS = _NO_INPUT | {"softmax-along-rows"}  # the loss is another one for a reason that is known
_NO_RELATION = _NO_LOSS | {"labels-shuffled"}

# Distances are no logits: their size says nothing about confidence. (This name is no code: diagnose adds it.)
_FAR = frozenset({"scores-negated/distances"})

# Causes come before their effects: where there is one column, only the checks of single columns find anything.
CHECKS: tuple[Check, ...] = (
    Check("NaN and infinities", rows.not_finite, "scores", frozenset({"hard-predictions"})),
    Check("a single column", kinds.single_column, "scores", frozenset({"single-column", "hard-predictions"})),
    Check("rows all alike", learning.identical_rows, unless=frozenset({"single-column", "hard-predictions"})),
    Check("predictions in place of scores", kinds.hard, unless=_NO_INPUT),
    Check("softmax along the wrong axis", kinds.along_rows, unless=_NO_INPUT),
    Check("softmax applied twice", kinds.softmax_twice, unless=_NO_LOSS),
    Check("probabilities in place of logits", kinds.probabilities, unless=frozenset({"softmax-twice"}) | _NO_INPUT),
    Check("complements of probabilities", kinds.complements, unless=_NO_INPUT),
    Check("log-probabilities in place of logits", kinds.log_probabilities, unless=_NO_INPUT),
    Check("scores between 0 and 1", kinds.between_zero_and_one, unless=frozenset({"softmax-twice"}) | _NO_LOSS),
    Check("an offset common to a row", rounding.offset, unless=_NO_INPUT),
    Check("a scale that makes softmax a maximum", rounding.scale, unless=_NO_INPUT | _FAR),
    Check("labels at classes of probability 0", rows.infinite_loss, "labels", frozenset({"hard-predictions"})),
    Check("labels without relation to the scores", learning.shuffled, "labels", _NO_LOSS),
    Check(
        "confidence beside accuracy",
        confidence.miscalibrated,
        "labels",
        _NO_RELATION | _FAR | {"softmax-twice", "common-scale"},
    ),
    Check("a loss of ln C", learning.loss_at_chance, "labels", _NO_RELATION | _FAR | {"common-scale", "softmax-twice"}),
    Check(
        "a loss at the entropy of the frequencies",
        learning.loss_at_prior,
        "labels",
        _NO_RELATION | _FAR | {"common-scale", "loss-at-ln-c"},
    ),
    Check("accuracy explained by imbalance", learning.imbalance, "labels", _NO_RELATION),
    Check("constant columns", classes.constant, unless=_NO_INPUT),
    Check("classes never predicted", classes.dead, "labels", _NO_RELATION),
    Check("classes without labels", classes.unlabelled, "labels", _NO_RELATION | _FAR | {"softmax-twice"}),
    Check("float32 losses and gradients that round to 0", rounding.saturation, "labels", _NO_LOSS | _FAR),
    Check("repeated rows", rows.duplicates, unless=_NO_INPUT),
    Check("the convention of the printed loss", conventions.printed_loss, "loss"),
)

_READ = "labels that are one-hot, text or of other types"
_ALIGNED = "labels off by one, out of range, in another order of classes or rows; negated scores"


def diagnose(
    scores: Any,
    labels: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    loss: float | str | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Return the mistakes found in scores, labels, or the loss computed from them, the most severe first.

    The checks look for mistakes that show in ``p = softmax(f)`` and ``NLL = −ln p_y``: probabilities in place of
    logits, softmax applied twice, labels that are off by one or in another order, confidence that differs from
    accuracy, a loss of ``ln C``, and so on. Labels that cannot be used as they are get the reading that fits, a finding
    states it, and the other checks use it. docs/diagnose.md lists every finding.

    Parameters
    ----------
    scores
        ``(N, C)`` real numbers: an array, a tensor, a data frame (its columns' names are the classes', and columns of
        labels and of an index are left out), or rows that stay in a file (an object with ``shape``, ``dtype``,
        ``rows`` and ``blocks``). All rows are read in blocks; checks that are too slow for that use a sample of
        50 000 rows with a fixed seed, and their evidence states it.
    labels
        ``(N,)`` true classes in [0, C); or one-hot rows, names, floats or other values, which are read as classes.
    class_names
        ``C`` names, in the order of the columns; None: those of a data frame.
    loss
        The loss that a framework printed for these rows, as text where its last digits are 0. A finding names the
        convention that yields it, within its digits.
    watch
        Called after each block with the number of rows read so far, and the number of all rows.

    Returns
    -------
    list of Finding
        A `Findings`, which also lists the checks that ran. A calibrated classifier whose labels are
        drawn from its probabilities gets an error or a warning with a probability of about 0.1 % at most.

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
    return findings(observe(scores, labels, class_names, printed, watch))


def findings(obs: Observations) -> Findings:
    """Return the findings of all checks, and which of them ran."""
    found = list(obs.readings)
    codes = {finding.code for finding in found}
    if obs.C > 1:
        codes.discard("single-column")  # one column was read as two: the other checks use both
    if obs.kind.code == "negated" and any(each.evidence.get("smallest", -1) >= 0 for each in found):
        codes |= _FAR
    checked, unchecked = _looked_at_labels(obs)
    for check in CHECKS:
        if check.needs == "loss" and obs.printed is None:
            reason: str | None = "none given"
        elif codes & check.unless:
            reason = f"explained by {min(codes & check.unless).partition('/')[0]}"
        else:
            reason = _lacking(check, obs)
        result = Unseen(reason) if reason is not None else check.look(obs)
        if isinstance(result, Unseen):
            unchecked.append(f"{check.words} ({result})")
            continue
        checked.append(check.words)
        if result is not None:
            found.append(result)
            codes.add(result.code)
    N, C = obs.scores.shape
    return Findings(found, checked=tuple(checked), unchecked=tuple(unchecked), rows=N, classes=C)


def _lacking(check: Check, obs: Observations) -> str | None:
    """Return what a check needs and these observations do not have, or None."""
    if check.needs != "scores" and not len(obs.usable):
        return "no row has a softmax"
    if check.needs == "labels" and not len(obs.labelled):
        return "no labels"
    return None


def _looked_at_labels(obs: Observations) -> tuple[list[str], list[str]]:
    """Return what was looked for in the labels, and what not."""
    if not obs.has_classes:
        return [_READ], [f"{_ALIGNED} (no labels)"]
    if obs.C == 1:
        return [_READ], [f"{_ALIGNED} (one column)"]
    if not (obs.y >= 0).any():
        return [_READ], [f"{_ALIGNED} (no labels in rows that have a softmax)"]
    return [_READ, _ALIGNED], []
