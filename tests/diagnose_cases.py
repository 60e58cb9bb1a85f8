"""Scores and labels that have one thing wrong each, and calibrated ones that have nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
from scipy import special

N, C = 2000, 10
# Not softnll's functions: each process of the tests imports this module, and would compile them at once.
softmax, log_softmax = partial(special.softmax, axis=1), partial(special.log_softmax, axis=1)


def calibrated(n=N, c=C, scale=2.0, seed=0, dtype=np.float64, bias=None, whole=False):
    """Return random logits, and labels drawn from their own softmax."""
    rng = np.random.default_rng(seed)
    logits = (rng.normal(size=(n, c)) * scale + (0 if bias is None else np.asarray(bias))).astype(dtype)
    logits = np.rint(logits) if whole else logits
    # The largest of logit + Gumbel noise is a draw from the softmax.
    return logits, (logits.astype(np.float64) + rng.gumbel(size=(n, c))).argmax(axis=1)


def severe(found):
    """Return codes of errors and warnings."""
    return {each.code for each in found if each.severity != "note"}


def only(found, code):
    """Return the finding with this code; there must be one."""
    (finding,) = [each for each in found if each.code == code]
    return finding


LOGITS, LABELS = calibrated()
SURE, SURE_LABELS = calibrated(scale=6.0, seed=1)
NAMES = tuple(f"kind {c}" for c in range(C))


@dataclass(frozen=True)
class Wrong:
    """Data with one thing wrong."""

    code: str
    severity: str
    scores: Any
    labels: Any
    options: dict[str, Any] = field(default_factory=dict)
    along: frozenset[str] = frozenset()  # other errors and warnings that come with it
    what: str = ""


def _set(array, index, value):
    """Return a copy with some entries set."""
    changed = np.array(array)
    changed[index] = value
    return changed


def _rng(seed=0):
    return np.random.default_rng(seed)


def _binary(values):
    """Return the scores of a classifier of two classes, and labels with these values."""
    logits, labels = calibrated(c=2, seed=8)
    return logits, np.array(values)[labels]


P = softmax(LOGITS)
_LOSS = -float(log_softmax(LOGITS)[np.arange(N), LABELS].mean())
_TWO, _TWO_LABELS = calibrated(n=3000, c=2, scale=4.0)
_TWO_P = softmax(_TWO)
_BATCHED = np.vstack([softmax(LOGITS[start : start + 64], axis=0) for start in range(0, N, 64)])
_WEAK, _WEAK_LABELS = calibrated(n=5000, c=20, scale=1.0)
_MANY, _MANY_LABELS = calibrated(n=5000, c=100, scale=1.5)
_ORDER = _rng(3).permutation(C)
_BIASED, _BIASED_LABELS = calibrated(bias=[3.0] + [0.0] * (C - 1), scale=0.0)
_HARD, _HARD_LABELS = calibrated(n=4000, c=2, scale=0.4, bias=[3.0, 0.0])
_CONFIDENT, _CONFIDENT_LABELS = calibrated(scale=100.0, seed=5, dtype=np.float32)
_WRAPPED = np.append(np.arange(N), np.arange(64))
_UNSEEN = _set(LOGITS, (slice(None), 4), -20.0)

WRONG = [
    Wrong("probabilities-as-logits", "error", P, LABELS),
    Wrong("probabilities-as-logits", "error", P.astype(np.float16), LABELS, what="float16"),
    Wrong("probabilities-as-logits", "error", P[:3], LABELS[:3], what="three rows"),
    Wrong("probabilities-as-logits", "error", np.round(P, 3) * 100, LABELS, what="percent", along={"infinite-loss"}),
    Wrong("log-probabilities-as-logits", "note", log_softmax(LOGITS), LABELS),
    Wrong("log-base-of-scores", "error", log_softmax(LOGITS) / np.log(2), LABELS, what="2"),
    Wrong("log-base-of-scores", "error", log_softmax(LOGITS) / np.log(10), LABELS, what="10"),
    Wrong("negative-log-probabilities", "error", -log_softmax(LOGITS), LABELS),
    Wrong("softmax-twice", "error", softmax(softmax(SURE)), SURE_LABELS, what="probabilities"),
    Wrong("softmax-twice", "error", log_softmax(softmax(SURE)), SURE_LABELS, what="logarithms"),
    Wrong("softmax-twice", "error", softmax(SURE) + 3.0, SURE_LABELS, what="shifted"),
    Wrong("softmax-twice", "error", softmax(P), LABELS, what="of a classifier that is not sure"),
    Wrong("complements-as-logits", "error", 1 - softmax(_MANY), _MANY_LABELS, what="100 classes"),
    Wrong("scores-between-0-and-1", "note", 1 / (1 + np.exp(-LOGITS)), LABELS, along={"underconfident"}),
    Wrong("probabilities-as-logits", "error", P + 1e-5, LABELS, what="an epsilon added"),
    Wrong("probabilities-as-logits", "error", _TWO_P + 1e-5, _TWO_LABELS, what="an epsilon added to two classes"),
    Wrong("probabilities-as-logits", "error", np.rint(P * 500) / np.rint(P * 500).sum(1, keepdims=True) * 500, LABELS,
          what="votes", along={"infinite-loss"}),
    Wrong("probabilities-as-logits", "error", np.rint(P * 100).astype(np.uint8), LABELS, what="whole percent",
          along={"infinite-loss"}),
    Wrong("log-base-of-scores", "error", log_softmax(LOGITS) * 10 / np.log(10), LABELS, what="decibels"),
    Wrong("negative-log-probabilities", "error", -log_softmax(LOGITS) / np.log(2), LABELS, what="base 2"),
    Wrong("complements-as-logits", "error", 1 - P, LABELS),
    Wrong("hard-predictions", "error", np.eye(C)[LOGITS.argmax(1)], LABELS, what="one-hot"),
    Wrong("hard-predictions", "error", LOGITS.argmax(1), LABELS, what="class numbers"),
    Wrong("hard-predictions", "error", LOGITS.argmax(1)[None], LABELS, what="class numbers in one row"),
    Wrong("softmax-along-rows", "error", softmax(LOGITS, axis=0), LABELS),
    Wrong("softmax-along-rows", "error", log_softmax(LOGITS, axis=0).astype(np.float32), LABELS, what="log_softmax"),
    Wrong("softmax-along-rows", "error", _BATCHED, LABELS, what="in batches of 64"),
    Wrong("scores-negated", "error", -LOGITS, LABELS),
    Wrong("scores-negated", "error", -LOGITS, LABELS + 1, what="and labels from 1", along={"labels-off-by-one"}),
    Wrong("scores-negated", "error", -LOGITS[:, :3], LOGITS[:, :3].argmax(1), what="three classes",
          along={"underconfident"}),
    Wrong("scores-negated", "error", np.sqrt(30 - LOGITS), LABELS, what="distances"),
    Wrong("single-column", "error", LOGITS[:, :1], np.zeros(N, int)),
    Wrong("single-column", "error", _TWO_P[:, 1], _TWO_LABELS, what="p of class 1", along={"probabilities-as-logits"}),
    Wrong("single-column", "error", _TWO_P[:, 1:], _TWO_LABELS, what="a column", along={"probabilities-as-logits"}),
    Wrong("single-column", "error", _TWO_P[None, :, 1], _TWO_LABELS, what="a row", along={"probabilities-as-logits"}),
    Wrong("single-column", "error", _TWO[:, 1] - _TWO[:, 0], _TWO_LABELS, what="score of class 1"),
    Wrong("constant-scores", "error", np.tile(LOGITS[:1], (N, 1)), LABELS),
    Wrong("not-finite", "error", _set(LOGITS, (7, 3), np.nan), LABELS, what="NaN"),
    Wrong("not-finite", "error", _set(LOGITS, (7, 3), np.inf), LABELS, what="+inf"),
    Wrong("not-finite", "error", _set(LOGITS, 7, -np.inf), LABELS, what="all -inf"),
    Wrong("masked-scores", "note", _set(LOGITS, (np.arange(50), (LABELS[:50] + 1) % C), -np.inf), LABELS),
    Wrong("infinite-loss", "error", _set(LOGITS, (5, LABELS[5]), -np.inf), LABELS),
    Wrong("common-offset", "warning", LOGITS.astype(np.float32) + np.float32(3e4), LABELS),
    Wrong("common-offset", "warning", (LOGITS + 300).astype(ml_dtypes.bfloat16), LABELS, what="bfloat16"),
    Wrong("common-offset", "note", LOGITS + 3e4, LABELS, what="float64"),
    Wrong("common-scale", "warning", LOGITS * 1000, LABELS, along={"common-scale"}, what="too large for float32"),
    Wrong("common-scale", "error", LOGITS / 255, LABELS, what="too small"),
    Wrong("common-scale", "error", LOGITS * 20, LABELS, what="too large"),
    Wrong("saturation", "note", *calibrated(n=3000, c=3, scale=8.0, seed=2, dtype=np.float32)),
    Wrong("saturation", "warning", _CONFIDENT, _CONFIDENT_LABELS, what="half of the rows"),
    Wrong("loss-at-ln-c", "warning", LOGITS * 1e-2, _rng(9).permutation(LABELS)),
    Wrong("loss-at-prior", "warning", _BIASED + _rng().normal(size=_BIASED.shape) * 1e-3, _BIASED_LABELS,
          along={"imbalance-explains-accuracy"}),
    Wrong("imbalance-explains-accuracy", "note", _HARD, _HARD_LABELS),
    Wrong("imbalance-explains-accuracy", "warning", _BIASED + _rng().normal(size=_BIASED.shape) * 1e-3,
          _BIASED_LABELS, along={"loss-at-prior"}, what="nothing known"),
    Wrong("labels-off-by-one", "error", LOGITS, LABELS + 1, what="from 1"),
    Wrong("labels-off-by-one", "error", LOGITS, LABELS - 1, what="from -1"),
    Wrong("labels-off-by-one", "error", LOGITS, (LABELS + 1) % C, what="ends joined"),
    Wrong("labels-off-by-one", "error", LOGITS[:60], LABELS[:60] + 1, what="few rows"),
    Wrong("labels-one-hot", "warning", LOGITS, np.eye(C)[LABELS]),
    Wrong("labels-one-hot", "warning", LOGITS, np.eye(C, dtype=bool)[LABELS], what="bool"),
    Wrong("labels-soft", "note", LOGITS, 0.8 * np.eye(C)[LABELS] + 0.02),
    Wrong("labels-strings", "warning", LOGITS, np.array([f"kind {y}" for y in LABELS])),
    Wrong("labels-strings", "note", LOGITS, [str(y) for y in LABELS], what="numbers"),
    Wrong("labels-not-integers", "note", LOGITS, LABELS.astype(float)),
    Wrong("labels-by-value", "warning", LOGITS, 3 + LABELS * 7),
    Wrong("labels-by-value", "warning", *_binary([-1, 1]), what="-1 and 1"),
    Wrong("labels-by-value", "warning", *_binary([0, 255]), what="0 and 255"),
    Wrong("labels-unreadable", "error", LOGITS, LABELS + 0.5, what="fractions"),
    Wrong("labels-unreadable", "error", LOGITS, [f"word {y % 9}" for y in LABELS], what="too few words"),
    Wrong("labels-unreadable", "error", LOGITS, [f"word {n}" for n in range(N)], what="too many words"),
    Wrong("labels-unreadable", "error", LOGITS, ["bird"] * N, {"class_names": NAMES}, what="unknown words"),
    Wrong("labels-unreadable", "error", LOGITS, P + 1, what="no distributions"),
    Wrong("labels-out-of-range", "error", LOGITS, _set(LABELS, [3, 9], 255)),
    Wrong("labels-out-of-range", "error", LOGITS, _set(LABELS, [3, 9], -1), what="-1"),
    Wrong("labels-out-of-range", "error", LOGITS, _set(LABELS, [3, 9], [77, 200]), what="two values"),
    Wrong("labels-ignored", "note", LOGITS, _set(LABELS, [3, 9], -100)),
    Wrong("classes-permuted", "error", LOGITS, _ORDER[LABELS]),
    Wrong("classes-permuted", "error", LOGITS[:, :2], 1 - (LOGITS[:, 0] < LOGITS[:, 1]), what="two swapped",
          along={"underconfident"}),
    Wrong("labels-shifted-rows", "error", LOGITS, np.roll(LABELS, 1)),
    Wrong("labels-shifted-rows", "error", LOGITS, np.roll(LABELS, -2), what="by two"),
    Wrong("labels-shuffled", "error", LOGITS, _rng(9).permutation(LABELS)),
    Wrong("labels-shuffled", "error", _WEAK, _rng(2).permutation(_WEAK_LABELS), what="20 classes, half sure"),
    Wrong("labels-shuffled", "error", _MANY, _rng(3).permutation(_MANY_LABELS), what="100 classes"),
    Wrong("labels-shuffled", "error", LOGITS * 50, _rng(9).permutation(LABELS), what="and a scale",
          along={"common-scale", "saturation"}),
    Wrong("labels-shifted-rows", "error", LOGITS, np.roll(_ORDER[LABELS], 1), what="and another order",
          along={"classes-permuted"}),
    Wrong("classes-permuted", "error", LOGITS, np.roll(_ORDER[LABELS], 1), what="and other rows",
          along={"labels-shifted-rows"}),
    Wrong("overconfident", "warning", LOGITS * 2, LABELS),
    Wrong("overconfident", "note", LOGITS * 1.35, LABELS, what="a little"),
    Wrong("underconfident", "warning", LOGITS / 2, LABELS),
    Wrong("underconfident", "warning", LOGITS, LOGITS.argmax(1), what="all right"),
    Wrong("constant-class", "warning", np.hstack([LOGITS, np.full((N, 2), -30.0)]), LABELS),
    Wrong("dead-class", "warning", _UNSEEN, LABELS, along={"overconfident", "constant-class"}),
    Wrong("class-without-labels", "warning", LOGITS[LABELS != 4], LABELS[LABELS != 4]),
    Wrong("duplicate-rows", "warning", LOGITS[_WRAPPED], LABELS[_WRAPPED], what="wrapped"),
    Wrong("duplicate-rows", "note", np.vstack([LOGITS[5:6], LOGITS]), np.append(LABELS[5], LABELS), what="one"),
    Wrong("duplicate-rows", "note", *calibrated(c=3, whole=True), what="by accident"),
    Wrong("loss-confirmed", "note", LOGITS, LABELS, {"loss": _LOSS}),
    Wrong("loss-convention", "warning", LOGITS, LABELS,
          {"loss": f"{_LOSS / np.log(2):.4f}"}),
    Wrong("loss-unexplained", "warning", LOGITS, LABELS, {"loss": "123.4567"}),
    Wrong("loss-ambiguous", "note", LOGITS, LABELS, {"loss": "0.0"}),
    Wrong("loss-not-finite", "error", _set(LOGITS, (7, 3), np.nan), LABELS, {"loss": "nan"}, {"not-finite"}),
    Wrong("loss-not-finite", "error", _set(LOGITS, (5, LABELS[5]), -np.inf), LABELS, {"loss": "inf"}, {"infinite-loss"},
          what="infinite"),
    Wrong("loss-not-finite", "error", LOGITS, np.full(N, -100), {"loss": "NaN"}, what="no rows"),
    Wrong("loss-not-finite", "error", _set(LOGITS, (np.arange(50), (LABELS[:50] + 1) % C), -np.inf), LABELS,
          {"loss": "nan"}, what="0 log 0"),
    Wrong("loss-not-finite", "error", LOGITS.astype(np.float32) + 100, LABELS, {"loss": float("nan")}, what="overflow"),
    Wrong("loss-not-finite", "warning", LOGITS, LABELS, {"loss": "nan"}, what="elsewhere"),
]  # fmt: skip
CODES = {wrong.code for wrong in WRONG}
