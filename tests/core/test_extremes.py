"""Finite results of which a factor, a sum or a product leaves float64's range; rests of subnormal exponentials."""

from __future__ import annotations

import numpy as np
import pytest
from mpmath import mp, mpf

import oracle
import softnll as sn

MOST, EPS = float(np.finfo(np.float64).max), float(np.finfo(np.float64).eps)
F8 = np.dtype(np.float64)
pytestmark = [pytest.mark.usefixtures("backend"), pytest.mark.needs("the whole range of float64")]

# Logits, target and options of one row; the options are those of `oracle.row`.
ROWS = {
    "sample weight": ([MOST, -MOST], 1, {"scale": 0.25}),
    "class weight": ([MOST, -MOST], 1, {"class_weight": [1, 0.25]}),
    "both weights": ([MOST, -MOST, 0], 1, {"class_weight": [1, 1e200, 1], "scale": 1e-201}),
    "soft target": ([MOST, -MOST], [0.75, 0.25], {}),
    "two soft targets": ([MOST, -MOST, -MOST / 2], [0.9, 0.05, 0.05], {}),
    "smoothing": ([MOST, -MOST], 0, {"label_smoothing": 0.5}),
    "smoothing of many": ([MOST, *[-MOST] * 200], 0, {"label_smoothing": 1e-3}),
    "z-loss": ([1e155, 0.0], 0, {"z_loss": 1e-4}),
    "z-loss and its weight": ([1e200, 0.0], 0, {"z_loss": 1e-30, "scale": 1e-70}),
    "z-loss of many classes": ([1e155, *[0.0] * 200], 0, {"z_loss": 1e-4}),
    "z-loss of soft targets": ([1e155, 0.0], [1.0, 0.0], {"z_loss": 1e-4}),
    "z-loss at a temperature": ([1e100, 0.0, -1e100], 0, {"z_loss": 1e-300, "temperature": 1e-50}),
    "normaliser beyond the range": ([MOST, 0.0, -MOST], 0, {"z_loss": 1e-300, "temperature": 0.5, "scale": 1e-100}),
    "temperature": ([1.0, 0.0, -1.0], 1, {"temperature": 1e-300, "scale": 1e-10}),
    "subnormal temperature": ([1.0, 0.0, -1.0], 0, {"temperature": 1e-320}),
    "subnormal temperature, wrong": ([1.0, 0.0, -1.0], 1, {"temperature": 1e-320, "scale": 1e-20}),
    "subnormal logits and temperature": ([3e-320, 1e-320, 0.0], 1, {"temperature": 1e-320, "scale": 1e-200}),
    "logits and temperature of one size": ([3e-300, 1.5e-300, 0.0], 1, {"temperature": 7e-301, "scale": 1e-120}),
    "large logits and temperature": ([1.7e300, 1e298, 0.0], 1, {"temperature": 3e297}),
    "large temperature": ([1.0, 0.5], 1, {"temperature": 1e305, "scale": 1e300}),
    "small weight": ([3.0, 1.0, 0.0], 1, {"scale": 1e-300}),
    "large weight": ([3.0, 1.0, 0.0], 1, {"scale": 1e300}),
    "large weight of a sure row": ([800.0, 1.0, 0.0], 0, {"scale": 1e300}),
    "large weight of a row that is wrong": ([900.0, 1.0, 0.0], 1, {"scale": 1e300}),
    "weights that cancel": ([720.0, 1.0, 0.0], 0, {"scale": 1e100, "class_weight": [1e-100, 1, 1]}),
    "weights that cancel, of a subnormal rest": ([740.0, 1.0], 0, {"scale": 1e50, "class_weight": [1e-40, 1]}),
    "soft cap": ([0.36, 0.0, -0.1], 0, {"softcap": 1e-3, "scale": 1e40}),
    "soft cap with a subnormal slope": ([0.37, 0.0, -0.1], 1, {"softcap": 1e-3, "scale": 1e10}),
    "soft cap with a slope of 0": ([0.5, 0.4, -0.6], 1, {"softcap": 1e-3, "scale": 1e245}),
    "soft cap, largest weight": ([0.6, 0.1, -0.7], 1, {"softcap": 1e-3, "scale": 1e306}),
    "soft cap and temperature": ([0.4, 0.1, 0.0], 1, {"softcap": 1e-3, "temperature": 1e-300, "scale": 1e-10}),
}


def sizes(x, options):
    """Return how far the soft cap and the argument of its slope magnify errors, in units."""
    cap = options.get("softcap")
    if cap is None:
        return 0.0
    return 4 * cap / options.get("temperature", 1.0) + 2 * max(map(abs, x)) / cap


@pytest.mark.parametrize("name", ROWS)
def test_finite_results_whose_parts_overflow(name):
    x, target, options = ROWS[name]
    exact = oracle.row(np.array(x), target, **options)
    given = {key: value for key, value in options.items() if key != "scale"}
    s = None if "scale" not in options else [options["scale"]]
    given |= {"sample_weight": s, "reduction": "sum", "check": False}
    loss, grad = sn.cross_entropy_and_grad([x], [target], **given)
    more = sizes(x, options)
    # A difference q − p, as of soft targets, has the absolute error of its terms.
    absolute = 8 * EPS * options.get("scale", 1.0) if not isinstance(target, int) or "label_smoothing" in options else 0
    if abs(exact.loss) < MOST:
        assert oracle.ulps(loss, exact.loss, F8) <= 10 + more
        assert oracle.ulps(sn.cross_entropy([x], [target], **given), exact.loss, F8) <= 10 + more
    for got, want in zip(grad[0], exact.grad, strict=True):
        if abs(want) < MOST:
            assert oracle.ulps(got, want, F8) <= 10 + more or abs(float(mpf(float(got)) - want)) <= absolute


@pytest.mark.parametrize(
    ("x", "y", "options", "want"),
    [
        ([[MOST / 2, -MOST / 4]] * 2, [1, 1], {}, 0.75 * MOST),
        ([[MOST, -MOST], [1.0, 0.0], [0.0, 0.0]], [1, 0, 1], {}, MOST * (2 / 3)),
        ([[MOST, -MOST / 2]] * 4 + [[0.0, 0.0]] * 4, [1] * 4 + [0] * 4, {}, 0.75 * MOST),
        ([[MOST, -MOST / 2], [1.0, 0.0]], [1, 0], {"sample_weight": [1.0, 3.0]}, MOST * 0.375),
        ([[MOST, -MOST / 2], [1.0, 0.0]], [1, 0], {"class_weight": [3.0, 1.0]}, MOST * 0.375),
        ([[1e155, 0.0]] * 2, [0, 0], {"z_loss": 1e-2}, 1e308),
    ],
)
def test_means_whose_sums_overflow(x, y, options, want):
    assert sn.cross_entropy(x, y, **options) == pytest.approx(want, rel=1e-14)
    assert sn.cross_entropy_and_grad(x, y, **options)[0] == pytest.approx(want, rel=1e-14)
    infinite = sn.cross_entropy([[-np.inf, 0.0], [1.0, 0.0]], [0, 0])
    assert infinite == np.inf


@pytest.mark.parametrize(
    ("log_p", "options", "want"),
    [
        (-MOST, {"class_weight": [4.0, 1.0], "sample_weight": [0.125]}, MOST / 2),
        (-MOST / 8, {"class_weight": [1e-300, 1.0], "sample_weight": [1e300]}, MOST / 8),
    ],
)
def test_given_log_probabilities(log_p, options, want):
    assert sn.nll_loss([[log_p, 0.0]], [0], reduction="sum", **options) == pytest.approx(want, rel=1e-14)


def test_means_of_given_log_probabilities():
    log_p = np.array([[-MOST, 0.0], [-MOST / 2, 0.0]])
    assert sn.nll_loss(log_p, [0, 0]) == pytest.approx(0.75 * MOST, rel=1e-14)
    assert sn.nll_loss(log_p, [0, 0], sample_weight=[4.0, 4.0]) == pytest.approx(0.75 * MOST, rel=1e-14)
    assert sn.nll_loss(log_p, [0, 1], class_weight=[4.0, 12.0]) == pytest.approx(0.25 * MOST, rel=1e-14)
    assert sn.nll_loss([[-np.inf, 0.0], [-1.0, 0.0]], [0, 0]) == np.inf


def test_a_mean_in_place():
    x = np.array([[MOST / 2, -MOST / 4]] * 2)
    assert sn.cross_entropy_and_grad(x, [1, 1], out=x)[0] == pytest.approx(0.75 * MOST, rel=1e-14)


def test_a_mean_of_a_linear_layer():
    features = np.array([[MOST / 2], [MOST / 2]])
    loss = sn.linear_cross_entropy(features, np.array([[1.0], [-0.5]]), [1, 1])
    assert loss == pytest.approx(0.75 * MOST, rel=1e-14)


@pytest.mark.parametrize("classes", [2, 161, 2000])
def test_tiny_rests(classes):
    """Each exponential is subnormal, or nearly; the sum of many is not."""
    for gap in np.arange(640.25, 745, 7.5):
        x = np.zeros((1, classes))
        x[0, 0] = gap
        with mp.workprec(400):
            rest = (classes - 1) * mp.exp(-mpf(gap))
            log_p, share = -mp.log1p(rest), rest / (1 + rest)
        assert oracle.ulps(sn.log_softmax(x)[0, 0], log_p, F8) <= 4
        loss, grad = sn.cross_entropy_and_grad(x, [0], reduction="sum")
        assert oracle.ulps(loss, -log_p, F8) <= 4
        assert oracle.ulps(grad[0, 0], -share, F8) <= 4
        for scale in (1e20, 1e-20):
            loss, grad = sn.cross_entropy_and_grad(x, [0], reduction="sum", sample_weight=[scale])
            with mp.workprec(400):
                assert oracle.ulps(loss, -log_p * mpf(scale), F8) <= 6
                assert oracle.ulps(grad[0, 0], -share * mpf(scale), F8) <= 6


def test_tiny_rests_of_many_classes():
    """Sums of 100 000 magnified exponentials do not drift."""
    x = np.zeros((1, 100_000))
    x[0, 0] = 700.3
    with mp.workprec(400):
        rest = 99_999 * mp.exp(-mpf(float(x[0, 0])))
    loss, grad = sn.cross_entropy_and_grad(x, [0], reduction="sum")
    assert oracle.ulps(loss, rest, F8) <= 4
    assert oracle.ulps(grad[0, 0], -rest, F8) <= 4
    assert oracle.ulps(sn.log_softmax(x)[0, 0], -rest, F8) <= 4


@pytest.mark.parametrize("classes", [2, 3, 10, 170])
def test_logsumexp_rounds_about_once(classes, real):
    """Logits for which m and log1p(r) are of one size: exp, quotient, logarithm and sum do not add up their errors."""
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("the reference is of 80 bits")
    rng = np.random.default_rng(5)
    n = 60_000 // classes
    x = (rng.normal(size=(n, classes)) - rng.uniform(0, 6, size=(n, 1))).astype(real)
    wide = x.astype(np.longdouble)
    m = wide.max(axis=1)
    e = np.exp(wide - m[:, None])
    e[np.arange(n), wide.argmax(axis=1)] = 0
    log_r = np.log1p(e.sum(axis=1))
    largest = np.maximum(np.maximum(abs(m), log_r), abs(m + log_r)).astype(real)
    assert (abs(sn.logsumexp(x) - (m + log_r)) / np.spacing(largest)).max() <= 2
