"""Triton kernels for rows of logits: each program computes a tile of rows, a block of classes at a time.

A block has (m, R): its largest entry, and its rest, the sum of all other exponentials divided by that of the largest,
times 2⁵¹² so that it is never a subnormal number. docs/numerics.md, section 2, merges the (m, R) of blocks and of parts
of a row from different programs. A row that fits in one block stays in registers; the logits of a longer one are read
again, from the second-level cache, with the row's m as the reference.

Options enter the four quantities of docs/numerics.md: effective logits (softcap, temperature), target measure (hard or
soft targets, class weights, smoothing), coefficient (z-loss), row scale. An absent option is None, and Triton compiles
the kernel without it. The logits of a row that takes no part are not read: they count as −∞. The kernels do not check,
as a Problem is valid.
"""

import triton
import triton.language as tl

from softnll._kernels.cuda.elementary import capped, number, power, reference, two_sum
from softnll._kernels.cuda.row_parts import (
    DOWN,
    TINY,
    UP,
    apart,
    block_rest,
    dense_sums,
    effective,
    factors,
    inverse,
    inverse_low,
    lifted,
    load,
    log_rest,
    measure,
    merged_parts,
    powers,
    row_rest,
    scales,
    stored,
    temperatures,
    weights,
)

# Triton compiles one kernel for all values of these.
_OPTIONS = ("cap_bits", "tau_bits", "smoothing_bits", "zeta_bits", "ignore_index")


@triton.jit
def write_rows(
    x_ptr, dx_ptr, q_ptr, w_ptr, rows, y, inside, active, first, last, C,
    stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
    cap, tau, beta, beta_low, smoothing, m, R, mass, size, extra, scale, bad, x, e,
    ROWS: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, DENSE: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write [(T − t)·p + T·extra·p − t·(1 − p)]·g'·scale of classes ``first`` to ``last``; extra = 2ζ·lse.

    ``size`` is Σ |t|: rows of which it is 0 take no part.
    With ``ONE_BLOCK``, ``x`` and ``e`` are the logits and the exponentials of the whole row.
    """
    top = m.to(COMPUTE)
    c, magic, cut = reference(top, beta)
    big = power(top, c, magic, cut, beta, beta_low)
    norm = 1.0 + R * DOWN
    broken = bad | (m == float("-inf")) | (R != R)
    if tau is not None:
        scale = scale / tau
    scale = tl.where(scale == 0.0, 0.0, tl.where(broken, float("nan"), scale))
    share = lifted(1.0 / (big.to(tl.float64) * norm), COMPUTE)
    at_target = tl.full((ROWS,), 0.0, COMPUTE)
    if DENSE:
        near, power_two = factors(share, COMPUTE)
        scale = tl.where(size == 0.0, 0.0, scale)
        if tl.float32 == COMPUTE:  # a float64 scale may overflow in float32
            high, low = factors(lifted(scale, COMPUTE), COMPUTE)
    else:
        scale = tl.where(mass == 0.0, 0.0, scale * mass)
        near, power_two = factors(tl.where(scale == 0.0, 0.0, scale * ((1.0 + extra) * share)), COMPUTE)
        reads = active & (bad == 0)
        xy = tl.load(x_ptr + rows * stride_row + y * stride_col, mask=reads, other=float("-inf")).to(COMPUTE)
        uy = effective(xy, reads, cap)
        largest = (uy == top) & reads
        p = tl.where(largest, 1.0, power(uy, c, magic, cut, beta, beta_low).to(tl.float64) / big.to(tl.float64)) / norm
        value = scale * (tl.where(largest, 0.0, p - 1.0) + extra * p)
        less = -R / norm  # p − 1 = less·DOWN: the scale is applied before DOWN if it is small, after it if it is large
        less = tl.where(tl.abs(scale) < 1.0, (scale * less) * DOWN, (scale * DOWN) * less)
        value += tl.where(largest, less, 0.0)
        if cap is not None:
            value = value * capped(xy, cap.to(COMPUTE))[1].to(tl.float64)
        at_target = tl.where(scale == 0.0, 0.0, value).to(COMPUTE)
    tl.debug_barrier()  # dx may be x: all threads have read the targets' logits before any thread writes
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
            rest = tl.where(e == big[:, None], (R * DOWN / norm).to(COMPUTE)[:, None], 1.0 - g)
            g = (mass.to(COMPUTE)[:, None] - t) * g + (mass * extra).to(COMPUTE)[:, None] * g - t * rest
            g = (g * high[:, None]) * low[:, None] if tl.float32 == COMPUTE else g * scale[:, None]
            g = tl.where((scale == 0.0)[:, None], 0.0, g)
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
    """Write (m, r) of ``PARTS`` parts of each row, each of ``span`` classes."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    part = tl.program_id(1)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if tau_ptr is not None or tau_bits is not None else None
    beta = None if tau is None else inverse(tau, COMPUTE)
    beta_low = None if tau is None else inverse_low(tau, beta)
    first = part * span
    last = tl.minimum(first + span, C)
    m, rest = row_rest(
        x_ptr, rows, inside, first, last, C, stride_row, stride_col, cap, tau, beta, beta_low, R, B, COMPUTE, GROUP
    )
    tl.store(m_ptr + rows * PARTS + part, m, mask=inside)
    tl.store(r_ptr + rows * PARTS + part, rest * DOWN, mask=inside)


@triton.jit(do_not_specialize=_OPTIONS)
def merge_kernel(
    parts_m_ptr, parts_r_ptr, m_ptr, r_ptr, lse_ptr, tau_ptr, N, tau_bits, R: tl.constexpr, PARTS: tl.constexpr
):
    """Write (m, r) of rows from those of their parts and, if there is an ``lse_ptr``, logsumexp."""
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if tau_ptr is not None or tau_bits is not None else None
    m, rest = merged_parts(parts_m_ptr, parts_r_ptr, rows, inside, tau, PARTS)
    if m_ptr is not None:
        tl.store(m_ptr + rows, m, mask=inside)
        tl.store(r_ptr + rows, rest * DOWN, mask=inside)
    if lse_ptr is not None:
        tl.store(lse_ptr + rows, (m if tau is None else m / tau) + log_rest(rest), mask=inside)


@triton.jit(do_not_specialize=_OPTIONS)
def normalise_kernel(
    x_ptr, out_ptr, m_ptr, r_ptr, tau_ptr, N, C,
    stride_row, stride_col, out_stride_row, out_stride_col, tau_bits, span,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr,
    LOG: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """Write softmax or, with ``LOG``, log_softmax of rows.

    Each program writes ``span`` classes of its rows. With an ``m_ptr`` it reads (m, r) of the rows, otherwise it
    computes them.
    """
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    tau = temperatures(tau_ptr, tau_bits, rows, inside) if tau_ptr is not None or tau_bits is not None else None
    beta = None if tau is None else inverse(tau, COMPUTE)
    beta_low = None if tau is None else inverse_low(tau, beta)
    first = tl.program_id(1) * span
    last = tl.minimum(first + span, C)
    cols = tl.arange(0, B)
    if ONE_BLOCK:
        x = load(x_ptr, rows, cols, inside[:, None] & (cols < C)[None, :], stride_row, stride_col, COMPUTE, False)
        block_m, rest, e, _ = block_rest(x, beta, beta_low, GROUP)
        m = block_m.to(tl.float64)
    elif m_ptr is not None:
        m = tl.load(m_ptr + rows, mask=inside, other=0.0)
        rest = tl.load(r_ptr + rows, mask=inside, other=0.0) * UP
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
        share = tl.where(broken, float("nan"), lifted(1.0 / (big * (1.0 + rest * DOWN)), COMPUTE))
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
                d = tl.where(fine, v, x * beta[:, None] - (top * beta)[:, None])  # x − top may overflow
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
    """Write each row's loss, times its weight, and, to pointers that are not None, (m, r) and the gradient.

    With ``PARTS`` > 0, the inputs include (m, r) of that many parts of each row.
    """
    DENSE: tl.constexpr = q_ptr is not None or smoothing_bits is not None
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    smoothing = None if smoothing_bits is None else number(smoothing_bits)
    y, s, mass, good = weights(y_ptr, s_ptr, w_ptr, rows, inside, C, ignore_index, DENSE)
    active = inside & (s != 0.0) & (mass != 0.0)
    size = mass  # of hard targets
    tau = temperatures(tau_ptr, tau_bits, rows, active) if tau_ptr is not None or tau_bits is not None else None
    beta = None if tau is None else inverse(tau, COMPUTE)
    beta_low = None if tau is None else inverse_low(tau, beta)
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
        gap, mass, size = dense_sums(
            x_ptr, q_ptr, w_ptr, rows, y, active, C, stride_row, stride_col, q_stride_row, q_stride_col,
            cap, tau, smoothing, m, R, B, COMPUTE, GROUP,
        )  # fmt: skip
    else:
        reads = active & good
        xy = tl.load(x_ptr + rows * stride_row + y * stride_col, mask=reads, other=float("-inf")).to(COMPUTE)
        gap = mass * apart(m, effective(xy, reads, cap).to(tl.float64), tau)
    value = s * (gap + mass * log_r)
    tiny = (gap == 0.0) & (rest >= 0.0) & (rest < TINY)
    value = tl.where(tiny, ((s * mass) * rest) * DOWN, value)
    extra = tl.full((R,), 0.0, tl.float64)
    if zeta_bits is not None:
        extra = 2.0 * number(zeta_bits) * lse
        value = tl.where(m == float("inf"), float("nan"), value + s * (mass * (number(zeta_bits) * lse * lse)))
    value = tl.where(bad | (m == float("-inf")) | (rest != rest), float("nan"), value)
    without_part = (active == 0) | ((size == 0.0) & (bad == 0))
    tl.store(loss_ptr + rows, tl.where(without_part, 0.0, value), mask=inside)
    if m_ptr is not None:
        tl.store(m_ptr + rows, m, mask=inside)
        tl.store(r_ptr + rows, rest * DOWN, mask=inside)
    if dx_ptr is not None:
        scale = scales(scale_ptr, rows, inside, s, SCALE_PER_ROW)
        write_rows(
            x_ptr, dx_ptr, q_ptr, w_ptr, rows, y, inside, active, 0, C, C,
            stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
            cap, tau, beta, beta_low, smoothing, m, rest, mass, size, extra, scale, bad, x, e,
            R, B, COMPUTE, DENSE, ONE_BLOCK,
        )  # fmt: skip


@triton.jit(do_not_specialize=_OPTIONS)
def gradient_kernel(
    x_ptr, dx_ptr, y_ptr, q_ptr, w_ptr, s_ptr, tau_ptr, scale_ptr, skip_ptr, m_ptr, r_ptr,
    N, C, stride_row, stride_col, dx_stride_row, dx_stride_col, q_stride_row, q_stride_col,
    ignore_index, cap_bits, tau_bits, smoothing_bits, zeta_bits, span,
    R: tl.constexpr, B: tl.constexpr, COMPUTE: tl.constexpr, GROUP: tl.constexpr, SCALE_PER_ROW: tl.constexpr,
):  # fmt: skip
    """Write the gradient from (m, r) of each row; each program writes ``span`` classes of its rows.

    If there is a ``skip_ptr``, it points to the upstream gradient, and ``dx`` holds the gradient for 1 already: the
    kernel writes nothing if the upstream gradient is 1.
    """
    if skip_ptr is not None:
        if tl.load(skip_ptr).to(tl.float64) == 1.0:
            return
    DENSE: tl.constexpr = q_ptr is not None or smoothing_bits is not None
    rows = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = rows < N
    cap = None if cap_bits is None else number(cap_bits)
    smoothing = None if smoothing_bits is None else number(smoothing_bits)
    y, s, mass, good = weights(y_ptr, s_ptr, w_ptr, rows, inside, C, ignore_index, DENSE)
    active = inside & (s != 0.0) & (mass != 0.0)
    size = mass  # of hard targets
    tau = temperatures(tau_ptr, tau_bits, rows, active) if tau_ptr is not None or tau_bits is not None else None
    beta = None if tau is None else inverse(tau, COMPUTE)
    beta_low = None if tau is None else inverse_low(tau, beta)
    m = tl.load(m_ptr + rows, mask=active, other=float("-inf"))
    rest = tl.load(r_ptr + rows, mask=active, other=-1.0) * UP
    if DENSE:
        _, mass, size = dense_sums(
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
        cap, tau, beta, beta_low, smoothing, m, rest, mass, size, extra,
        scales(scale_ptr, rows, inside, s, SCALE_PER_ROW),
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
