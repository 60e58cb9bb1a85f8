"""Explanations against the worked numbers (NUMERICS §5), and what they do with hard cases."""

from __future__ import annotations

import functools
import json
import math
import subprocess
import sys

import matplotlib as mpl
import ml_dtypes
import numpy as np
import pytest
from matplotlib.figure import Figure

import softnll as sn
from cases import GRADIENTS, LOSSES, PROBABILITIES, SCORES, TRUE
from softnll._inspection.explain.figure import figure_bytes

HOSTILE = "<script>alert(1)</script>"


def test_the_worked_numbers(explained):
    np.testing.assert_allclose(explained.probabilities, PROBABILITIES, atol=5e-7)
    np.testing.assert_allclose(explained.nll, LOSSES, atol=5e-7)
    np.testing.assert_allclose(explained.gradient, GRADIENTS, atol=5e-7)
    assert (round(explained.total, 6), round(explained.mean, 6)) == (1.087329, 0.362443)
    assert explained.prediction.tolist() == [0, 2, 0]
    assert explained.ties.tolist() == [False, False, True]
    np.testing.assert_allclose(explained.margin, [0.445888, 0.961687, 0], atol=5e-7)
    assert explained.correct.tolist() == [True, True, False]


def test_every_number_is_the_public_functions_own(explained):
    """Few rows are computed by the equation, so that the last bit may differ."""
    loss, gradient = sn.cross_entropy_and_grad(SCORES, TRUE, reduction="sum")
    close = functools.partial(np.testing.assert_allclose, rtol=4 * np.finfo(np.float64).eps)
    close(explained.probabilities, sn.softmax(SCORES))
    close(explained.log_probabilities, sn.log_softmax(SCORES))
    close(explained.nll, sn.cross_entropy(SCORES, TRUE, reduction="none"))
    close(explained.gradient, gradient)
    close(explained.total, loss)
    close(explained.mean, sn.cross_entropy(SCORES, TRUE))


def test_repr_is_one_line_of_facts(explained):
    assert repr(explained) == "Explanation[3×3 float64] nll 0.362 acc 2/3 (1 tie) confidence 0.488–0.980"  # noqa: RUF001
    assert repr(sn.explain(np.float32([[1, 1], [2, 2]]))).startswith("Explanation[2×2 float32] (2 ties)")  # noqa: RUF001


def test_the_text_shows_every_stage(explained):
    text = str(explained)
    assert "0.7054*" in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip().startswith(("0 cat", "1 horse", "2 dog"))][
        9:12
    ] == ["0.35", "0.02", "0.72"]
    assert "total 1.09   mean 0.36   nats" in text
    assert "-0.5121*" in text
    assert "total 1.57   mean 0.52   bits" in explained.text(bits=True)


def test_the_words(explained):
    words = "\n".join(explained.words())
    assert "70.5 % cat, ahead of dog at 25.9 %; right. Unhappiness 0.35 nats" in words
    assert "cat and dog tie at 48.8 % each" in words
    assert "Right in 2 of 3. Total 1.09 nats, mean 0.36 nats" in words
    assert "0.34 / 0.02 / 0.71, total 1.07" in words
    assert "0.35 / 0.02 / 0.72, total 1.09" in words
    assert "rounded to two digits before the logarithm" in words
    assert "1.57 bits" in "\n".join(explained.words(bits=True))


def test_words_do_not_speak_of_rounding_where_it_does_not_show():
    assert not any("rounded" in word for word in sn.explain([[0.0, 0.0]], [0]).words())


def test_a_confident_row_is_not_called_certain_nor_its_loss_nothing():
    explained = sn.explain([[20.0, 0.0]], [0])
    assert "over 99.9 %" in explained.words()[0]
    assert "2.1e-09" in str(explained)
    assert "100.0 %" not in "".join(explained.words())


def test_the_function_is_there_whatever_was_imported_before():
    """Importing a submodule must not replace the function of the same name; each import starts without the package."""
    code = """import sys
for before in ("sn.Explanation", "import softnll._inspection.explain.explanation",
               "from softnll._inspection.explain.explanation import explain", ""):
    for name in [name for name in sys.modules if name.split(".")[0] == "softnll"]:
        del sys.modules[name]
    import softnll as sn
    exec(before)
    print(sn.explain([5, 4, 2], 0).prediction)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[0]\n" * 4, "")


def test_one_row_may_be_given_without_its_axis():
    explained = sn.explain([5, 4, 2], 0)
    assert explained.logits.shape == (1, 3)
    assert explained.nll == pytest.approx([0.349012], abs=5e-7)


def test_without_targets_there_is_no_loss():
    explained = sn.explain(SCORES)
    assert (
        explained.targets,
        explained.nll,
        explained.gradient,
        explained.total,
        explained.mean,
        explained.correct,
    ) == (None,) * 6
    assert "Gradient" not in str(explained)
    assert len(explained.words()) == 3
    assert explained.to_dict()["nll"] is None
    assert len(explained.plot().axes) == 1


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.int8, ">f8"])
def test_every_type_is_explained(dtype):
    explained = sn.explain(SCORES.astype(dtype), TRUE)
    np.testing.assert_allclose(explained.nll, LOSSES, atol=5e-7)
    json.dumps(explained.to_dict(), allow_nan=False)
    assert explained.text()
    assert explained.words()


def test_an_infinite_loss_is_shown_as_infinite():
    explained = sn.explain([[0.0, -math.inf], [1.0, 0.0]], [1, 0])
    assert explained.total == math.inf
    assert explained.to_dict()["nll"][0] == "inf"
    assert explained.to_dict()["scores"][0] == [0.0, "-inf"]
    json.dumps(explained.to_dict(), allow_nan=False)
    assert "inf" in str(explained)
    assert explained.words()
    assert explained.plot()


@pytest.mark.parametrize(
    ("scores", "targets", "names", "says"),
    [
        ([[1.0, math.nan]], None, None, "row 0 has no softmax"),
        ([[1.0, 2.0], [-math.inf, -math.inf]], None, None, "row 1 has no softmax"),
        ([[math.inf, math.inf]], None, None, "row 0 has no softmax"),
        ([], None, None, "shape"),
        (np.zeros((2, 0)), None, None, "shape"),
        (np.zeros((2, 2, 2)), None, None, "shape"),
        ([[1, 2], [3]], None, None, "not a table"),
        (SCORES, [0, 1], None, r"\(2,\)"),
        (SCORES, [0, 1, 3], None, "3"),
        (SCORES, [0, 1, -1], None, "-1"),
        (SCORES, [0, 1, -100], None, "leave such rows out"),
        (SCORES, TRUE, ["cat", "dog"], "2 names"),
    ],
)
def test_what_cannot_be_explained_says_why(scores, targets, names, says):
    with pytest.raises(ValueError, match=says):
        sn.explain(scores, targets, class_names=names)


@pytest.mark.parametrize(
    ("scores", "targets"), [(SCORES, [0.0, 1.0, 2.0]), ([["a", "b"]], None), (SCORES, ["cat"] * 3)]
)
def test_wrong_types_are_type_errors(scores, targets):
    with pytest.raises(TypeError):
        sn.explain(scores, targets)


def test_html_holds_names_as_text_only():
    page = sn.explain([[1.0, 2.0]], [0], class_names=[HOSTILE, '"><img src=x onerror=alert(1)>'])._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    assert "\x1b" not in str(sn.explain([[1.0, 2.0]], [0], class_names=["\x1b[31mred", "b"]))


def test_many_rows_and_classes_are_shortened_and_it_says_so():
    rng = np.random.default_rng(0)
    explained = sn.explain(rng.normal(size=(50, 1000)), rng.integers(0, 1000, 50))
    text = str(explained)
    assert "not shown: 42 happier rows; " in text
    assert text.count("not shown: 994 less likely classes, p = ") == 4
    assert max(map(len, text.splitlines())) < 130
    assert "And 44 happier rows" in "\n".join(explained.words())
    assert explained.plot()


def test_the_true_class_is_shown_however_unlikely():
    scores = np.arange(100.0)
    text = str(sn.explain(scores, 0, class_names=[f"c{c}" for c in range(100)]))
    assert any(line.split()[:2] == ["c0", "*"] for line in text.splitlines())


def test_the_figure_is_the_same_bytes_each_time_and_sets_nothing_global(explained):
    before = dict(mpl.rcParams)
    for kind, magic in [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]:
        first = figure_bytes(explained.plot(), kind)
        assert first.startswith(magic)
        assert figure_bytes(explained.plot(), kind) == first
    assert dict(mpl.rcParams) == before


def test_the_figure_draws_names_that_are_not_its_markup():
    names = ("$x^{$", "\N{GRINNING FACE}", "_b_")
    assert figure_bytes(sn.explain(SCORES, TRUE, class_names=names).plot(), "png")


def test_the_figure_can_be_drawn_into_one_of_the_callers(explained):
    mine = Figure()
    assert explained.plot(mine) is mine
    assert len(mine.axes) == 3
