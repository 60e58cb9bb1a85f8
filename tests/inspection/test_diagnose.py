"""Each finding on data made to have it; clean data has none of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import softnll as sn
from diagnose_cases import CODES, LABELS, LOGITS, NAMES, SURE, SURE_LABELS, WRONG, C, N, P, calibrated
from softnll import diagnosis
from softnll.diagnosis.checks import CHECKS
from softnll.diagnosis.finding import Evidence, Finding, Findings

HOSTILE = "<script>alert(1)</script>"


def severe(found):
    """Return codes of errors and warnings."""
    return {each.code for each in found if each.severity != "note"}


def only(found, code):
    """Return the finding with this code; there must be one."""
    (finding,) = [each for each in found if each.code == code]
    return finding


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.code} {wrong.what}".strip())
def test_each_finding_is_found_and_is_the_only_one(wrong):
    found = sn.diagnose(wrong.scores, wrong.labels, **wrong.options)
    assert (wrong.code, wrong.severity) in [(each.code, each.severity) for each in found], found
    assert severe(found) - {wrong.code} <= set(wrong.along), found
    assert len({each.code for each in found}) == len(found) or wrong.code == "common-scale"


@pytest.mark.parametrize("code", sorted(CODES))
def test_clean_data_has_none_of_them(code):
    codes = {each.code for each in sn.diagnose(LOGITS, LABELS)}
    assert code not in codes
    assert code not in {each.code for each in sn.diagnose(LOGITS.astype(np.float32), LABELS.tolist())}


def test_every_check_has_a_case():
    """Each check's function is seen to find something."""
    looked = {check.look.__name__ for check in CHECKS}
    assert len(looked) == len(CHECKS)
    found = {check.look.__name__ for wrong in WRONG for check in CHECKS if _finds(check, wrong)}
    assert found == looked


def test_every_code_has_a_case_and_is_documented():
    source = "".join(path.read_text(encoding="utf-8") for path in Path(diagnosis.__file__).parent.glob("*.py"))
    codes = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', source)) | {"overconfident", "underconfident"}
    assert codes == CODES
    page = (Path(__file__).parents[1] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z0-9-]+)`", page)) >= CODES


_CASES = {}


def _finds(check, wrong):
    from softnll.diagnosis.case import open_case  # noqa: PLC0415
    from softnll.diagnosis.printed import as_printed  # noqa: PLC0415

    if id(wrong) not in _CASES:
        loss = wrong.options.get("loss")
        names = wrong.options.get("class_names")
        printed = None if loss is None else as_printed(loss)
        _CASES[id(wrong)] = open_case(wrong.scores, wrong.labels, names, printed, lambda *_: None)
    case = _CASES[id(wrong)]
    if check.needs != "scores" and len(case.labelled) == 0:
        return False
    return check.look(case) is not None


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    n=st.integers(1, 3000),
    c=st.integers(2, 200),
    scale=st.floats(0.7, 6),
    spread=st.floats(0, 2),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_calibrated_classifiers_raise_no_alarm(n, c, scale, spread, seed, dtype):
    """At most 10 tests of 1e-4 each: 0.15 alarms are expected in these 150 by the bound, far fewer come."""
    bias = np.random.default_rng(seed).normal(size=c) * spread
    scores, labels = calibrated(n, c, scale, seed, dtype, bias)
    assert severe(sn.diagnose(scores, labels)) == set()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_types_raise_no_alarm(dtype):
    scores, labels = calibrated(3000, 20, 3.0, 4, dtype)
    assert severe(sn.diagnose(scores, labels)) == set()


def test_our_own_classifier_on_digits_raises_no_alarm():
    X, y = load_digits(return_X_y=True)
    model = sn.SoftmaxClassifier(C=10.0).fit(X[:898] / 16, y[:898])
    scores = model.decision_function(X[898:] / 16)
    assert sn.diagnose(scores, y[898:]) == []
    assert severe(sn.diagnose(model.predict_proba(X[898:] / 16), y[898:] + 1)) == {
        "probabilities-as-logits",
        "labels-off-by-one",
    }
    # Penalised a hundred times as much it is 67 % sure and 91 % right: that is no false alarm.
    timid = sn.SoftmaxClassifier(C=0.1).fit(X[:898] / 16, y[:898])
    assert severe(sn.diagnose(timid.decision_function(X[898:] / 16), y[898:])) == {"underconfident"}


def test_the_numbers_of_the_double_softmax():
    found = sn.diagnose(sn.softmax(sn.softmax(SURE)), SURE_LABELS)
    evidence = only(found, "softmax-twice").evidence
    assert evidence["floor"] == pytest.approx(1.461150, abs=5e-7)
    assert evidence["ceiling"] == pytest.approx(math.e / (math.e + 9))
    assert evidence["loss"] >= evidence["floor"]


def test_probabilities_are_judged_by_their_own_loss():
    evidence = only(sn.diagnose(P, LABELS), "probabilities-as-logits").evidence
    assert evidence["loss"] == pytest.approx(sn.cross_entropy(LOGITS, LABELS))
    assert evidence["loss_as_logits"] == pytest.approx(sn.cross_entropy(P, LABELS))
    assert evidence["loss_as_logits"] > evidence["floor"] == pytest.approx(math.log(math.e + C - 1) - 1)


def test_where_nan_and_infinities_are():
    scores = LOGITS.copy()
    scores[7, 3], scores[9, 1], scores[11, 2] = np.nan, np.inf, -np.inf
    evidence = only(sn.diagnose(scores, LABELS), "not-finite").evidence
    assert evidence["NaN"] == {"count": 1, "first_row": 7, "first_column": 3}
    assert evidence["+inf"]["first_row"] == 9
    assert evidence["-inf"]["first_column"] == 2
    assert evidence["rows_without_softmax"] == 2


def test_the_temperature_that_mends():
    over = only(sn.diagnose(LOGITS * 2, LABELS), "overconfident")
    assert over.evidence["temperature"] == pytest.approx(sn.fit_temperature(LOGITS * 2, LABELS))
    assert over.evidence["loss_mended"] < over.evidence["loss"] == pytest.approx(sn.cross_entropy(LOGITS * 2, LABELS))
    assert f"{over.evidence['temperature']:.4g}" in over.remedy


def test_what_is_significant_and_does_not_matter_is_not_told():
    """With 40 000 rows a temperature of 1.1 is beyond doubt, and gains less than 1 % of the loss."""
    scores, labels = calibrated(n=40_000)
    assert 1.09 < sn.fit_temperature(scores * 1.1, labels) < 1.11
    assert sn.diagnose(scores * 1.1, labels) == []


def test_chance_without_confidence_is_not_called_shuffled():
    scores, labels = calibrated(scale=0.5)
    codes = {each.code for each in sn.diagnose(scores, np.random.default_rng(9).permutation(labels))}
    assert codes == {"overconfident"}


def test_the_reading_that_fits_is_used_for_the_rest():
    """With labels off by one and probabilities for scores, everything else is as if neither were so."""
    found = sn.diagnose(P, np.eye(C)[LABELS].argmax(1) + 1, loss=float(sn.cross_entropy(LOGITS, LABELS)))
    assert severe(found) == {"probabilities-as-logits", "labels-off-by-one"}
    assert "loss-confirmed" in {each.code for each in found}


def test_the_order_of_classes_is_got_back():
    order = np.roll(np.arange(C), 3)
    evidence = only(sn.diagnose(LOGITS, order[LABELS]), "classes-permuted").evidence
    assert sorted(evidence["moved"]) == sorted([int(order[c]), c] for c in range(C))


def test_saturation_is_counted_as_torch_has_it():
    scores, labels = calibrated(3000, 3, 8.0, 2, np.float32)
    x = torch.tensor(scores, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(x, torch.tensor(labels), reduction="none")
    loss.sum().backward()
    slopes = x.grad.numpy()[np.arange(3000), labels]
    evidence = only(sn.diagnose(scores, labels), "saturation").evidence
    assert evidence["loss_zero"] == int((loss == 0).sum())
    assert evidence["gradient_zero"] == int((slopes == 0).sum())


@pytest.mark.parametrize(
    ("loss", "code"),
    [
        (lambda: sn.cross_entropy(LOGITS, LABELS, reduction="sum"), "sum-nats"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / math.log(2), "mean-log2"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / math.log(10), "mean-log10"),
        (lambda: sn.cross_entropy(P, LABELS), "double-softmax"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, label_smoothing=0.1), "label-smoothing-0.1"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, ignore_index=0), "ignoring-class-0"),
        (lambda: sn.cross_entropy(LOGITS, LABELS, class_weight=1 / np.bincount(LABELS)), "class-mean"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / C, "mean-over-classes"),
        (lambda: sn.cross_entropy(LOGITS, LABELS) / 64, "mean-over-batch-64"),
        (lambda: math.exp(sn.cross_entropy(LOGITS, LABELS)), "perplexity"),
        (lambda: sn.cross_entropy(LOGITS, (LABELS + 1) % C), "labels-plus-1"),
        (lambda: -P[np.arange(N), LABELS].mean(), "minus-probability"),
        (lambda: -LOGITS[np.arange(N), LABELS].mean(), "minus-score"),
        (lambda: torch.nn.functional.binary_cross_entropy_with_logits(
            torch.tensor(LOGITS), torch.nn.functional.one_hot(torch.tensor(LABELS)).double()), "binary-mean"),
        (lambda: ((P - np.eye(C)[LABELS]) ** 2).sum(1).mean(), "brier"),
    ],
)  # fmt: skip
def test_conventions(loss, code):
    value = float(loss())
    found = only(sn.diagnose(LOGITS, LABELS, loss=f"{value:.6f}"), "loss-convention")
    assert found.evidence["conventions"][code] == pytest.approx(value, rel=1e-6, abs=1e-6)
    assert found.evidence["mean_loss"] == pytest.approx(sn.cross_entropy(LOGITS, LABELS))
    assert found.evidence["by_accident"] < 0.05


def test_half_of_a_few_rows_is_no_warning():
    found = sn.diagnose(np.eye(3, dtype=np.float32) * 20, [0, 1, 2])
    assert only(found, "saturation").severity == "note"


def test_few_rows_that_show_nothing_of_the_frequencies_are_no_warning():
    """Nine in ten rows are of one class; 120 rows do not show whether the classifier knows more than that."""
    for seed in range(20):
        scores, labels = calibrated(n=120, c=3, scale=0.8, seed=seed, bias=[3.0, 0.0, 0.0])
        assert severe(sn.diagnose(scores, labels)) == set()


def test_rounded_probabilities():
    scores, labels = calibrated(scale=0.5)
    p = np.round(sn.softmax(scores)[np.arange(N), labels], 2)
    found = only(sn.diagnose(scores, labels, loss=f"{-np.log(p).mean():.6f}"), "loss-convention")
    assert "rounded-2-mean" in found.evidence["conventions"]
    # A probability that rounds to 0 costs infinitely much, and raises no warning of NumPy's.
    rare = sn.diagnose([[9.0, 0.0]] * 3 + [[0.0, 1.0]] * 3, [1, 0, 0, 0, 1, 1], loss="4.0000")
    assert only(rare, "loss-unexplained")


def test_the_loss_that_is_widely_copied():
    scores, labels = [[5, 4, 2], [4, 2, 8], [4, 4, 1]], [0, 2, 1]
    found = only(sn.diagnose(scores, labels, loss="1.07"), "loss-convention")
    assert "rounded-2-sum-of-rounded" in found.evidence["conventions"]
    assert "sum-nats" in only(sn.diagnose(scores, labels, loss="1.09"), "loss-convention").evidence["conventions"]
    assert only(sn.diagnose(scores, labels, loss=0.36), "loss-confirmed")


def test_the_loss_of_probabilities_taken_for_logits():
    found = only(sn.diagnose(P, LABELS, loss=f"{sn.cross_entropy(P, LABELS):.5f}"), "loss-convention")
    assert {"double-softmax", "scores-as-logits"} <= set(found.evidence["conventions"])
    assert found.title.endswith("with softmax applied once more")


def test_the_mean_of_the_means_of_unequal_batches():
    losses = sn.cross_entropy(LOGITS, LABELS, reduction="none")
    value = np.mean([losses[start : start + 64].mean() for start in range(0, N, 64)])
    found = only(sn.diagnose(LOGITS, LABELS, loss=f"{value:.7f}"), "loss-convention")
    assert list(found.evidence["conventions"]) == ["mean-of-batch-means-64"]


def test_the_digits_of_a_printed_loss_count():
    loss = float(sn.cross_entropy(LOGITS, LABELS))
    assert only(sn.diagnose(LOGITS, LABELS, loss=f"{loss:.2f}"), "loss-confirmed")
    assert only(sn.diagnose(LOGITS, LABELS, loss=f"{loss + 0.003:.2f}00"), "loss-unexplained")
    near = {each.code for each in sn.diagnose(LOGITS, LABELS, loss=f"{loss + 2e-4:.4f}")}
    assert "loss-confirmed" not in near


@pytest.mark.parametrize("loss", ["", "abc", "1.07x", "nan", "inf", "1e999", "1_0", "\x1b[31m", "1" * 60, None, [1, 2]])
def test_a_loss_that_is_no_number_is_refused(loss):
    if loss is None:
        assert "the convention of the printed loss (none given)" in sn.diagnose(LOGITS, LABELS).unchecked
        return
    with pytest.raises(ValueError, match="loss"):
        sn.diagnose(LOGITS, LABELS, loss=loss)


@pytest.mark.parametrize(
    ("scores", "labels", "error", "says"),
    [
        ([1.0, 2.0], [0], ValueError, r"\(2,\); expected \(rows, classes\)"),
        (np.zeros((0, 3)), [], ValueError, "at least one of each"),
        (np.zeros((2, 0)), [0, 0], ValueError, "at least one of each"),
        ([[1, 2], [3]], [0, 0], ValueError, "not a table"),
        ([["a", "b"]], [0], TypeError, "real numbers"),
        (np.zeros((2, 2), bool), [0, 1], TypeError, "real numbers"),
        (LOGITS, LABELS[:5], ValueError, rf"\(5,\); expected \({N},\)"),
        (LOGITS.T, LABELS, ValueError, "may be transposed"),
    ],
)
def test_what_cannot_be_diagnosed_says_why(scores, labels, error, says):
    with pytest.raises(error, match=says):
        sn.diagnose(scores, labels)


def test_class_names_must_be_as_many_as_columns():
    with pytest.raises(ValueError, match="3 names; the scores have 10 columns"):
        sn.diagnose(LOGITS, LABELS, class_names=["a", "b", "c"])


def test_names_are_text_and_nothing_else():
    names = [HOSTILE, "\x1b[31mred", *NAMES[2:]]
    found = sn.diagnose(LOGITS, LABELS.astype(str), class_names=names)
    dead = sn.diagnose(np.where(np.arange(C) < 2, -20.0, LOGITS), LABELS, class_names=names)
    page = found._repr_html_() + dead._repr_html_() + only(dead, "dead-class")._repr_html_()
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in page + str(dead) + repr(dead)
    assert "\x1b" not in str(sn.diagnose(LOGITS, ["\x1b[31m"] * N))


def test_a_finding_is_shown_in_each_way():
    finding = only(sn.diagnose(LOGITS, LABELS + 1), "labels-off-by-one")
    assert repr(finding).startswith("Finding[error labels-off-by-one] The labels are off by one")
    lines = str(finding).splitlines()
    assert lines[0] == "error: The labels are off by one: one too high [labels-off-by-one]"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["evidence", "consequence", "remedy"]
    assert str(finding.evidence) in lines[1]
    assert isinstance(finding, sn.Finding)
    with pytest.raises(AttributeError):
        finding.code = "other"


def test_what_was_looked_for_is_said():
    found = sn.diagnose(LOGITS, LABELS)
    assert found == []
    assert "2000 rows of 10 classes: nothing found." in str(found)
    assert "softmax applied twice" in found.checked
    blind = sn.diagnose(LOGITS, LABELS + 0.5)
    assert "confidence beside accuracy (no labels)" in blind.unchecked
    assert "2 errors" in Findings([Finding("a", "error", "", Evidence(""), "", "")] * 2).summary()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.code} {wrong.what}".strip())
def test_everything_is_json(wrong):
    found = sn.diagnose(wrong.scores, wrong.labels, **wrong.options)
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [each["code"] for each in told["findings"]] == [each.code for each in found]
    assert all(each["evidence"]["sentence"] for each in told["findings"])


@pytest.mark.parametrize("make", [torch.tensor, lambda x: torch.tensor(x, requires_grad=True), np.asfortranarray])
def test_scores_of_any_kind(make):
    found = sn.diagnose(make(LOGITS * 2), torch.tensor(LABELS))
    assert [each.code for each in found] == ["overconfident"]
    assert severe(sn.diagnose(torch.tensor(LOGITS).bfloat16(), LABELS)) == set()


@pytest.mark.parametrize("dtype", [">f4", ">f8", "i2", "u1"])
def test_types_from_elsewhere(dtype):
    scores, labels = calibrated(3000, 5, 3.0)
    assert severe(sn.diagnose((scores + 20).round().astype(dtype), labels)) == set()


class _Stored:
    """Rows that are read in blocks, as from a file."""

    def __init__(self, array, step):
        self._array, self._step = array, step
        self.shape, self.dtype, self.name, self.most = array.shape, array.dtype, "stored", 0

    def rows(self, index):
        part = self._array[index]
        self.most = max(self.most, len(part))
        return part

    def blocks(self, at_most=0):  # noqa: ARG002
        for start in range(0, len(self._array), self._step):
            rows = slice(start, min(start + self._step, len(self._array)))
            yield rows, self.rows(rows)


def test_rows_in_blocks_give_the_same_findings():
    scores = np.vstack([LOGITS * 2, LOGITS[:64] * 2])
    scores[700, 3] = np.nan
    labels = np.append(LABELS, LABELS[:64])
    whole = sn.diagnose(scores, labels)
    assert sn.diagnose(_Stored(scores, 77), labels).to_dict() == whole.to_dict()
    assert [each.code for each in whole] == ["not-finite", "overconfident", "duplicate-rows"]


def test_large_scores_use_a_sample_that_is_stated(monkeypatch):
    monkeypatch.setattr("softnll.diagnosis.case.MOST_ROWS", 1500)
    stored = _Stored(LOGITS * 2, 500)
    found = sn.diagnose(stored, LABELS)
    assert stored.most == 1500
    assert "1500 of 2000 rows (a sample with seed 0)" in str(only(found, "overconfident").evidence)
    assert sn.diagnose(stored, LABELS).to_dict() == found.to_dict()


def test_progress_is_told():
    heard = []
    sn.diagnose(_Stored(LOGITS, 600), LABELS, watch=lambda done, total: heard.append((done, total)))
    assert heard == [(600, N), (1200, N), (1800, N), (2000, N)]


def test_nothing_is_written_to():
    scores, labels = LOGITS.copy(), LABELS.copy()
    scores.flags.writeable = labels.flags.writeable = False
    sn.diagnose(scores, labels, loss="1.0")
    np.testing.assert_array_equal(scores, LOGITS)
