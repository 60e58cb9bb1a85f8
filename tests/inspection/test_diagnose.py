"""Each finding on data that has its fault; clean data has none of them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import softnll as sn
from diagnose_cases import CODES, LABELS, LOGITS, NAMES, SURE, SURE_LABELS, WRONG, C, N, P, calibrated, only, severe
from softnll._inspection.diagnose import checks
from softnll._inspection.diagnose.checks import CHECKS
from softnll._inspection.diagnose.finding import Evidence, Finding, Findings, texts
from softnll._inspection.diagnose.observations import observe
from softnll._inspection.diagnose.printed_loss import as_printed

HOSTILE = "<script>alert(1)</script>"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.code} {wrong.what}".strip())
def test_each_finding_is_found_and_is_the_only_one(wrong):
    found = sn.diagnose(wrong.scores, wrong.labels, **wrong.options)
    assert (wrong.code, wrong.severity) in [(each.code, each.severity) for each in found], found
    assert severe(found) - {wrong.code} <= set(wrong.along), found
    assert len({each.code for each in found}) == len(found) or "common-scale" in {wrong.code, *wrong.along}


@pytest.mark.parametrize("code", sorted(CODES))
def test_clean_data_has_none_of_them(code):
    codes = {each.code for each in sn.diagnose(LOGITS, LABELS)}
    assert code not in codes
    assert code not in {each.code for each in sn.diagnose(LOGITS.astype(np.float32), LABELS.tolist())}


def test_every_check_has_a_case():
    """Each check's function is seen to find something."""
    looked = {check.look.__name__ for check in CHECKS}
    assert len(looked) == len(CHECKS)
    found = set()
    for wrong in WRONG:
        loss = wrong.options.get("loss")
        printed = None if loss is None else as_printed(loss)
        obs = observe(wrong.scores, wrong.labels, wrong.options.get("class_names"), printed)
        for check in CHECKS:
            if check.look.__name__ not in found and (check.needs in {"scores", "loss"} or len(obs.labelled)):
                result = check.look(obs)
                found |= {check.look.__name__} if isinstance(result, Finding) else set()
    assert found == looked


def test_every_code_has_a_case_and_is_documented():
    names = [name.partition("/") for name in texts()]
    assert {code for code, _, _ in names} == CODES
    source = "".join(path.read_text(encoding="utf-8") for path in Path(checks.__file__).parent.glob("*.py"))
    assert [name for name in names if not (name[0] in source and name[2] in source)] == []
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`([a-z0-9-]+)`", page)) >= CODES


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


def test_the_temperature_that_calibrates():
    over = only(sn.diagnose(LOGITS * 2, LABELS), "overconfident")
    assert over.evidence["temperature"] == pytest.approx(sn.fit_temperature(LOGITS * 2, LABELS))
    assert over.evidence["loss_mended"] < over.evidence["loss"] == pytest.approx(sn.cross_entropy(LOGITS * 2, LABELS))
    assert f"{over.evidence['temperature']:.4g}" in over.remedy


def test_what_is_significant_and_does_not_matter_is_not_reported():
    """With 40 000 rows a temperature of 1.1 is beyond doubt, and gains less than 1 % of the loss."""
    scores, labels = calibrated(n=40_000)
    assert 1.09 < sn.fit_temperature(scores * 1.1, labels) < 1.11
    assert sn.diagnose(scores * 1.1, labels) == []


def test_chance_without_confidence_is_not_called_shuffled():
    """A classifier that always expects the frequent class, too surely, is right as often as without any relation."""
    rng = np.random.default_rng(9)
    labels = (rng.random(400) < 0.1).astype(int)
    scores = np.stack([np.full(400, 4.5), 0.6 * labels + rng.normal(size=400) * 0.5], axis=1)
    assert "labels-shuffled" not in {each.code for each in sn.diagnose(scores, labels)}


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


def test_half_of_a_few_rows_is_no_warning():
    found = sn.diagnose(np.eye(3, dtype=np.float32) * 20, [0, 1, 2])
    assert only(found, "saturation").severity == "note"


@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
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
def test_invalid_scores_or_labels_raise_an_error_with_the_reason(scores, labels, error, message):
    with pytest.raises(error, match=message):
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


def test_the_checks_that_ran_are_listed():
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
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert [each["code"] for each in content["findings"]] == [each.code for each in found]
    assert all(each["evidence"]["sentence"] for each in content["findings"])


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
    monkeypatch.setattr("softnll._inspection.diagnose.observations.MOST_ROWS", 1500)
    stored = _Stored(LOGITS * 2, 500)
    found = sn.diagnose(stored, LABELS)
    assert stored.most == 1500
    assert "1500 of 2000 rows (a sample with seed 0)" in str(only(found, "overconfident").evidence)
    assert sn.diagnose(stored, LABELS).to_dict() == found.to_dict()


def test_progress_is_reported():
    calls = []
    sn.diagnose(_Stored(LOGITS, 600), LABELS, watch=lambda done, total: calls.append((done, total)))
    assert calls == [(600, N), (1200, N), (1800, N), (2000, N)]


def test_nothing_is_written_to():
    scores, labels = LOGITS.copy(), LABELS.copy()
    scores.flags.writeable = labels.flags.writeable = False
    sn.diagnose(scores, labels, loss="1.0")
    np.testing.assert_array_equal(scores, LOGITS)


def test_all_nan_is_said_once_and_nothing_else_is_looked_for():
    found = sn.diagnose(np.full((200, 4), np.nan), np.arange(200) % 4)
    assert [each.code for each in found] == ["not-finite"]
    assert found.checked[1:] == ("NaN and infinities", "a single column")
    assert "softmax applied twice (no row has a softmax)" in found.unchecked


def test_what_had_nothing_to_look_at_is_not_looked_for():
    found = sn.diagnose([[0.0, -np.inf], [-np.inf, 1.0], [0.0, -np.inf]], [1, 0, 1])
    assert "confidence beside accuracy (no row has a finite loss)" in found.unchecked
    few = sn.diagnose(LOGITS[:30], LABELS[:30])
    assert "a loss of ln C (fewer than 100 rows)" in few.unchecked
    assert "constant columns" in few.checked


def test_calibration_is_judged_where_every_row_has_a_zero():
    scores = LOGITS * 2
    scores[np.arange(N), (LABELS + 1) % C] = -np.inf
    assert "overconfident" in {each.code for each in sn.diagnose(scores, LABELS)}
    assert "overconfident" in {each.code for each in sn.diagnose(sn.softmax(scores), LABELS)}


def test_negated_scores_are_read_with_their_sign_turned():
    evidence = only(sn.diagnose(-LOGITS, LABELS), "scores-negated").evidence
    assert evidence["accuracy_negated"] == pytest.approx((LOGITS.argmax(1) == LABELS).mean())
    assert "overconfident" in {each.code for each in sn.diagnose(-2 * LOGITS, LABELS)}


def test_one_column_is_judged_as_two():
    scores, labels = calibrated(n=3000, c=2, scale=3.0)
    p = sn.softmax(scores * 2)[:, 1]
    for column, true in ((p, labels), (p[None], labels), (p[:, None], labels.astype(bool)), (p, labels + 1)):
        assert severe(sn.diagnose(column, true)) - {"labels-off-by-one"} == {
            "single-column",
            "probabilities-as-logits",
            "overconfident",
        }
    assert severe(sn.diagnose(1 - p, labels)) >= {"single-column", "classes-permuted", "overconfident"}
    assert severe(sn.diagnose(scores[:, 1] - scores[:, 0], labels)) == {"single-column"}


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        (LABELS, LOGITS, "swapped"),
        (LABELS[None], P, "swapped"),
        (LABELS % 2, P[:, 0], "swapped"),
        (["cat"] * 5, [0] * 5, "words"),
    ],
)
def test_arguments_in_the_wrong_places_are_named(scores, labels, says):
    with pytest.raises((ValueError, TypeError), match=says):
        sn.diagnose(scores, labels)


def test_a_scale_is_named_only_where_accuracy_shows_it():
    found = sn.diagnose(LOGITS * 50, np.random.default_rng(9).permutation(LABELS))
    assert not [each for each in found if "multiplied" in each.title]


def _with_doubles(rng):
    """Return which rows a file has that holds 5 % of its rows twice, anywhere."""
    return rng.permutation(np.append(np.arange(N), rng.choice(N, N // 20, replace=False)))


@pytest.mark.parametrize(
    ("rows", "severity"),
    [
        (np.tile(np.arange(500), 3), "warning"),
        (np.repeat(np.arange(500), 2), "warning"),
        (np.concatenate([np.arange(640), np.arange(576, N)]), "warning"),  # a batch saved twice
        (np.append(np.arange(N), 0), "warning"),
        (_with_doubles(np.random.default_rng(0)), "warning"),
        (np.append(np.arange(N), [7, 400]), "note"),
    ],
)
def test_rows_that_repeat_for_a_reason(rows, severity):
    assert only(sn.diagnose(LOGITS[rows], LABELS[rows]), "duplicate-rows").severity == severity
