"""Triton kernels for rows of logits: a tile of rows a program, a block of classes at a time.

A block yields (m, R): its largest entry and its rest, the sum of all other exponentials over that of the largest,
2⁵¹² times as large so that it is never a subnormal number. Blocks, and parts of a row that other programs have seen to,
merge by docs/numerics.md, section 2. Where one block takes the whole row it stays on the chip; else the logits are
read again, from the second-level cache, with the row's own m as the reference.

Options are the four quantities of docs/numerics.md: effective logits (softcap, temperature), target measure (hard or
soft targets, class weights, smoothing), coefficient (z-loss), row scale. What is absent is None, and Triton compiles
the kernel without it. A row that takes no part is not even read: it is a row of −∞. Nothing here checks: what is a
Problem is valid.
"""

import triton
import triton.language as tl

from softnll.kernels.cuda_elementary import capped, exponential, log1p, number, power, reference, two_sum

__all__ = ["gradient_kernel", "lift_kernel", "loss_kernel", "merge_kernel", "normalise_kernel", "rest_kernel"]

_UP, _DOWN = tl.constexpr(2.0**512), tl.constexpr(2.0**-512)
_TINY = tl.constexpr(2.0**448)  # below it a rest is so small that log1p(r) is r
_UNSCALED_UP = tl.constexpr(6755399441055744.0 + 1023.0 + 512.0)  # exp times 2⁵¹²
_OPTIONS = ("cap_bits", "tau_bits", "smoothing_bits", "zeta_bits", "ignore_index")  # values that compile nothing anew


@triton.jit
def load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE: tl.constexpr, AGAIN: tl.constexpr):
    """Return a tile of logits, −∞ where there is nothing to read; ``AGAIN``: they will be read once more."""
    at = x_ptr + rows[:, None] * stride_row + cols.to(tl.int64)[None, :] * stride_col
    if AGAIN:
        x = tl.load(at, mask=mask, other=float("-inf"), eviction_policy="evict_last")
    else:
        x = tl.load(at, mask=mask, other=float("-inf"), eviction_policy="evict_first")
    return x.to(COMPUTE)


@triton.jit
def effective(x, mask, cap):
    """Return logits after the soft cap, if there is one, before the temperature."""
    if cap is None:
        return x
    else:
        return tl.where(mask, capped(x, cap.to(x.dtype))[0], float("-inf"))


@triton.jit
def temperatures(tau_ptr, tau_bits, rows, inside):
    """Return one temperature a row in float64."""
    if tau_ptr is not None:
        return tl.load(tau_ptr + rows, mask=inside, other=1.0).to(tl.float64)
    else:
        return tl.full(rows.shape, 1.0, tl.float64) * number(tau_bits)


@triton.jit
def inverse(tau, COMPUTE: tl.constexpr):
    """Return 1/τ in the type computed in, within its normal numbers; NaN of what is no temperature."""
    largest: tl.constexpr = 2.0**1022 if tl.float64 == COMPUTE else 2.0**126
    beta = 1.0 / tau
    beta = tl.where(beta > largest, largest, tl.where(beta < 1.0 / largest, 1.0 / largest, beta))
    return tl.where((tau > 0.0) & (tau < float("inf")), beta, float("nan")).to(COMPUTE)


@triton.jit
def inverse_low(tau, beta):
    """Return what ``beta`` lacks of 1/τ, where that is within its range."""
    high = beta.to(tl.float64)
    low = tl.fma(-high, tau, tl.full(tau.shape, 1.0, tl.float64)) / tau
    return tl.where(tl.abs(low) < high * 1e-7, low, 0.0).to(beta.dtype)


@triton.jit
def summed(e, GROUP: tl.constexpr):
    """Return the sums of rows of terms ≥ 0 in float64: float32 a group in pairs, then wider; float64 without drift."""
    R: tl.constexpr = e.shape[0]
    B: tl.constexpr = e.shape[1]
    if e.dtype == tl.float64:
        anchor = 16.0 * tl.sum(e, 1)[:, None]
        high = (e + anchor) - anchor  # digits that all of them share: their sum is exact
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
    """Return ``power`` of a tile, of which everything else is one a row."""
    if beta is None:
        return power(u, c[:, None], magic[:, None], cut[:, None], None, None)
    else:
        return power(u, c[:, None], magic[:, None], cut[:, None], beta[:, None], beta_low[:, None])


@triton.jit
def block_rest(u, beta, beta_low, GROUP: tl.constexpr):
    """Return (m, R, all exponentials, that of m) of the rows of a block."""
    m, a = tl.max(u, 1, return_indices=True)
    c, magic, cut = reference(m, beta)
    e = powers(u, c, magic, cut, beta, beta_low)
    rest = summed(tl.where(tl.arange(0, u.shape[1])[None, :] == a[:, None], 0.0, e), GROUP)
    big = power(m, c, magic, cut, beta, beta_low).to(tl.float64)
    R = rest / (big * _DOWN)
    R = tl.where((m == float("inf")) & (rest > 0), float("nan"), R)  # two infinities
    R = tl.where(m == float("-inf"), rest - _UP, R)  # the empty part; a NaN beside is in the rest
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
    e = exponential(tl.where(low, -1060.0, d), lost, tl.full(d.shape, _UNSCALED_UP, tl.float64))
    added = R + tl.where(low, 0.0, e) * (1.0 + other * _DOWN)
    return m, tl.where(less == float("-inf"), tl.where(other == other, R, float("nan")), added)


@triton.jit
def row_rest(
    x_ptr, rows, active, first, last, C, stride_row, stride_col, cap, tau, beta, beta_low,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return (m, R) of classes ``first`` to ``last``, in blocks."""
    m = tl.full((R,), float("-inf"), tl.float64)
    rest = tl.full((R,), -1.0, tl.float64) * _UP
    for start in range(first, last, B):
        cols = start + tl.arange(0, B)
        mask = active[:, None] & (cols < last)[None, :]
        x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, True)
        block_m, block_R, _, _ = block_rest(effective(x, mask, cap), beta, beta_low, GROUP)
        m, rest = merge(m, rest, block_m.to(tl.float64), block_R, tau)
    return m, rest


@triton.jit
def merged_parts(parts_m_ptr, parts_r_ptr, rows, inside, tau, PARTS: tl.constexpr):
    """Return (m, R) of rows that several programs have seen to."""
    m = tl.load(parts_m_ptr + rows * PARTS, mask=inside, other=float("-inf"))
    rest = tl.load(parts_r_ptr + rows * PARTS, mask=inside, other=-1.0) * _UP
    for i in range(1, PARTS):
        other_m = tl.load(parts_m_ptr + rows * PARTS + i, mask=inside, other=float("-inf"))
        other = tl.load(parts_r_ptr + rows * PARTS + i, mask=inside, other=-1.0) * _UP
        m, rest = merge(m, rest, other_m, other, tau)
    return m, rest


@triton.jit
def log_rest(R):
    """Return log1p(r)."""
    return tl.where((R >= 0) & (R < _TINY), R * _DOWN, log1p(R * _DOWN))


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
    """Return a factor of exponentials, given ``lifted``, as two in the type computed in, the second a power of two.

    Exponentials are about as large as ``lifted(1)``. Between the two nothing is a subnormal number or beyond the range
    where their product is neither.
    """
    up: tl.constexpr = 2.0**200 if tl.float64 == COMPUTE else 2.0**64
    size = tl.abs(scaled)
    small, large = size < 4.0, size >= up * up
    first = tl.where(large, scaled / up / up, tl.where(small, scaled, scaled / up))
    second = tl.where(small, 1.0 / up, tl.where(large, up, 1.0))
    if tl.float32 == COMPUTE:
        beyond = (tl.abs(first) > 2.0**127) & (size < float("inf"))  # 0 times it is 0
        first = tl.where(beyond, tl.where(scaled > 0, 2.0**127, -(2.0**127)), first)
        second = tl.where(beyond, 2.0**127, second)
    return first.to(COMPUTE), second.to(COMPUTE)


@triton.jit
def lifted(share, COMPUTE: tl.constexpr):
    """Return a share of a reciprocal exponential as ``factors`` takes it."""
    up: tl.constexpr = 2.0**200 if tl.float64 == COMPUTE else 2.0**64
    return share * up


@triton.jit
def stored(g, dtype: tl.constexpr):
    """Return numbers in the type of what they are stored in; float64 becomes bfloat16 by float32."""
    if g.dtype == tl.float64:
        if dtype == tl.bfloat16:
            g = g.to(tl.float32)
    return g.to(dtype)


@triton.jit
def measure(
    q_ptr, w_ptr, rows, cols, mask, y, C, q_stride_row, q_stride_col, smoothing, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Return the target measure t of a tile, 0 outside."""
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
    """Return each row's target, weight s, mass T where that is known, and whether its target is a class or none is."""
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
    """Return what the gradient of each row is multiplied by: s times the upstream gradient over D."""
    if scale_ptr is None:
        return s
    else:
        return scaled(scale_ptr, rows, inside, s, SCALE_PER_ROW)


@triton.jit
def scaled(scale_ptr, rows, inside, s, SCALE_PER_ROW: tl.constexpr):
    """Return row weights times a scale; 0 stays 0."""
    scale = tl.load(scale_ptr + rows, mask=inside, other=0.0) if SCALE_PER_ROW else tl.load(scale_ptr)
    return tl.where(s == 0, 0.0, s * scale)


@triton.jit
def dense_sums(
    x_ptr, q_ptr, w_ptr, rows, y, active, C, stride_row, stride_col, q_stride_row, q_stride_col, cap, tau, smoothing, m,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Return (Σ t·(m − u)/τ over t ≠ 0, T = Σ t) of rows whose targets are spread."""
    total, mass = tl.full((R,), 0.0, tl.float64), tl.full((R,), 0.0, tl.float64)
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
    return (total if tau is None else total / tau), mass


@triton.jit
def write_rows(
    x_ptr, dx_ptr, q_ptr, w_ptr, rows, y, inside, active, first, last, C,
    stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
    cap, tau, beta, beta_low, smoothing, m, R, mass, extra, scale, bad, x, e,
    ROWS: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, DENSE: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write [(T − t)·p + T·extra·p − t·(1 − p)]·g'·scale of classes ``first`` to ``last``; extra = 2ζ·lse.

    With ``ONE_BLOCK``, from the logits and exponentials that are at hand.
    """
    top = m.to(COMPUTE)
    c, magic, cut = reference(top, beta)
    big = power(top, c, magic, cut, beta, beta_low)
    norm = 1.0 + R * _DOWN
    broken = bad | (m == float("-inf")) | (R != R)
    if tau is not None:
        scale = scale / tau
    scale = tl.where(scale == 0.0, 0.0, tl.where(broken, float("nan"), scale))
    share = lifted(1.0 / (big.to(tl.float64) * norm), COMPUTE)
    at_target = tl.full((ROWS,), 0.0, COMPUTE)
    if DENSE:
        near, power_two = factors(share, COMPUTE)
        silent = (scale == 0.0) | (mass == 0.0)
        by = tl.where(silent, 0.0, scale)
        if tl.float32 == COMPUTE:  # a scale may be out of its range
            high, low = factors(lifted(by, COMPUTE), COMPUTE)
    else:
        scale = tl.where(mass == 0.0, 0.0, scale * mass)
        near, power_two = factors(tl.where(scale == 0.0, 0.0, scale * ((1.0 + extra) * share)), COMPUTE)
        reads = active & (bad == 0)
        xy = tl.load(x_ptr + rows * stride_row + y * stride_col, mask=reads, other=float("-inf")).to(COMPUTE)
        uy = effective(xy, reads, cap)
        largest = (uy == top) & reads
        p = tl.where(largest, 1.0, power(uy, c, magic, cut, beta, beta_low).to(tl.float64) / big.to(tl.float64)) / norm
        value = scale * (tl.where(largest, 0.0, p - 1.0) + extra * p)
        less = -R / norm  # p − 1, scaled before it is made small again; a large scale is made small instead
        less = tl.where(tl.abs(scale) < 1.0, (scale * less) * _DOWN, (scale * _DOWN) * less)
        value += tl.where(largest, less, 0.0)
        if cap is not None:
            value = value * capped(xy, cap.to(COMPUTE))[1].to(tl.float64)
        at_target = tl.where(scale == 0.0, 0.0, value).to(COMPUTE)
    tl.debug_barrier()  # dx may be x: all of the program has read what it reads once, before any of it writes
    for start in range(first, last, B):
        cols = start + tl.arange(0, B)
        mask = active[:, None] & (cols < last)[None, :]
        if not ONE_BLOCK:
            x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, False)
            u = effective(x, mask, cap)
            e = powers(u, c, magic, cut, beta, beta_low)
        g = (e * near[:, None]) * power_two[:, None]
        if DENSE:
            t = measure(q_ptr, w_ptr, rows, cols, mask, y, C, q_stride_row, q_stride_col, smoothing, COMPUTE)
            rest = tl.where(e == big[:, None], (R * _DOWN / norm).to(COMPUTE)[:, None], 1.0 - g)
            g = (mass.to(COMPUTE)[:, None] - t) * g + (mass * extra).to(COMPUTE)[:, None] * g - t * rest
            g = (g * high[:, None]) * low[:, None] if tl.float32 == COMPUTE else g * by[:, None]
            g = tl.where(silent[:, None], 0.0, g)
        if cap is not None:
            g = g * capped(x, cap.to(COMPUTE))[1]
            g = tl.where((scale == 0.0)[:, None], 0.0, g)
        if not DENSE:
            g = tl.where(cols[None, :] == y[:, None], at_target[:, None], g)
        at = dx_ptr + rows[:, None] * dx_stride_row + cols.to(tl.int64)[None, :] * dx_stride_col
        tl.store(at, stored(g, dx_ptr.dtype.element_ty), mask=inside[:, None] & (cols < last)[None, :])


@triton.jit(do_not_specialize=_OPTIONS)
def rest_kernel(
    x_ptr, m_ptr, r_ptr, tau_ptr, N, C, stride_row, stride_col, cap_bits, tau_bits, span,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write (m, r) of ``PARTS`` parts of each row, ``span`` classes each."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    part = tl.program_id(1)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    HEATED: tl.constexpr = tau_ptr is not None or tau_bits is not None
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if HEATED else None
    beta = inverse(tau, COMPUTE) if HEATED else None
    beta_low = inverse_low(tau, beta) if HEATED else None
    first = part * span
    last = tl.minimum(first + span, C)
    m, rest = row_rest(
        x_ptr, rows, inside, first, last, C, stride_row, stride_col, cap, tau, beta, beta_low, R, B, COMPUTE, GROUP
    )
    tl.store(m_ptr + rows * PARTS + part, m, mask=inside)
    tl.store(r_ptr + rows * PARTS + part, rest * _DOWN, mask=inside)


@triton.jit(do_not_specialize=_OPTIONS)
def merge_kernel(
    parts_m_ptr, parts_r_ptr, m_ptr, r_ptr, lse_ptr, tau_ptr, N, tau_bits, R: tl.constexpr, PARTS: tl.constexpr
):
    """Write (m, r) of rows from those of their parts, and logsumexp if there is an ``lse_ptr``."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    HEATED: tl.constexpr = tau_ptr is not None or tau_bits is not None
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if HEATED else None
    m, rest = merged_parts(parts_m_ptr, parts_r_ptr, rows, inside, tau, PARTS)
    if m_ptr is not None:
        tl.store(m_ptr + rows, m, mask=inside)
        tl.store(r_ptr + rows, rest * _DOWN, mask=inside)
    if lse_ptr is not None:
        tl.store(lse_ptr + rows, (m if tau is None else m / tau) + log_rest(rest), mask=inside)


@triton.jit(do_not_specialize=_OPTIONS)
def normalise_kernel(
    x_ptr, out_ptr, m_ptr, r_ptr, tau_ptr, N, C,
    stride_row, stride_col, out_stride_row, out_stride_col, tau_bits, span,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
    LOG: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write softmax or log_softmax; from (m, r) of each row if there is an ``m_ptr``, a part of the row a program."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    HEATED: tl.constexpr = tau_ptr is not None or tau_bits is not None
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if HEATED else None
    beta = inverse(tau, COMPUTE) if HEATED else None
    beta_low = inverse_low(tau, beta) if HEATED else None
    first = tl.program_id(1) * span
    last = tl.minimum(first + span, C)
    cols = tl.arange(0, B)
    if ONE_BLOCK:
        x = load(x_ptr, rows, cols, inside[:, None] & (cols < C)[None, :], stride_row, stride_col, COMPUTE, False)
        block_m, rest, e, _ = block_rest(x, beta, beta_low, GROUP)
        m = block_m.to(tl.float64)
    elif m_ptr is not None:
        m = tl.load(m_ptr + rows, mask=inside, other=0.0)
        rest = tl.load(r_ptr + rows, mask=inside, other=0.0) * _UP
    else:
        m, rest = row_rest(
            x_ptr, rows, inside, 0, C, C, stride_row, stride_col, None, tau, beta, beta_low, R, B, COMPUTE, GROUP
        )
    top = m.to(COMPUTE)
    c, magic, cut = reference(top, beta)
    broken = (m == float("-inf")) | (rest != rest)
    if LOG:
        log_r = tl.where(broken, float("nan"), log_rest(rest)).to(COMPUTE)[:, None]
    else:
        big = power(top, c, magic, cut, beta, beta_low).to(tl.float64)
        share = tl.where(broken, float("nan"), lifted(1.0 / (big * (1.0 + rest * _DOWN)), COMPUTE))
        near, power_two = factors(share, COMPUTE)
    for start in range(first, last, B):
        cols = start + tl.arange(0, B)
        mask = inside[:, None] & (cols < last)[None, :]
        if not ONE_BLOCK:
            x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, False)
        if LOG:
            d, lost = two_sum(x, -top[:, None])
            lost = tl.where(tl.abs(d) < float("inf"), lost, 0.0)
            d = tl.where(x == top[:, None], 0.0, d)
            if tau is not None:
                v = d * beta[:, None]
                fine = tl.abs(v) < float("inf")
                lost = tl.where(
                    fine, tl.fma(d, beta[:, None], -v) + (d * beta_low[:, None] + lost * beta[:, None]), 0.0
                )
                d = tl.where(fine, v, x * beta[:, None] - (top * beta)[:, None])  # a difference may leave the range
            value = (lost - log_r) + d
        else:
            if not ONE_BLOCK:
                e = powers(x, c, magic, cut, beta, beta_low)
            value = (e * near[:, None]) * power_two[:, None]
        at = out_ptr + rows[:, None] * out_stride_row + cols.to(tl.int64)[None, :] * out_stride_col
        tl.store(at, stored(value, out_ptr.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=_OPTIONS)
def loss_kernel(
    x_ptr, dx_ptr, y_ptr, q_ptr, w_ptr, s_ptr, tau_ptr, scale_ptr, parts_m_ptr, parts_r_ptr, loss_ptr, m_ptr, r_ptr,
    N, C, stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
    ignore_index, cap_bits, tau_bits, smoothing_bits, zeta_bits,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
    PARTS: tl.constexpr, ONE_BLOCK: tl.constexpr, SCALE_PER_ROW: tl.constexpr,
):  # fmt: skip
    """Write each row's loss (weight applied), (m, r) to an ``m_ptr``, the gradient to a ``dx_ptr``, if they are there.

    With ``PARTS`` > 0, from (m, r) of so many parts of each row.
    """
    DENSE: tl.constexpr = q_ptr is not None or smoothing_bits is not None
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    smoothing = None if smoothing_bits is None else number(smoothing_bits)
    HEATED: tl.constexpr = tau_ptr is not None or tau_bits is not None
    y, s, mass, good = weights(y_ptr, s_ptr, w_ptr, rows, inside, C, ignore_index, DENSE)
    active = inside & (s != 0.0) & (mass != 0.0)
    tau = temperatures(tau_ptr, tau_bits, rows, active) if HEATED else None
    beta = inverse(tau, COMPUTE) if HEATED else None
    beta_low = inverse_low(tau, beta) if HEATED else None
    bad = active & (good == 0)
    x = tl.full((R, B), 0.0, COMPUTE)
    e = x
    if ONE_BLOCK:
        cols = tl.arange(0, B)
        mask = active[:, None] & (cols < C)[None, :]
        x = load(x_ptr, rows, cols, mask, stride_row, stride_col, COMPUTE, False)
        top, rest, e, _ = block_rest(effective(x, mask, cap), beta, beta_low, GROUP)
        m = top.to(tl.float64)
    elif PARTS > 0:
        m, rest = merged_parts(parts_m_ptr, parts_r_ptr, rows, inside, tau, PARTS)
    else:
        m, rest = row_rest(
            x_ptr, rows, active, 0, C, C, stride_row, stride_col, cap, tau, beta, beta_low, R, B, COMPUTE, GROUP
        )
    log_r = log_rest(rest)
    lse = (m if tau is None else m / tau) + log_r
    if DENSE:
        gap, mass = dense_sums(
            x_ptr, q_ptr, w_ptr, rows, y, active, C, stride_row, stride_col, q_stride_row, q_stride_col,
            cap, tau, smoothing, m, R, B, COMPUTE, GROUP,
        )  # fmt: skip
    else:
        reads = active & good
        xy = tl.load(x_ptr + rows * stride_row + y * stride_col, mask=reads, other=float("-inf")).to(COMPUTE)
        gap = mass * apart(m, effective(xy, reads, cap).to(tl.float64), tau)
    value = s * (gap + mass * log_r)
    tiny = (gap == 0.0) & (rest >= 0.0) & (rest < _TINY)
    value = tl.where(tiny, ((s * mass) * rest) * _DOWN, value)
    extra = tl.full((R,), 0.0, tl.float64)
    if zeta_bits is not None:
        extra = 2.0 * number(zeta_bits) * lse
        value = tl.where(m == float("inf"), float("nan"), value + s * (mass * (number(zeta_bits) * lse * lse)))
    value = tl.where(bad | (m == float("-inf")) | (rest != rest), float("nan"), value)
    silent = (active == 0) | ((mass == 0.0) & (bad == 0))  # spread targets' mass is known by now
    tl.store(loss_ptr + rows, tl.where(silent, 0.0, value), mask=inside)
    if m_ptr is not None:
        tl.store(m_ptr + rows, m, mask=inside)
        tl.store(r_ptr + rows, rest * _DOWN, mask=inside)
    if dx_ptr is not None:
        scale = scales(scale_ptr, rows, inside, s, SCALE_PER_ROW)
        write_rows(
            x_ptr, dx_ptr, q_ptr, w_ptr, rows, y, inside, active, 0, C, C,
            stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
            cap, tau, beta, beta_low, smoothing, m, rest, mass, extra, scale, bad, x, e,
            R, B, COMPUTE, DENSE, ONE_BLOCK,
        )  # fmt: skip


@triton.jit(do_not_specialize=_OPTIONS)
def gradient_kernel(
    x_ptr, dx_ptr, y_ptr, q_ptr, w_ptr, s_ptr, tau_ptr, scale_ptr, skip_ptr, m_ptr, r_ptr,
    N, C, stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
    ignore_index, cap_bits, tau_bits, smoothing_bits, zeta_bits, span,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr, SCALE_PER_ROW: tl.constexpr,
):  # fmt: skip
    """Write the gradient from (m, r) of each row, a part of the row a program.

    Nothing is done where there is a ``skip_ptr`` and the number there is 1: what is there is the gradient already.
    """
    if skip_ptr is not None:
        if tl.load(skip_ptr).to(tl.float64) == 1.0:
            return
    DENSE: tl.constexpr = q_ptr is not None or smoothing_bits is not None
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    smoothing = None if smoothing_bits is None else number(smoothing_bits)
    HEATED: tl.constexpr = tau_ptr is not None or tau_bits is not None
    y, s, mass, good = weights(y_ptr, s_ptr, w_ptr, rows, inside, C, ignore_index, DENSE)
    active = inside & (s != 0.0) & (mass != 0.0)
    tau = temperatures(tau_ptr, tau_bits, rows, active) if HEATED else None
    beta = inverse(tau, COMPUTE) if HEATED else None
    beta_low = inverse_low(tau, beta) if HEATED else None
    m = tl.load(m_ptr + rows, mask=active, other=float("-inf"))
    rest = tl.load(r_ptr + rows, mask=active, other=-1.0) * _UP
    if DENSE:
        _, mass = dense_sums(
            x_ptr, q_ptr, w_ptr, rows, y, active, C, stride_row, stride_col, q_stride_row, q_stride_col,
            cap, tau, smoothing, m, R, B, COMPUTE, GROUP,
        )  # fmt: skip
    extra = tl.full((R,), 0.0, tl.float64)
    if zeta_bits is not None:
        extra = 2.0 * number(zeta_bits) * ((m if tau is None else m / tau) + log_rest(rest))
    first = tl.program_id(1) * span
    none = tl.full((R, B), 0.0, COMPUTE)
    write_rows(
        x_ptr, dx_ptr, q_ptr, w_ptr, rows, y, inside, active, first, tl.minimum(first + span, C), C,
        stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
        cap, tau, beta, beta_low, smoothing, m, rest, mass, extra, scales(scale_ptr, rows, inside, s, SCALE_PER_ROW),
        active & (good == 0), none, none, R, B, COMPUTE, DENSE, False,
    )  # fmt: skip


@triton.jit
def lift_kernel(values_ptr, factor_ptr, n, B: tl.constexpr):
    """Multiply values by a number in place, unless it is 1; 0 stays 0."""
    factor = tl.load(factor_ptr)
    if factor.to(tl.float64) == 1.0:
        return
    at = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    values = tl.load(values_ptr + at, mask=at < n, other=0.0)
    if values.dtype == tl.float64:
        product = values * factor.to(tl.float64)
    else:
        product = values.to(tl.float32) * factor.to(tl.float32)
    tl.store(values_ptr + at, tl.where(values == 0.0, 0.0, product).to(values_ptr.dtype.element_ty), mask=at < n)
