"""The functions that Triton's kernels share: loading a tile, (m, r) and its merge, weights, target measures, factors.

``rows.py`` explains how rows are divided into tiles and blocks.
"""

import triton
import triton.language as tl

from softnll._kernels.cuda.elementary import capped, exponential, log1p, number, power, reference, two_sum

UP, DOWN = tl.constexpr(2.0**512), tl.constexpr(2.0**-512)
TINY = tl.constexpr(2.0**448)  # for a rest below it, log1p(r) rounds to r
UNSCALED_UP = tl.constexpr(6755399441055744.0 + 1023.0 + 512.0)  # exp times 2⁵¹²


@triton.jit
def load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE: tl.constexpr, AGAIN: tl.constexpr):
    """Return a tile of logits, −∞ outside the mask; ``AGAIN``: the cache should keep them for another read."""
    at = x_ptr + rows[:, None] * stride_row + cols.to(tl.int64)[None, :] * stride_col
    policy: tl.constexpr = "evict_last" if AGAIN else "evict_first"
    return tl.load(at, mask=mask, other=float("-inf"), eviction_policy=policy).to(COMPUTE)


@triton.jit
def effective(x, mask, cap):
    """Return logits after the soft cap, if there is one, and before the temperature."""
    if cap is None:
        return x
    else:
        return tl.where(mask, capped(x, cap.to(x.dtype))[0], float("-inf"))


@triton.jit
def temperatures(tau_ptr, tau_bits, rows, inside):
    """Return one temperature a row, in float64."""
    if tau_ptr is not None:
        return tl.load(tau_ptr + rows, mask=inside, other=1.0).to(tl.float64)
    else:
        return tl.full(rows.shape, 1.0, tl.float64) * number(tau_bits)


@triton.jit
def inverse(tau, COMPUTE: tl.constexpr):
    """Return 1/τ in the type of the computation, clipped to its normal numbers; NaN if τ is not in (0, ∞)."""
    largest: tl.constexpr = 2.0**1022 if tl.float64 == COMPUTE else 2.0**126
    beta = 1.0 / tau
    beta = tl.where(beta > largest, largest, tl.where(beta < 1.0 / largest, 1.0 / largest, beta))
    return tl.where((tau > 0.0) & (tau < float("inf")), beta, float("nan")).to(COMPUTE)


@triton.jit
def inverse_low(tau, beta):
    """Return 1/τ − ``beta``, or 0 where ``beta`` was clipped."""
    high = beta.to(tl.float64)
    low = tl.fma(-high, tau, tl.full(tau.shape, 1.0, tl.float64)) / tau
    return tl.where(tl.abs(low) < high * 1e-7, low, 0.0).to(beta.dtype)


@triton.jit
def summed(e, GROUP: tl.constexpr):
    """Return the sums of rows of terms ≥ 0 in float64; float32 terms are first summed in pairs, a group at a time."""
    R: tl.constexpr = e.shape[0]
    B: tl.constexpr = e.shape[1]
    if e.dtype == tl.float64:
        anchor = 16.0 * tl.sum(e, 1)[:, None]
        high = (e + anchor) - anchor  # the leading digits, of one exponent: their sum is exact
        return tl.sum(high, 1) + tl.sum(e - high, 1)
    else:
        pairs = tl.sum(tl.reshape(e, (R, B // 2, 2)), 2)
        fours = tl.sum(tl.reshape(pairs, (R, B // 4, 2)), 2)
        if GROUP == 8:
            return tl.sum(tl.sum(tl.reshape(fours, (R, B // 8, 2)), 2).to(tl.float64), 1)
        else:
            return tl.sum(fours.to(tl.float64), 1)


@triton.jit
def powers(u, c, magic, cut, beta, beta_low):
    """Return ``power`` of a tile; all other arguments have one number a row."""
    if beta is None:
        return power(u, c[:, None], magic[:, None], cut[:, None], None, None)
    else:
        return power(u, c[:, None], magic[:, None], cut[:, None], beta[:, None], beta_low[:, None])


@triton.jit
def block_rest(u, beta, beta_low, GROUP: tl.constexpr):
    """Return (m, R, exponentials of all entries, exponential of m) of the rows of a block."""
    m, a = tl.max(u, 1, return_indices=True)
    c, magic, cut = reference(m, beta)
    e = powers(u, c, magic, cut, beta, beta_low)
    rest = summed(tl.where(tl.arange(0, u.shape[1])[None, :] == a[:, None], 0.0, e), GROUP)
    big = power(m, c, magic, cut, beta, beta_low).to(tl.float64)
    R = rest / (big * DOWN)
    R = tl.where((m == float("inf")) & (rest > 0), float("nan"), R)  # two infinities
    R = tl.where(m == float("-inf"), rest - UP, R)  # a part of −∞ only; the rest is NaN if an entry is
    return m, R, e, big


@triton.jit
def merge(m1, R1, m2, R2, tau):
    """Return (m, R) of two parts of a row."""
    first = m1 >= m2
    m, R = tl.where(first, m1, m2), tl.where(first, R1, R2)
    less, other = tl.where(first, m2, m1), tl.where(first, R2, R1)
    d, lost = two_sum(less, -m)
    if tau is not None:
        d, lost = d / tau, lost / tau
    lost = tl.where(tl.abs(d) < 1e300, lost, 0.0)
    low = d < -1060.0
    e = exponential(tl.where(low, -1060.0, d), lost, tl.full(d.shape, UNSCALED_UP, tl.float64))
    added = R + tl.where(low, 0.0, e) * (1.0 + other * DOWN)
    return m, tl.where(less == float("-inf"), tl.where(other == other, R, float("nan")), added)


@triton.jit
def row_rest(
    x_ptr, rows, active, first, last, C, stride_row, stride_col, cap, tau, beta, beta_low,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return (m, R) of classes ``first`` to ``last``, block by block."""
    m = tl.full((R,), float("-inf"), tl.float64)
    rest = tl.full((R,), -1.0, tl.float64) * UP
    for start in range(first, last, B):
        cols = start + tl.arange(0, B)
        mask = active[:, None] & (cols < last)[None, :]
        x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, True)
        block_m, block_R, _, _ = block_rest(effective(x, mask, cap), beta, beta_low, GROUP)
        m, rest = merge(m, rest, block_m.to(tl.float64), block_R, tau)
    return m, rest


@triton.jit
def merged_parts(parts_m_ptr, parts_r_ptr, rows, inside, tau, PARTS: tl.constexpr):
    """Return (m, R) of rows from those of their parts."""
    m = tl.load(parts_m_ptr + rows * PARTS, mask=inside, other=float("-inf"))
    rest = tl.load(parts_r_ptr + rows * PARTS, mask=inside, other=-1.0) * UP
    for i in range(1, PARTS):
        other_m = tl.load(parts_m_ptr + rows * PARTS + i, mask=inside, other=float("-inf"))
        other = tl.load(parts_r_ptr + rows * PARTS + i, mask=inside, other=-1.0) * UP
        m, rest = merge(m, rest, other_m, other, tau)
    return m, rest


@triton.jit
def log_rest(R):
    """Return log1p(r) of R = 2⁵¹²·r."""
    return tl.where((R >= 0) & (R < TINY), R * DOWN, log1p(R * DOWN))


@triton.jit
def apart(m, u, tau):
    """Return (m − u)/τ in float64; 0 for the largest entry, also where that is infinite."""
    d = m - u
    if tau is not None:
        far = (tl.abs(d) == float("inf")) & (tl.abs(m) < float("inf")) & (tl.abs(u) < float("inf"))
        d = tl.where(far, m / tau - u / tau, d / tau)
    return tl.where(u == m, 0.0, d)


@triton.jit
def factors(scaled, COMPUTE: tl.constexpr):
    """Return (a, b) with a·b = scaled / lifted(1) and b a power of two: multiply exponentials by a, then by b.

    The exponentials are of the size of ``lifted(1)``. Their product with a is subnormal or infinite only if the final
    product is.
    """
    up: tl.constexpr = 2.0**200 if tl.float64 == COMPUTE else 2.0**64
    size = tl.abs(scaled)
    small, large = size < 4.0, size >= up * up
    first = tl.where(large, scaled / up / up, tl.where(small, scaled, scaled / up))
    second = tl.where(small, 1.0 / up, tl.where(large, up, 1.0))
    if tl.float32 == COMPUTE:
        beyond = (tl.abs(first) > 2.0**127) & (size < float("inf"))  # 0 times it stays 0
        first = tl.where(beyond, tl.where(scaled > 0, 2.0**127, -(2.0**127)), first)
        second = tl.where(beyond, 2.0**127, second)
    return first.to(COMPUTE), second.to(COMPUTE)


@triton.jit
def lifted(share, COMPUTE: tl.constexpr):
    """Return ``share`` times 2⁶⁴ (float64: 2²⁰⁰), for ``factors``; a share is a multiple of 1 over an exponential."""
    up: tl.constexpr = 2.0**200 if tl.float64 == COMPUTE else 2.0**64
    return share * up


@triton.jit
def stored(g, dtype: tl.constexpr):
    """Return numbers in the type of the output; float64 becomes bfloat16 by way of float32."""
    if g.dtype == tl.float64:
        if dtype == tl.bfloat16:
            g = g.to(tl.float32)
    return g.to(dtype)


@triton.jit
def measure(q_ptr, w_ptr, rows, cols, mask, y, C, q_stride_row, q_stride_col, smoothing, COMPUTE: tl.constexpr):
    """Return the target measure t of a tile, 0 outside the mask."""
    if q_ptr is not None:
        at = q_ptr + rows[:, None] * q_stride_row + cols.to(tl.int64)[None, :] * q_stride_col
        t = tl.load(at, mask=mask, other=0.0).to(COMPUTE)
    else:
        t = (cols[None, :] == y[:, None]).to(COMPUTE)
    if smoothing is not None:
        t = t * (1.0 - smoothing).to(COMPUTE) + (smoothing / C).to(COMPUTE)
    if w_ptr is not None:
        t = t * tl.load(w_ptr + cols, mask=cols < C, other=0.0).to(COMPUTE)[None, :]
    return tl.where(mask, t, 0.0)


@triton.jit
def weights(y_ptr, s_ptr, w_ptr, rows, inside, C, ignore_index, DENSE: tl.constexpr):
    """Return each row's target, weight s, mass T (1 if DENSE) and whether its hard target, if any, is in range."""
    s = tl.full(rows.shape, 1.0, tl.float64)
    if s_ptr is not None:
        s = tl.load(s_ptr + rows, mask=inside, other=0.0).to(tl.float64)
    y = tl.full(rows.shape, 0, tl.int64)
    mass = tl.full(rows.shape, 1.0, tl.float64)
    good = inside
    if y_ptr is not None:
        y = tl.load(y_ptr + rows, mask=inside, other=0).to(tl.int64)
        s = tl.where(y == ignore_index, 0.0, s)
        good = (y >= 0) & (y < C)
        if w_ptr is not None and not DENSE:
            mass = tl.load(w_ptr + y, mask=inside & good, other=1.0).to(tl.float64)
    return y, s, mass, good


@triton.jit
def scales(scale_ptr, rows, inside, s, SCALE_PER_ROW: tl.constexpr):
    """Return the factor of each row's gradient: s times the upstream gradient, divided by D; 0 stays 0."""
    if scale_ptr is None:
        return s
    else:
        scale = tl.load(scale_ptr + rows, mask=inside, other=0.0) if SCALE_PER_ROW else tl.load(scale_ptr)
        return tl.where(s == 0, 0.0, s * scale)


@triton.jit
def dense_sums(
    x_ptr, q_ptr, w_ptr, rows, y, active, C, stride_row, stride_col, q_stride_row, q_stride_col, cap, tau, smoothing, m,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return (Σ t·(m − u)/τ over t ≠ 0, T = Σ t, Σ |t|) of rows with soft or smoothed targets."""
    total, mass = tl.full((R,), 0.0, tl.float64), tl.full((R,), 0.0, tl.float64)
    size = mass
    top = m.to(COMPUTE)[:, None]
    for start in range(0, C, B):
        cols = start + tl.arange(0, B)
        mask = active[:, None] & (cols < C)[None, :]
        x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, True)
        u = effective(x, mask, cap)
        t = measure(q_ptr, w_ptr, rows, cols, mask, y, C, q_stride_row, q_stride_col, smoothing, COMPUTE)
        gap = tl.where(u == top, 0.0, top - u)
        total += tl.sum(tl.where(t == 0.0, 0.0, gap.to(tl.float64) * t.to(tl.float64)), 1)
        mass += tl.sum(t.to(tl.float64), 1)
        size += tl.sum(tl.abs(t.to(tl.float64)), 1)
    return (total if tau is None else total / tau), mass, size
