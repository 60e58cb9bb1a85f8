"""exp and log1p of the vector layer, and the layer's own operations, against NumPy in wider types."""

from __future__ import annotations

import os

import numba
import numpy as np
import pytest
from kernel_helpers import KINDS

from softnll._kernels.cpu import elementary, logarithm, simd
from softnll._kernels.cpu.processor import fuses
from softnll._kernels.cpu.row_memory import address_of, lanes_of

BOUND = 1.0 if fuses() else 1.25  # in units in the last place: two roundings more where nothing is fused
STEP = 1 if os.environ.get("SOFTNLL_EXHAUSTIVE") else 211


@numba.njit(nogil=True, error_model="numpy")
def exponentials(x, m, out):
    c, magic, cut = elementary.reference(m, None)
    at, magics, cuts = simd.splat(c), simd.splat(magic), simd.splat(cut)
    p, o = address_of(x), address_of(out)
    for k in range(0, x.shape[0], lanes_of(x.dtype)):
        v = simd.load(p + k * x.itemsize, x.dtype)
        simd.store(o + k * x.itemsize, elementary.power(v, at, magics, cuts, None, None), x.dtype)


@numba.njit(nogil=True, error_model="numpy")
def logarithms(x, out, short):
    for k in range(0, x.shape[0], 8):
        v = simd.load(address_of(x) + 8 * k, np.float64)
        if short:
            simd.store(address_of(out) + 8 * k, logarithm.log_rest(v, np.float32), np.float64)
        else:
            simd.store(address_of(out) + 8 * k, logarithm.log_rest(v, np.float64), np.float64)


def padded(values, dtype):
    """Return the values in a multiple of 16."""
    values = np.asarray(values, dtype)
    return np.resize(values, -(-len(values) // 16) * 16)


def relative_errors(x, m, wide, scale):
    """Return errors of exp in units in the last place."""
    out = np.empty_like(x)
    exponentials(x, m, out)
    k = np.rint(wide(m) / np.log(wide(2))) if abs(m) < (272 if x.dtype == np.float32 else 1700) else 0
    exact = np.exp(x.astype(wide) - (0 if k or abs(m) < 272 else wide(m)))
    exact = np.ldexp(exact, int(scale - k))
    _, exponent = np.frexp(exact)
    return np.abs(out.astype(wide) - exact) / np.ldexp(wide(1), exponent - np.finfo(x.dtype).nmant - 1)


@pytest.mark.parametrize("m", [0.0, 3.7, -20.0, 100.0])
def test_exp_of_float32(m):
    """All of [m − 104, m] with SOFTNLL_EXHAUSTIVE set, else every 211th."""
    worst = 0.0
    low, high = np.float32(m - 104), np.float32(m)
    ranges = []
    if low < 0:
        top = np.float32(min(high, -1e-30))
        ranges.append((top.view(np.uint32), low.view(np.uint32)))
    if high > 0:
        bottom = np.float32(max(low, 1e-30))
        ranges.append((bottom.view(np.uint32), high.view(np.uint32)))
    for first, last in ranges:
        for start in range(int(first), int(last), STEP << 20):
            bits = np.arange(start, min(start + (STEP << 20), int(last)), STEP, dtype=np.uint32)
            worst = max(
                worst, relative_errors(padded(bits.view(np.float32), np.float32), np.float32(m), np.float64, 64).max()
            )
    assert worst <= BOUND


@pytest.mark.parametrize("m", [0.0, 12.3, -700.0])
def test_exp_of_float64(m):
    x = padded(m - np.random.default_rng(0).random(100_000) * 745, np.float64)
    assert relative_errors(x, np.float64(m), np.longdouble, 200).max() <= BOUND


def test_exp_beyond_its_range(real):
    x = padded([-np.inf, -1e30, -3000.0, np.nan, 0.0], real)
    out = np.empty_like(x)
    exponentials(x, real.type(0), out)
    assert (out[:3] == 0).all()
    assert np.isnan(out[3])
    assert out[4] == (2.0**64 if real == np.float32 else 2.0**200)


def test_log1p():
    x = padded(np.concatenate([np.geomspace(1e-300, 1e9, 50_000), np.linspace(0, 3, 50_000)]), np.float64)
    out, exact = np.empty_like(x), np.log1p(x.astype(np.longdouble))
    logarithms(x, out, False)
    assert (np.abs(out - exact) <= np.spacing(exact.astype(np.float64))).all()
    logarithms(x, out, True)
    assert (np.abs(out - exact) <= 2.0**-28 * exact).all()


@numba.njit(nogil=True)
def moved(source, target, count):
    if count < lanes_of(source.dtype):
        v = simd.load_part(address_of(source), count, simd.zero(source.dtype), source.dtype)
        simd.store_part(address_of(target), count, v, target.dtype)
    else:
        simd.store(address_of(target), simd.load(address_of(source), source.dtype), target.dtype)


@pytest.mark.parametrize("name", list(KINDS))
def test_loads_and_stores(name):
    """Whole and in part, every element kind; nothing beyond the part is written."""
    kind, bits = KINDS[name]
    x = np.random.default_rng(0).normal(size=16).astype(kind)
    for count in range(1, 17 if name != "float64" else 9):
        out = np.zeros(16, kind)
        moved(x.view(bits), out.view(bits), count)
        assert np.array_equal(out[:count], x[:count])
        assert (out[count:] == 0).all()


@numba.njit(nogil=True)
def rounded_to(source, target):
    simd.store(address_of(target), simd.load(address_of(source), source.dtype), target.dtype)


@pytest.mark.parametrize(("kind", "bits"), [KINDS["bfloat16"], KINDS["float16"]])
def test_half_types_round_to_nearest_even(kind, bits):
    rng = np.random.default_rng(1)
    for _ in range(200):
        x = np.ldexp(rng.random(16), rng.integers(-24, 14, 16)).astype(np.float32)
        out = np.zeros(16, kind)
        rounded_to(x, out.view(bits))
        assert np.array_equal(out, x.astype(kind))


@numba.njit(nogil=True)
def played(x):
    return simd.tournament(simd.load(address_of(x), x.dtype))


def test_tournament(real):
    n = 16 if real == np.float32 else 8
    rng = np.random.default_rng(2)
    for _ in range(50):
        x = rng.random(n).astype(real)
        big, rest = played(x)
        assert big == x.max()
        assert rest == pytest.approx(np.sort(x.astype(np.float64))[:-1].sum(), rel=1e-15)
    for lane in range(n):
        x[:] = 1
        x[lane] = np.nan
        assert np.isnan(sum(played(x)))


@numba.njit(nogil=True)
def turned(x, rows, count, out):
    columns = simd.load_columns(address_of(x), x.strides[0], rows, count, simd.zero(x.dtype), x.dtype)
    simd.store_columns(address_of(out), out.strides[0], columns, x.dtype)


def test_columns_and_back(real):
    lanes = 16 if real == np.float32 else 8
    x = np.arange(1, lanes * 8 + 1).reshape(lanes, 8).astype(real)
    for rows in (1, 3, lanes):
        for count in (1, 5, 8):
            out = np.empty_like(x)
            turned(x[:rows, :count].copy(), rows, count, out)
            assert np.array_equal(out[:rows, :count], x[:rows, :count])
            assert (out[rows:] == out[rows - 1]).all()
            assert (out[:, count:] == 0).all()
