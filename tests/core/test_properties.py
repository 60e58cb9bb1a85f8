"""What holds for every input: shift, permutation, one-hot, dropping, repeating, splitting. Drawn by hypothesis."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import backends
import softnll as sn
from softnll._core.problem import Problem

settings.register_profile("softnll", max_examples=60, deadline=None)
settings.load_profile("softnll")

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 9))


@st.composite
def problems(draw):
    """Draw logits of either type with targets."""
    shape = draw(SHAPES)
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x = draw(hnp.arrays(dtype, shape, elements=st.floats(-300, 300, width=32)))
    y = draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1] - 1)))
    return x, y


def close(a, b, dtype, units=16):
    eps = np.finfo(dtype).eps
    return np.allclose(a, b, rtol=units * eps, atol=np.finfo(dtype).smallest_subnormal * 4)


@given(problems(), st.integers(-10, 10))
def test_shift(problem, power):
    """Adding a number that makes no rounding changes nothing but, in the kernels, which digits of exp are rounded."""
    x, y = problem
    x = np.round(x * 4) / 4
    shift = np.float32(2.0**power * 256 if power > -8 else 0.25)
    for function in (sn.softmax, sn.log_softmax, lambda z: sn.cross_entropy_and_grad(z, y)[1]):
        shifted = (x + shift).astype(x.dtype)
        if ((shifted - shift) == x).all():
            assert close(function(shifted), function(x), x.dtype, 8)


@given(problems(), st.randoms())
def test_permutation(problem, random):
    x, y = problem
    order = list(range(x.shape[1]))
    random.shuffle(order)
    order = np.array(order)
    loss, grad = sn.cross_entropy_and_grad(x, y, reduction="none")
    permuted, moved = sn.cross_entropy_and_grad(x[:, order], np.argsort(order)[y], reduction="none")
    assert close(loss, permuted, x.dtype)
    assert close(grad[:, order], moved, x.dtype)


@given(problems())
def test_one_hot_is_hard(problem):
    x, y = problem
    hot = np.eye(x.shape[1], dtype=x.dtype)[y]
    hard, soft = sn.cross_entropy_and_grad(x, y), sn.cross_entropy_and_grad(x, hot)
    assert close(hard[0], soft[0], x.dtype, 4)
    assert close(hard[1], soft[1], x.dtype, 4)


@given(problems(), st.data())
def test_ignoring_is_dropping(problem, data):
    x, y = problem
    keep = data.draw(hnp.arrays(bool, len(y)))
    if not keep.any():
        keep[0] = True
    options = {"label_smoothing": 0.1, "z_loss": 0.01, "class_weight": np.linspace(0.5, 2, x.shape[1])}
    loss, grad = sn.cross_entropy_and_grad(x, np.where(keep, y, -100), **options)
    want, want_grad = sn.cross_entropy_and_grad(x[keep], y[keep], **options)
    assert loss == want
    assert np.array_equal(grad[keep], want_grad)
    assert (grad[~keep] == 0).all()


@given(problems(), st.data())
def test_integer_weights_are_repetitions(problem, data):
    x, y = problem
    times = data.draw(hnp.arrays(np.int64, len(y), elements=st.integers(0, 3)))
    if not times.any():
        times[0] = 1
    loss, grad = sn.cross_entropy_and_grad(x, y, sample_weight=times)
    want, rows = sn.cross_entropy_and_grad(np.repeat(x, times, axis=0), np.repeat(y, times))
    summed = np.zeros(x.shape)
    np.add.at(summed, np.repeat(np.arange(len(y)), times), rows)
    assert close(loss, want, x.dtype)
    assert close(grad, summed, x.dtype)


@given(problems(), st.data())
def test_splitting_rows(problem, data):
    """Rows do not know of each other: any split gives the same bits."""
    x, y = problem
    at = data.draw(st.integers(0, len(y)))
    loss, grad = sn.cross_entropy_and_grad(x, y, reduction="none")
    for part in (slice(0, at), slice(at, None)):
        some, some_grad = sn.cross_entropy_and_grad(x[part], y[part], reduction="none")
        assert np.array_equal(some, loss[part])
        assert np.array_equal(some_grad, grad[part])


@given(problems(), st.data())
@pytest.mark.parametrize("name", ["compiled", "equation"])
def test_splitting_classes_and_merging(name, problem, data):
    """Two parts' (m, r) merge into the whole's: m = m1, r = r1 + exp(m2 − m1)·(1 + r2) for m1 ≥ m2."""
    x, y = problem
    kernels = backends.get(name)
    at = data.draw(st.integers(0, x.shape[1]))
    _, m, r = kernels.forward(Problem(x, y=y))
    parts = []
    for part in (x[:, :at], x[:, at:]):
        if part.shape[1] == 0:
            parts.append((np.full(len(x), -np.inf), np.full(len(x), -1.0)))
        else:
            parts.append(kernels.forward(Problem(part, y=np.zeros(len(x), int)))[1:])
    for n in range(len(x)):
        (m1, r1), (m2, r2) = sorted(((m[n], r[n]) for m, r in parts), reverse=True)
        merged = r1 if m2 == -math.inf else r1 + math.exp(m2 - m1) * (1 + r2)
        assert m1 == m[n]
        tiny = 1e-320 if x.dtype == np.float64 else 1e-56  # float32: below 2⁻¹⁹⁰ of the largest there is nothing
        assert merged == pytest.approx(r[n], rel=64 * float(np.finfo(x.dtype).eps), abs=tiny)


@given(problems(), st.sampled_from([1.0, 2.5]), st.sampled_from([None, 30.0]))
def test_inputs_are_never_modified(problem, temperature, softcap):
    x, y = problem
    w, s, q = np.linspace(1, 2, x.shape[1]), np.linspace(1, 2, len(y)), sn.softmax(x)
    arrays = [x, y, w, s, q]
    before = [each.copy() for each in arrays]
    options = {"class_weight": w, "sample_weight": s, "temperature": temperature, "softcap": softcap}
    for target in (y, q):
        sn.cross_entropy_and_grad(x, target, **options, check=False)
        sn.cross_entropy_hvp(x, target, x, **options, check=False)
        sn.linear_cross_entropy_and_grad(x.T @ x, x, np.argmax(x, axis=0) % len(x), check=False)
    for function in (sn.softmax, sn.log_softmax, sn.logsumexp, sn.softmax_jacobian):
        function(x)
    assert all(np.array_equal(a, b) for a, b in zip(arrays, before, strict=True))


@given(problems())
def test_probabilities_and_gradients_add_up(problem):
    x, y = problem
    eps = np.finfo(x.dtype).eps
    assert np.allclose(sn.softmax(x).sum(axis=1, dtype=np.float64), 1, atol=x.shape[1] * eps)
    grad = sn.cross_entropy_and_grad(x, y, reduction="sum")[1].astype(np.float64)
    assert (np.abs(grad.sum(axis=1)) <= 8 * eps * np.abs(grad).max(axis=1) + x.shape[1] * 2e-45).all()
    assert (sn.cross_entropy(x, y, reduction="none") >= 0).all()
    assert (sn.log_softmax(x) <= 0).all()


@given(problems())
def test_backends_agree(problem):
    x, y = problem
    results = []
    for name in (each for each in backends.NAMES if each not in backends.TYPES):  # JAX has no m and r
        kernels, out = backends.get(name), np.empty_like(x)
        loss, m, r = kernels.forward(Problem(x, y=y))
        again = np.empty_like(x)
        assert np.array_equal(kernels.forward_backward(Problem(x, y=y), out), loss)
        kernels.backward(Problem(x, y=y), m, r, again)
        assert np.array_equal(out, again)
        results.append((loss, m, r, out))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            assert close(got, want, x.dtype, 8)
