"""The linear layer with its loss: the same numbers as through logits, within max_bytes, for all types and shapes."""

from __future__ import annotations

import gc
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import softnll as sn
from softnll._core.plan import ALL_GRADIENTS, Sizes, default_max_bytes, make_plan
from softnll._numpy.blas import multiply

MIB = 1 << 20


def problem(N, H, C, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    features, weight, bias = rng.normal(size=(N, H)), rng.normal(size=(C, H)) / np.sqrt(H), rng.normal(size=C)
    return *(each.astype(dtype) for each in (features, weight, bias)), rng.integers(C, size=N)


def through_logits(features, weight, bias, y, **options):
    """Return loss and gradients the usual way, in float64."""
    f, w, b = (each.astype(np.float64) for each in (features, weight, bias))
    loss, dz = sn.cross_entropy_and_grad(f @ w.T + b, y, **options)
    return loss, (dz @ w, dz.T @ f, dz.sum(axis=0))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("max_bytes", [None, 130_000, 200_000])
def test_chunks_give_the_same(max_bytes, dtype):
    features, weight, bias, y = problem(300, 20, 50, dtype)
    y[::7] = -100
    loss, want = through_logits(features, weight, bias, y)
    got, gradients = sn.linear_cross_entropy_and_grad(features, weight, y, bias=bias, max_bytes=max_bytes)
    tolerance = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3, "bfloat16": 2e-2}[dtype.name]
    assert got == pytest.approx(loss, rel=max(tolerance / 100, 1e-13))
    assert got.dtype == (np.float64 if dtype == np.float64 else np.float32)
    for a, b in zip(gradients, want, strict=True):
        assert a.dtype == dtype
        assert np.abs(a.astype(float) - b).max() <= tolerance * np.abs(b).max()
    assert sn.linear_cross_entropy(features, weight, y, bias=bias, max_bytes=max_bytes) == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("N", [1, 511, 512, 700])
@pytest.mark.parametrize("max_bytes", [None, 1 * MIB])
def test_rows_are_neither_lost_nor_repeated(N, max_bytes):
    features, weight, bias, y = problem(N, 8, 300)
    loss, want = through_logits(features, weight, bias, y, reduction="none")
    got, gradients = sn.linear_cross_entropy_and_grad(
        features, weight, y, bias=bias, max_bytes=max_bytes, reduction="none"
    )
    assert np.allclose(got, loss, rtol=1e-12)
    assert all(np.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(gradients, want, strict=True))


def test_leading_axes_and_strides():
    features, weight, bias, y = problem(24, 5, 7)
    _, want = through_logits(features, weight, bias, y)
    wide = np.zeros((24, 10))
    wide[:, ::2] = features
    swapped = np.ascontiguousarray(features.reshape(4, 6, 5).swapaxes(0, 1)).swapaxes(0, 1)
    for f in (features.reshape(2, 3, 4, 5), wide[:, ::2].reshape(2, 3, 4, 5), swapped, np.asfortranarray(features)):
        for w in (weight, np.asfortranarray(weight), np.repeat(weight, 2, axis=0)[::2]):
            lead = f.shape[:-1]
            loss, got = sn.linear_cross_entropy_and_grad(f, w, y.reshape(lead), bias=bias, reduction="none")
            assert loss.shape == lead
            assert got.features.shape == f.shape
            _, got = sn.linear_cross_entropy_and_grad(f, w, y.reshape(lead), bias=bias)
            for a, b in zip(got, want, strict=True):
                assert np.allclose(a.reshape(b.shape), b, rtol=1e-12, atol=1e-15)
    loss, got = sn.linear_cross_entropy_and_grad(features[0], weight, y[0])
    assert got.features.shape == (5,)
    assert got.bias is None
    assert loss == pytest.approx(sn.cross_entropy(weight @ features[0], y[0]))


def test_mixed_types():
    features, weight, bias, y = problem(30, 6, 5)
    for types in ((np.float32, np.float64, np.float32), (np.float16, np.float32, np.float64), (int, np.float32, int)):
        f, w, b = (each.astype(kind) for each, kind in zip((features * 3, weight, bias), types, strict=True))
        loss, want = through_logits(f, w, b, y)
        got, gradients = sn.linear_cross_entropy_and_grad(f, w, y, bias=b)
        assert got.dtype == np.float64
        assert got == pytest.approx(loss, rel=1e-12)
        for a, b_, kind in zip(gradients, want, types, strict=True):
            assert a.dtype == (np.float64 if kind is int else kind)
            assert np.allclose(a, b_, rtol=2e-3, atol=1e-3)


def test_rows_that_take_no_part_are_not_multiplied():
    features, weight, bias, y = problem(40, 6, 5)
    y[::3] = -100
    spoilt = features.copy()
    spoilt[::3] = np.nan
    loss, want = sn.linear_cross_entropy_and_grad(features, weight, y, bias=bias)
    got, gradients = sn.linear_cross_entropy_and_grad(spoilt, weight, y, bias=bias)
    assert got == loss
    assert all(np.array_equal(a, b) for a, b in zip(gradients, want, strict=True))
    assert (gradients.features[::3] == 0).all()
    got, gradients = sn.linear_cross_entropy_and_grad(spoilt, weight, np.full(40, -100), bias=bias)
    assert np.isnan(got)
    assert all((each == 0).all() for each in gradients)


def test_rows_whose_target_has_no_mass_are_not_multiplied():
    features, weight = np.array([[1.0, 2.0], [np.nan, 1.0]]), np.ones((3, 2))
    _, gradients = sn.linear_cross_entropy_and_grad(features, weight, [0, 2], class_weight=[1.0, 1.0, 0.0])
    assert all(np.isfinite(each).all() for each in gradients[:2])


def test_overflow_is_infinite_without_a_warning():
    features, weight = np.full((2, 3), 6e4, np.float16), np.full((4, 3), 6e4, np.float16)
    features[0, 0] = np.inf
    loss, _ = sn.linear_cross_entropy_and_grad(features, weight, [0, 1], bias=np.full(4, -np.inf))
    assert np.isnan(loss)
    assert np.isnan(sn.linear_cross_entropy(features, weight, [0, 1], bias=np.full(4, -np.inf)))


def test_no_rows_and_no_features():
    loss, gradients = sn.linear_cross_entropy_and_grad(np.zeros((0, 3)), np.zeros((4, 3)), np.zeros(0, int))
    assert np.isnan(loss)
    assert gradients.features.shape == (0, 3)
    assert (gradients.weight == 0).all()
    loss, gradients = sn.linear_cross_entropy_and_grad(np.zeros((2, 0)), np.zeros((4, 0)), [0, 1], bias=np.zeros(4))
    assert loss == pytest.approx(np.log(4))
    assert gradients.bias.tolist() == [-0.25, -0.25, 0.25, 0.25]


def test_inputs_are_not_written_to():
    arrays = problem(30, 6, 5)
    for each in arrays:
        each.flags.writeable = False
    features, weight, bias, y = arrays
    sn.linear_cross_entropy_and_grad(features, weight, y, bias=bias)


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    ("dtype", "ignored", "soft"),
    [
        (np.float32, False, False),
        (np.float64, False, False),
        (np.float32, True, False),
        (np.float32, False, True),
        (np.float16, False, True),
        (np.float16, False, False),
        (ml_dtypes.bfloat16, True, False),
    ],
)
@pytest.mark.parametrize("max_bytes", [None, 8 * MIB])
def test_memory_stays_within_max_bytes(gradients, dtype, ignored, soft, max_bytes):
    """Beyond inputs and gradients, and the stated accumulator of half types, no more than max_bytes: measured."""
    N, H, C = 3000, 128, 4000
    features, weight, bias, y = problem(N, H, C, dtype)
    if ignored:
        y[::3] = -100
    if soft:
        y = np.zeros((N, C), dtype)
        y[:, 5] = 1
    function = sn.linear_cross_entropy_and_grad if gradients else sn.linear_cross_entropy
    function(features[:8], weight, y[:8], bias=bias)  # compiles
    size = np.dtype(dtype).itemsize
    gc.collect()  # what finalisers of earlier tests ask for is not ours
    tracemalloc.start()
    function(features, weight, y, bias=bias, max_bytes=max_bytes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = (N * H + C * H + C) * size if gradients else 0
    accumulator = 4 * C * H if gradients and size == 2 else 0
    working = 4 * N * C if np.dtype(dtype) != np.float64 else 8 * N * C
    allowed = max_bytes or default_max_bytes(0, N, C, 4)
    assert peak - results - accumulator <= allowed
    assert allowed < working / 1.3, "the test would not see logits that are held whole"


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("max_bytes", [MIB, 3 * MIB])
@pytest.mark.parametrize(
    ("dtype", "soft", "options"),
    [
        (np.float32, None, {"softcap": 5.0}),
        (np.float64, None, {"softcap": 5.0, "label_smoothing": 0.1, "z_loss": 1e-4}),
        (np.float32, np.float32, {"softcap": 5.0}),
        (np.float64, np.float16, {}),
        (np.float64, np.float32, {"sample_weight": None}),
        (np.float32, np.float64, {"softcap": 5.0, "sample_weight": None}),
        (np.float32, np.float16, {"label_smoothing": 1e-300}),
        (np.float64, None, {"temperature": 1e-4, "sample_weight": None, "class_weight": 1e-30}),
    ],
)
def test_memory_of_all_threads_stays_within_max_bytes(monkeypatch, gradients, max_bytes, dtype, soft, options):
    """Scratch of the soft cap, of targets of another width and of rows for the scalar kernels, in eight threads."""
    monkeypatch.setenv("NUMBA_NUM_THREADS", "8")
    N, H, C = 1500, 16, 3000
    features, weight, _, y = problem(N, H, C, dtype)
    options = dict(options)
    if "sample_weight" in options:
        options["sample_weight"] = np.where(np.arange(N) % 5 == 0, 0.0, 1.0)
    if "class_weight" in options:
        options["class_weight"] = np.full(C, options["class_weight"])
    if soft is not None:
        y = np.full((N, C), 1 / C, soft)
    function = sn.linear_cross_entropy_and_grad if gradients else sn.linear_cross_entropy
    weights = {"sample_weight": options["sample_weight"][:80]} if "sample_weight" in options else {}
    function(features[:80], weight, y[:80], check=False, **options | weights)  # compiles, and starts the threads
    gc.collect()
    tracemalloc.start()
    function(features, weight, y, max_bytes=max_bytes, check=False, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - (features.nbytes + weight.nbytes if gradients else 0) <= max_bytes


@pytest.mark.parametrize("options", [{}, {"softcap": 5.0}, {"label_smoothing": 0.1}])
def test_the_least_max_bytes_that_the_error_names_is_enough(options):
    features, weight, _, y = problem(30, 8, 2000)
    with pytest.raises(ValueError, match=r"max_bytes is 1000; allowed: at least (\d+)") as raised:
        sn.linear_cross_entropy_and_grad(features, weight, y, max_bytes=1000, **options)
    least = int(str(raised.value).split("at least ")[1].split(",")[0])
    sn.linear_cross_entropy_and_grad(features, weight, y, max_bytes=least, **options)
    with pytest.raises(ValueError, match="max_bytes"):
        sn.linear_cross_entropy_and_grad(features, weight, y, max_bytes=least - 1, **options)


@pytest.mark.parametrize(
    "shape", [(3, 4, 5), (1, 4, 5), (3, 1, 5), (3, 4, 1), (1, 1, 1), (0, 4, 5), (3, 0, 5), (3, 4, 0)]
)
def test_multiply(shape, real):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b, c = (rng.normal(size=size).astype(real) for size in ((m, k), (k, n), (m, n)))
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            for add in (False, True):
                out = c.copy()
                multiply(left, right, out, add=add)
                assert np.allclose(out, a @ b + (c if add else 0), rtol=1e-5)


def test_plan():
    assert default_max_bytes(0, 10, 10, 4) == 32 * MIB
    assert default_max_bytes(1 << 40, 8192, 128_256, 4) == 8192 * 128_256 * 4 // 8
    assert default_max_bytes(1 << 40, 1024, 128_256, 4) == 512 * 128_256 * 4  # few rows and a wide head
    assert default_max_bytes(400 * MIB, 1 << 20, 1 << 20, 4) == 100 * MIB
    plan = make_plan(Sizes(8192, 32_000, 1024, 4, 4, wanted=ALL_GRADIENTS), 128 * MIB)
    assert plan.rows * plan.chunks >= 8192
    assert plan.working_bytes <= 128 * MIB
    assert plan.accumulator_bytes == 0
    assert plan.classes == 32_000
    half = make_plan(
        Sizes(8192, 32_000, 1024, 4, 4, gather=True, convert=True, widens=True, wanted=ALL_GRADIENTS), 128 * MIB
    )
    assert half.classes < 32_000
    assert half.working_bytes <= 128 * MIB
    assert half.accumulator_bytes == 4 * 32_000 * 1024
