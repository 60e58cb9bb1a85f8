"""The derivation against the core, and in hard cases: infinities, ties, one class, a thousand, names with markup."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import softnll as sn
from cases import SCORES, TRUE
from softnll._cli.main import main
from softnll._inspection.explain.derivation.formula import digits

HOSTILE = "<script>alert(1)</script>"


@pytest.mark.parametrize("row", [0, 1, 2])
def test_its_numbers_are_those_of_the_public_functions(explained, row):
    derived = explained.derivation(row)
    np.testing.assert_allclose(derived.probabilities, explained.probabilities[row], rtol=1e-15)
    np.testing.assert_allclose(derived.nll, explained.nll[row], rtol=1e-15)
    np.testing.assert_allclose(derived.gradient, explained.gradient[row], rtol=1e-15)
    np.testing.assert_allclose(derived.jacobian, sn.softmax_jacobian(SCORES[row]), rtol=1e-15)
    assert derived.ahead + derived.log_total == pytest.approx(derived.nll, rel=1e-15)


@given(
    st.lists(st.floats(-300, 300), min_size=1, max_size=12).flatmap(
        lambda scores: st.tuples(st.just(scores), st.integers(0, len(scores) - 1))
    )
)
def test_the_chain_rule_over_all_probabilities_gives_the_gradient(case):
    scores, target = case
    derived = sn.explain([scores], [target]).derivation(0)
    np.testing.assert_allclose(derived.gradient.sum(), 0, atol=1e-15)
    np.testing.assert_allclose(derived.jacobian.sum(axis=0), 0, atol=1e-15)
    if derived.whole:  # else step 7 shows no numbers
        by_chain = derived.loss_by_probability @ derived.jacobian
        np.testing.assert_allclose(by_chain, derived.gradient, rtol=1e-12, atol=1e-290)


def test_the_text_has_every_step_with_the_rows_numbers(explained):
    text = explained.derivation(0).text()
    assert re.findall(r"^(\d)\. ", text, re.MULTILINE) == list("12345678")
    for shown in [
        "e_k = exp(f_k - m)",
        "r = 0.417667, S = 1 + r = 1.41767",
        "= 0 + 0.349012 = 0.349012 nats",
        "∂L/∂p_y = -(1/p_y) = -1.41767",
        "= p_y·(1 - p_y) = 0.705385 × 0.294615 = 0.207817",  # noqa: RUF001
        "∂p_y/∂f_dog = -0.705385 × 0.259496 = -0.183045",  # noqa: RUF001
        "∂L/∂f_k = Σ_i ∂L/∂p_i·∂p_i/∂f_k",
        "k = y: -(1/p_y)·p_y·(1 - p_y) = p_y - 1 = -0.294615",
        "k other than y: -(1/p_y)·(-p_y·p_k) = p_k",
    ]:
        assert shown in text
    assert str(explained.derivation(0)) == text
    assert repr(explained.derivation(0)) == (
        "Derivation[row 0, 3 classes] nll 0.349012 gradient at the true class -0.294615"
    )


def test_the_html_shows_the_same_as_the_text_and_is_well_formed(explained):
    page = explained.derivation(2)._repr_html_()
    root = ET.fromstring(f"<div>{page}</div>")  # noqa: S314 - our own
    maths = list(root.iter("math"))
    assert (
        len(maths)
        == sum(line.startswith("     ") and " = " in line for line in explained.derivation(2).text().splitlines()) - 3
    )
    assert [cell.text for cell in root.iter("td")].count("-0.512144") == 3
    assert "−" in page  # noqa: RUF001 - a minus sign in formulas
    assert {cell.get("title") for cell in root.iter("td") if cell.get("class") == "true"} == {"the true class"}


def test_seventeen_ahead_in_float32_is_not_certain():
    derived = sn.explain(np.float32([[17, 0, 0]]), [0]).derivation(0)
    rest = 2 * np.exp(-17.0)
    assert derived.nll == pytest.approx(np.log1p(rest), rel=1e-15)
    assert derived.gradient[0] == pytest.approx(-rest / (1 + rest), rel=1e-15)
    assert "1 - 8.28e-08" in derived.text()
    assert "= 0 + 8.28e-08 = 8.28e-08 nats" in derived.text()
    assert "<msup><mn>10</mn><mn>−8</mn></msup>" in derived._repr_html_()  # noqa: RUF001


def test_a_tie_shares_the_probability(explained):
    derived = explained.derivation(2)
    assert derived.probabilities[0] == derived.probabilities[1]
    assert derived.exponentials[:2].tolist() == [1, 1]
    assert derived.place == 1


def test_one_class_has_nothing_to_learn():
    derived = sn.explain([[3.0]], [0]).derivation(0)
    assert (derived.nll, derived.gradient.tolist(), derived.jacobian.tolist()) == (0, [0], [[0]])
    assert "nothing to learn" in derived.text()
    assert "-0" not in re.sub(r"\d?e-\d+", "", derived.text())
    assert derived._repr_html_()


@pytest.mark.parametrize(
    ("scores", "target", "nll", "gradient"),
    [
        ([0.0, -np.inf], 1, np.inf, [1, -1]),
        ([0.0, -np.inf], 0, 0, [0, 0]),
        ([17.0, np.inf, 0.0], 1, 0, [0, 0, 0]),
        ([17.0, np.inf, 0.0], 0, np.inf, [-1, 1, 0]),
        ([1000.0, 0.0], 1, 1000, [1, -1]),
    ],
)
def test_infinite_and_far_scores(scores, target, nll, gradient):
    derived = sn.explain([scores], [target]).derivation(0)
    assert derived.nll == nll
    np.testing.assert_array_equal(derived.gradient, gradient)
    for shown in (derived.text(), derived._repr_html_()):
        assert "nan" not in shown.lower()
        if derived.probabilities[target if target < len(scores) else 0] == 0:
            assert "is cancelled first" in shown
    json.dumps(derived.to_dict(), allow_nan=False)


def test_of_a_thousand_classes_the_likeliest_are_shown_and_the_rest_together():
    scores = np.random.default_rng(0).normal(size=1000) * 3
    target = int(scores.argmin())
    derived = sn.explain([scores], [target]).derivation(0)
    assert len(derived.names) == 7
    assert (derived.n_rest, derived.names[-1]) == (994, "994 others")
    assert set(np.argsort(-scores)[:5]) | {target} == set(derived.classes)
    assert derived.probabilities.sum() == pytest.approx(1, rel=1e-14)
    np.testing.assert_allclose(derived.jacobian.sum(axis=1), 0, atol=1e-15)
    np.testing.assert_allclose(derived.loss_by_probability @ derived.jacobian, derived.gradient, rtol=1e-12)
    assert max(map(len, derived.text().splitlines())) < 180
    assert len(derived._repr_html_()) < 40_000


@pytest.mark.parametrize(("C", "columns"), [(7, 7), (8, 7)])
def test_one_class_alone_is_never_called_the_rest(C, columns):
    derived = sn.explain([np.arange(float(C))], [0]).derivation(0)
    assert len(derived.names) == columns
    assert derived.n_rest == (0 if C == 7 else 2)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.int8, ">f8"])
def test_every_type_is_derived_in_float64(dtype):
    derived = sn.explain(SCORES.astype(dtype), TRUE).derivation(0)
    assert derived.nll == pytest.approx(0.3490122167681864, rel=1e-14)


def test_names_are_text_and_nothing_else():
    derived = sn.explain([[1.0, 2.0]], [0], class_names=[HOSTILE, '"><img src=x onerror=alert(1)>\x1b[31m'])
    page, text = derived.derivation(0)._repr_html_(), derived.derivation(0).text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in text


def test_rows_that_are_not_there_and_missing_targets_say_so(explained):
    assert explained.derivation(-1).row == 2
    for row in (3, -4):
        with pytest.raises(IndexError, match="allowed: 0 to 2"):
            explained.derivation(row)
    with pytest.raises(ValueError, match="true class"):
        sn.explain(SCORES).derivation(0)


def test_digits_are_sensible():
    assert [digits(x) for x in (1.0, 0.1 + 0.2, 123456789.0, 1e-300)] == ["1", "0.3", "1.235e+08", "1e-300"]


@pytest.fixture
def call(capsys, monkeypatch):
    """Run the command in this process; return code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def _call(*arguments):
        code = main(list(arguments))
        return (code, *capsys.readouterr())

    return _call


def test_the_command_prints_the_derivation(call):
    code, out, err = call("explain", "--derivation", "0")
    assert (code, err) == (0, "")
    assert "∂p_y/∂f_dog = -0.705385 × 0.259496 = -0.183045" in out  # noqa: RUF001
    assert [line.split() for line in out.splitlines() if line.startswith("     gradient")] == [
        ["gradient", "-0.294615", "0.259496", "0.035119"]
    ]
    code, out, err = call("explain", "--derivation", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["gradient"] == pytest.approx([0.48785555, -0.51214445, 0.02428890], abs=1e-8)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--derivation", "3"], "allowed: 0 to 2"),
        (["--derivation", "-1"], "allowed: 0 to 2"),
        (["--derivation", "x"], "--derivation"),
        (["--scores", "1,2", "--derivation", "0"], "--target"),
    ],
)
def test_the_command_refuses_in_one_line(call, arguments, says):
    code, out, err = call("explain", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("softnll: ")
    assert err.count("\n") == 1
    assert says in err
