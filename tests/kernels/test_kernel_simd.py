"""The vector layer, operation by operation, against NumPy on the same lanes."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from kernel_helpers import KINDS

from softnll._kernels.cpu import simd
from softnll._kernels.cpu.row_memory import address_of

GUARD = 24  # entries before and after that nothing may touch


@pytest.fixture(params=list(KINDS))
def kind(request):
    """The type of entries, and that of their bits."""
    return KINDS[request.param]


def lanes_of(dtype):
    """Return how many entries a vector takes."""
    return 8 if np.dtype(dtype).itemsize == 8 else 16


def bits_of(x):
    """Return an array as integers, so that −0 is not 0 and NaN is NaN."""
    return x.view(f"u{x.dtype.itemsize}")


@numba.njit(nogil=True, error_model="numpy")
def calculate(x, y, z, out):
    """Write each operation of two or three vectors to a row of ``out``."""
    a, b, c = (
        simd.load(address_of(x), x.dtype),
        simd.load(address_of(y), x.dtype),
        simd.load(address_of(z), x.dtype),
    )
    scalar = x[0]
    low = simd.less(a, b)
    same = simd.equal(a, b)
    results = (
        a + b,
        a - b,
        a * b,
        a / b,
        a + scalar,
        scalar - a,
        simd.mul_add(a, b, c),
        simd.mul_add(a, scalar, c),
        simd.fused_multiply_subtract(a, b, c),
        simd.minimum(a, b),
        simd.maximum(a, b),
        simd.select(low, a, b),
        simd.select(same, a, c),
        simd.select(simd.both(low, simd.less(a, c)), a, c),
        simd.splat(scalar),
        simd.splat(simd.zero(x.dtype)),
    )
    p = address_of(out)
    for each in numba.literal_unroll(results):
        simd.store(p, each, x.dtype)
        p += out.strides[0]
    return simd.every(low), simd.every(simd.less(a, a)), simd.every(simd.equal(a, a))


def by_numpy(x, y, z):
    """Return what ``calculate`` should write; the products of x·y + z are exact in longdouble for these numbers."""
    wide = np.longdouble
    product = x.astype(wide) * y.astype(wide)
    low = x < y
    return [
        x + y,
        x - y,
        x * y,
        x / y,
        x + x[0],
        x[0] - x,
        (product + z.astype(wide)).astype(x.dtype),
        (x.astype(wide) * x[0].astype(wide) + z.astype(wide)).astype(x.dtype),
        (product - z.astype(wide)).astype(x.dtype),
        np.where(x < y, x, y),
        np.where(x > y, x, y),
        np.where(low, x, y),
        np.where(x == y, x, z),
        np.where(low & (x < z), x, z),
        np.full_like(x, x[0]),
        np.zeros_like(x),
    ]


def test_arithmetic(real):
    """On numbers of half the digits: then fused and unfused are the same."""
    rng = np.random.default_rng(0)
    n = lanes_of(real)
    for trial in range(40):
        x, y, z = (rng.integers(-1000, 1000, n).astype(real) / real.type(8) for _ in range(3))
        y[y == 0] = 1
        if trial % 2:
            y[: n // 2] = x[: n // 2]
            y[y == 0] = 1
        if trial == 0:
            y = np.abs(x) + 1
        out = np.empty((16, n), real)
        low, never, always = calculate(x, y, z, out)
        for got, want in zip(out, by_numpy(x, y, z), strict=True):
            assert np.array_equal(got, want)
        assert low == (x < y).all()
        assert not never
        assert always


def test_comparisons_with_nan(real):
    """minimum and maximum give the second, less and equal say no; in each lane."""
    n = lanes_of(real)
    for lane in range(n):
        for first in (True, False):
            x, y, z = np.ones(n, real), np.full(n, 2, real), np.full(n, 3, real)
            (x if first else y)[lane] = np.nan
            out = np.empty((16, n), real)
            with np.errstate(invalid="ignore"):
                low, _, same = calculate(x, y, z, out)
                for got, want in zip(out, by_numpy(x, y, z), strict=True):
                    assert np.array_equal(got, want, equal_nan=True)
            assert np.array_equal(out[9:11, lane], [y[lane]] * 2, equal_nan=True)
            assert not low
            assert same == (not first)


def test_a_fused_product_rounds_once(real):
    n = lanes_of(real)
    rng = np.random.default_rng(1)
    x, y = (1 + rng.random(n)).astype(real), (1 + rng.random(n)).astype(real)
    out = np.empty((16, n), real)
    calculate(x, y, x * y, out)
    with np.errstate(all="ignore"):
        digits = 12 if real == np.float32 else 27
        split = real.type(2**digits + 1)
        high = [each * split - (each * split - each) for each in (x, y)]
        low = [each - part for each, part in zip((x, y), high, strict=True)]
    product = x * y
    error = ((high[0] * high[1] - product) + high[0] * low[1] + low[0] * high[1]) + low[0] * low[1]
    assert np.array_equal(out[8], error)


@numba.njit(nogil=True, error_model="numpy")
def transfer(address, count, fill, target, element):
    """Load and store in part; whole where the count says so."""
    if count < 0:
        simd.store(target, simd.load(address, element), element)
    else:
        simd.store(target, simd.load_part(address, count, fill, element), element)


@numba.njit(nogil=True, error_model="numpy")
def write_part(address, count, target, element):
    simd.store_part(target, count, simd.load(address, element), element)


@numba.njit(nogil=True, error_model="numpy")
def stream_all(address, target, element):
    simd.stream(target, simd.load(address, element), element)
    simd.fence()


@numba.njit(nogil=True, error_model="numpy")
def one(source, target):
    simd.store_scalar(address_of(target), simd.load_scalar(address_of(source), source.dtype), source.dtype)
    return simd.size_of(source.dtype)


def numbers(kind, n):
    """Return finite numbers of every size, zeros of both signs, infinities; no NaN."""
    rng = np.random.default_rng(n)
    x = np.ldexp(rng.normal(size=n), rng.integers(-14, 15, n)).astype(kind)
    x[:4] = np.array([0.0, -0.0, np.inf, -np.inf]).astype(kind)
    return x


def test_loads_and_stores_at_any_place(kind):
    """Every count at every alignment; what is not asked for stays as it is."""
    float_type, bits = kind
    n, size = lanes_of(float_type), np.dtype(float_type).itemsize
    x = numbers(float_type, n + GUARD)
    fill = np.float64(5) if size == 8 else np.float32(5)
    for offset in range(GUARD - n + 1):
        source = x.view(bits).ctypes.data + offset * size
        for count in (-1, *range(n + 1)):
            out = np.full(n + 2 * GUARD, 7).astype(float_type)
            transfer(source, count, fill, out.ctypes.data + (GUARD + offset) * size, bits(0).dtype)
            k = n if count < 0 else count
            want = np.full_like(out, 7)
            want[GUARD + offset : GUARD + offset + n] = 5
            want[GUARD + offset : GUARD + offset + k] = x[offset : offset + k]
            assert np.array_equal(bits_of(out), bits_of(want))
            if count >= 0:
                out[:] = 7
                write_part(source, count, out.ctypes.data + (GUARD + offset) * size, bits(0).dtype)
                want[GUARD + offset + k : GUARD + offset + n] = 7
                assert np.array_equal(bits_of(out), bits_of(want))


def beside_a_protected_page():
    """Load and store up to the last byte before memory that must not be touched: a fault ends the process."""
    page = mmap.PAGESIZE
    room = np.frombuffer(mmap.mmap(-1, 3 * page), np.uint8)
    first = room.ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    for forbidden in (first, first + 2 * page):
        assert libc.mprotect(ctypes.c_void_p(forbidden), ctypes.c_size_t(page), 0) == 0
    end = first + 2 * page
    for float_type, bits in KINDS.values():
        n, size, element = lanes_of(float_type), np.dtype(float_type).itemsize, bits(0).dtype
        fill = np.float64(0) if size == 8 else np.float32(0)
        for count in range(n):
            transfer(end - count * size, count, fill, first + page, element)
            write_part(first + page, count, end - count * size, element)
        for count in range(1, 8):
            turn_around(end - count * size, -64, 20, count, fill, first + page, 64, element)
    for count in range(16):
        allowed_ones(np.ones(16, np.float32), room[2 * page - count :], np.ones(16, np.float32), count)


@pytest.mark.skipif(sys.platform == "win32", reason="memory is protected by mprotect")
def test_parts_touch_no_memory_beyond():
    code = "import test_kernel_simd; test_kernel_simd.beside_a_protected_page(); print('whole')"
    here = Path(__file__).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=False)
    assert done.stdout == "whole\n", done.stderr


@numba.njit(nogil=True, error_model="numpy")
def turn_around(address, stride, rows, count, fill, target, out_stride, element):
    columns = simd.load_columns(address, stride, rows, count, fill, element)
    simd.store_columns(target, out_stride, columns, element)


def test_columns(kind):
    """All counts of rows and entries, any stride, also a negative one."""
    float_type, bits = kind
    n, size = lanes_of(float_type), np.dtype(float_type).itemsize
    fill = np.float64(-np.inf) if size == 8 else np.float32(-np.inf)
    table = numbers(float_type, n * 11).reshape(n, 11)
    for x in (table, table[::-1]):
        for rows in range(1, n + 1):
            for count in (1, 2, 3, 4, 5, 6, 7, 8, 11):
                k = min(count, 8)
                out = np.full((n, 9), 7).astype(float_type)
                turn_around(
                    x.ctypes.data, x.strides[0], rows, count, fill, out.ctypes.data, out.strides[0], bits(0).dtype
                )
                want = np.full_like(out, 7)
                want[:, :8] = -np.inf
                want[:rows, :k] = x[:rows, :k]
                want[rows:, :k] = x[rows - 1, :k]
                assert np.array_equal(bits_of(out), bits_of(want))


def test_streams_and_scalars(kind):
    float_type, bits = kind
    n, size = lanes_of(float_type), np.dtype(float_type).itemsize
    x = numbers(float_type, n)
    room = np.full(3 * 64 // size + 2 * n, 7).astype(float_type)
    start = -room.ctypes.data % 64 // size
    stream_all(x.ctypes.data, room.ctypes.data + start * size, bits(0).dtype)
    assert np.array_equal(bits_of(room[start : start + n]), bits_of(x))
    assert (room[:start] == 7).all()
    assert (room[start + n :] == 7).all()
    for i in range(n):
        out = np.full(3, 7).astype(float_type)
        assert one(x[i:].view(bits), out[1:].view(bits)) == size
        assert np.array_equal(bits_of(out[1:2]), bits_of(x[i : i + 1]))
        assert (out[[0, 2]] == 7).all()


@numba.njit(nogil=True, error_model="numpy")
def convert(source, target):
    """Read one type and write another, both computed with in the same one."""
    lanes = 16
    for k in range(0, source.shape[0], lanes):
        v = simd.load(address_of(source) + k * source.itemsize, source.dtype)
        simd.store(address_of(target) + k * target.itemsize, v, target.dtype)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_half_number_is_read_as_it_is(name):
    float_type, bits = KINDS[name]
    x = np.arange(1 << 16, dtype=np.uint16).view(float_type)
    wide = np.empty(1 << 16, np.float32)
    convert(x.view(bits), wide)
    assert np.array_equal(wide, x.astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_every_boundary_between_half_numbers_rounds_to_even(name):
    """Each number of a half type, each midpoint between two, and float32's neighbours of both."""
    float_type, bits = KINDS[name]
    with np.errstate(all="ignore"):
        each = np.arange(1 << 16, dtype=np.uint16).view(float_type)
        each = np.sort(each[np.isfinite(each)].astype(np.float32))
        middle = (each[1:] + (each[:-1] - each[1:]) / 2).astype(np.float32)
        largest = np.float32(each[-1])
        beyond = np.array([largest * 1.0009765, 65519.9, 65520.0, 1e9, 3.4e38, np.inf], np.float32)
        x = np.concatenate([each, middle, beyond, -beyond])
        x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
        x = np.resize(x, -(-len(x) // 16) * 16)
        out = np.empty(len(x), float_type)
        convert(x, out.view(bits))
        assert np.array_equal(bits_of(out), bits_of(x.astype(float_type)))


@numba.njit(nogil=True, error_model="numpy")
def across(x):
    v = simd.load(address_of(x), x.dtype)
    return simd.reduce_max(v), simd.reduce_sum(v), simd.tournament(v)


def test_across_lanes(real):
    """The largest, the sum and the tournament; −∞, ties, and a NaN in each lane."""
    n = lanes_of(real)
    rng = np.random.default_rng(3)
    for _ in range(20):
        x = rng.integers(-50, 50, n).astype(real)
        largest, summed, (big, rest) = across(x)
        assert largest == big == x.max()
        assert summed == x.sum()
        assert rest == x.sum() - x.max()
    for lane in range(n):
        x = np.ones(n, real)
        x[lane] = np.nan
        largest, summed, (big, rest) = across(x)
        assert np.isnan(summed)
        assert np.isnan(big) or np.isnan(rest)
        x[:] = -np.inf
        x[lane] = 3
        assert across(x)[0] == 3
        x[:] = 0
        x[lane] = np.finfo(real).max
        assert across(x)[2] == (np.finfo(real).max, 0)


@numba.njit(nogil=True, error_model="numpy")
def allowed_ones(x, where, out, count):
    v = simd.load(address_of(x), x.dtype)
    v = simd.load_allowed(v, address_of(where)) if count < 0 else simd.load_allowed_part(v, address_of(where), count)
    simd.store(address_of(out), v, x.dtype)


def test_masks(real):
    n = lanes_of(real)
    rng = np.random.default_rng(4)
    for count in (-1, *range(n + 1)):
        x, where, out = rng.normal(size=n).astype(real), rng.random(n) < 0.5, np.empty(n, real)
        x[3] = np.nan
        allowed_ones(x, where, out, count)
        if count >= 0:
            where[count:] = False
        assert np.array_equal(out, np.where(where, x, -np.inf), equal_nan=True)


@numba.njit(nogil=True, error_model="numpy")
def widen(x, doubles, sums, lost, back):
    v = simd.load(address_of(x), x.dtype)
    simd.store_doubles(address_of(doubles), v)
    simd.store(address_of(back), simd.load_doubles(address_of(doubles), x.dtype), x.dtype)
    simd.add_doubles(address_of(sums), address_of(lost), v)
    return simd.rounded(doubles[0], x.dtype)


@numba.njit(nogil=True, error_model="numpy")
def halves_added(x, out):
    simd.store(address_of(out), simd.widen_sum(simd.load(address_of(x), x.dtype)), np.float64)


def test_float64_beside(real):
    n = lanes_of(real)
    x = np.random.default_rng(5).normal(size=n).astype(real)
    doubles, sums, lost, back = np.empty(n), np.full(n, 1e16), np.zeros(n), np.empty(n, real)
    assert widen(x, doubles, sums, lost, back) == x[0]
    assert np.array_equal(doubles, x)
    assert np.array_equal(back, x)
    assert np.array_equal(sums, 1e16 + x.astype(np.float64))
    if real == np.float64:
        assert np.array_equal(sums - 1e16 + lost, x)  # what the addition lost is kept
    else:
        out = np.empty(8)
        halves_added(x, out)
        assert np.array_equal(out, x[:8].astype(np.float64) + x[8:])


@numba.njit(nogil=True, error_model="numpy")
def powers(x, out):
    simd.store(address_of(out), simd.power_of_two(simd.load(address_of(x), x.dtype)), x.dtype)


@numba.njit(nogil=True, error_model="numpy")
def logarithm_of(x, f, e):
    parts = simd.logarithm_parts(simd.load(address_of(x), x.dtype))
    simd.store(address_of(f), parts[0], x.dtype)
    simd.store(address_of(e), parts[1], x.dtype)


def test_powers_of_two(real):
    """Adding 1.5·2²³ (1.5·2⁵²) to a biased exponent and shifting gives the power."""
    n = lanes_of(real)
    bias, magic = (127, 1.5 * 2.0**23) if real == np.float32 else (1023, 1.5 * 2.0**52)
    for start in range(1, 2 * bias - n, n):
        exponents = np.arange(start, start + n)
        out = np.empty(n, real)
        powers((exponents + magic).astype(real), out)
        assert np.array_equal(out, np.ldexp(real.type(1), exponents - bias))


def test_parts_of_a_logarithm():
    """f and e give the number back exactly, and 1 + f is between √½ and √2, also next to them."""
    root = np.sqrt(0.5)
    rng = np.random.default_rng(6)
    for trial in range(200):
        x = np.ldexp(1 + rng.random(8), rng.integers(-1020, 1020, 8))
        if trial == 0:
            x[:] = [
                1.0,
                2.0,
                0.5,
                root,
                np.nextafter(root, 0),
                2 * root,
                np.nextafter(2 * root, 0),
                2.2250738585072014e-308,
            ]
        f, e = np.empty(8), np.empty(8)
        logarithm_of(x, f, e)
        assert (np.ldexp((f + np.longdouble(1)), e.astype(int)) == x).all()
        assert (1 + f.astype(np.longdouble) >= root).all()
        assert (1 + f.astype(np.longdouble) < 2 * np.nextafter(root, 1)).all()


@numba.njit(nogil=True)
def move_bytes(source, target, count):
    simd.prefetch(address_of(source) + 4096)
    simd.copy(address_of(target), address_of(source), count)


def test_bytes():
    for count in (0, 1, 63, 64, 65, 1000):
        x = np.random.default_rng(count).integers(1, 255, 1100).astype(np.uint8)
        before, out = x.copy(), np.full(1100, 255, np.uint8)
        move_bytes(x, out, count)
        assert np.array_equal(out[:count], before[:count])
        assert (out[count:] == 255).all()
        assert np.array_equal(x, before)
