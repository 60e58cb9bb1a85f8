"""Explanations of tensors of other libraries, what else a row is explained, and figures in the caller's axes."""

from __future__ import annotations

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import softnll as sn
from cases import LOSSES, SCORES, TRUE


@pytest.mark.parametrize(
    ("logits", "dtype"),
    [
        (torch.tensor(SCORES, requires_grad=True), "float64"),
        (torch.tensor(SCORES, dtype=torch.float32, requires_grad=True) * 1, "float32"),
        (torch.tensor(SCORES, dtype=torch.bfloat16, requires_grad=True), "bfloat16"),
        (torch.tensor(SCORES, dtype=torch.bfloat16).T.contiguous().T, "bfloat16"),
        (torch._neg_view(torch.tensor(-SCORES)), "float64"),
        (torch.tensor(SCORES).to_sparse(), "float64"),
        ([torch.tensor(row) for row in SCORES], "float64"),
        (jnp.asarray(SCORES, jnp.float32), "float32"),
        (jnp.asarray(SCORES, jnp.bfloat16), "bfloat16"),
    ],
)
def test_tensors_and_jax_arrays_are_explained_in_their_type(logits, dtype):
    explained = sn.explain(logits, torch.tensor(TRUE))
    np.testing.assert_allclose(explained.nll, LOSSES, atol=5e-7)
    assert explained.logits.dtype.name == dtype
    assert f"[3×3 {dtype}]" in repr(explained)  # noqa: RUF001
    assert explained.derivation(0).nll == pytest.approx(0.349012, abs=5e-7)


def test_targets_of_jax():
    np.testing.assert_allclose(sn.explain(SCORES, jnp.asarray(TRUE)).nll, LOSSES, atol=5e-7)


def test_explaining_loads_no_framework():
    code = "import sys, softnll as sn\nt = sn.explain([5, 4, 2], 0)\nstr(t), t._repr_html_()"
    code += "\nstr(t.derivation(0)), t.derivation(0)._repr_html_()"
    code += "\nprint([n for n in ('torch', 'jax', 'ml_dtypes', 'matplotlib', 'jinja2', 'rich') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_entropy_is_the_loss_that_a_row_expects():
    explained = sn.explain(SCORES, TRUE)
    expected = -(explained.probabilities * explained.log_probabilities).sum(axis=1)
    np.testing.assert_allclose(explained.entropy, expected, rtol=1e-14)
    np.testing.assert_allclose(sn.explain(np.zeros((1, 10))).entropy, [np.log(10)], rtol=1e-15)
    assert sn.explain([[0.0, -np.inf], [np.inf, 0.0]]).entropy.tolist() == [0, 0]
    np.testing.assert_allclose(explained.nll_bits, explained.nll / np.log(2), rtol=1e-15)


def test_a_contribution_is_what_the_loss_falls_by_without_that_class():
    explained = sn.explain(SCORES, TRUE)
    for n, y in enumerate(TRUE):
        for k in range(3):
            kept = [c for c in range(3) if c != k or c == y]
            without = sn.cross_entropy(SCORES[n : n + 1, kept], [kept.index(y)])
            assert explained.contributions[n, k] == pytest.approx(explained.nll[n] - without, abs=1e-14)
    assert sn.explain(SCORES).contributions is None
    tiny = sn.explain([[17.0, 0, 0]], [0]).contributions[0, 1]
    assert tiny == pytest.approx(np.exp(-17.0), rel=1e-6)
    assert sn.explain([[1.0, 2.0, np.inf]], [0]).contributions[0, 2] == np.inf


def test_words_name_the_rival(explained):
    assert "without dog it would be 0.30 nats less" in explained.words()[0]
    assert "without" not in sn.explain([[1.0, 0.0]], [0]).words()[0]


def test_the_display_keeps_its_values():
    display = sn.explain(SCORES, TRUE).display()
    assert not hasattr(display, "figure_")
    assert display.plot() is display
    assert isinstance(display, sn.ExplanationDisplay)
    assert len(display.axes_) == 3
    assert display.ax_ is display.axes_[0]
    np.testing.assert_allclose(display.nll, LOSSES, atol=5e-7)
    np.testing.assert_allclose(display.true_probabilities, np.exp(-LOSSES), atol=5e-7)
    assert display._repr_png_().startswith(b"\x89PNG")


def test_drawing_into_axes_of_the_callers():
    explained = sn.explain(SCORES, TRUE)
    figure = Figure()
    mine, other = figure.subplots(1, 2)
    assert explained.plot(ax=mine) is figure
    assert len(figure.axes) == 5
    assert not mine.axison
    assert other.axison
    three = Figure().subplots(1, 3)
    assert explained.display().plot(three).axes_ == list(three)
    alone = Figure().subplots()
    assert sn.explain(SCORES).display().plot(alone).axes_ == [alone]


def test_what_is_no_place_to_draw_is_refused():
    explained = sn.explain(SCORES, TRUE)
    figure = Figure()
    with pytest.raises(ValueError, match="one of them"):
        explained.plot(figure, ax=figure.subplots())
    with pytest.raises(ValueError, match="2 axes"):
        explained.plot(ax=Figure().subplots(1, 2))
    with pytest.raises(TypeError, match="not matplotlib axes"):
        explained.plot(ax=[1, 2, 3])
    with pytest.raises(ValueError, match="by hand"):
        explained.plot(ax=Figure().add_axes((0, 0, 1, 1)))
