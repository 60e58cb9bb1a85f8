"""The kernels of CUDA devices, in Triton: the functions of ``_kernels/cpu/interface.py`` on Problems of torch tensors.

Nothing synchronises with the device: a Problem's ``divisor`` and an upstream gradient are float64 tensors on the
device (the divisor may be a number). Launches and tiles depend on shapes and types alone, so that all of it can be
captured in a CUDA graph and runs in the same order each time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, cast

import torch
import triton
import triton.language as tl
from torch import Tensor

from softnll._core.problem import Problem
from softnll._kernels.cuda import rows as cuda_rows

Launch = dict[str, Any]
Launching = TypeVar("Launching", bound=Callable[..., Any])

ON_CHIP = {2: 16_384, 4: 16_384, 8: 8192}  # by bytes an entry: the most classes of a row that fit in one block
BLOCK = {2: 4096, 4: 4096, 8: 2048}  # classes of a block of longer rows
SHORT = {2: 512, 4: 512, 8: 256}  # entries of a tile of several short rows; with more, registers spill
WARP_ENTRIES = 512  # entries for each warp
PROGRAMS = 264  # two for each multiprocessor of a large device; with fewer rows, rows are divided into parts
PARTS = 32  # the most parts of a row
WARPS = 16 if torch.version.hip else 32  # the most warps of a program: 1024 threads


class Tile(NamedTuple):
    """How rows and classes are divided among programs."""

    rows: int  # of a program
    block: int  # classes of a block, a power of two
    warps: int  # of a program
    parts: int  # programs for each row

    def span(self, classes: int) -> int:
        """Return the number of classes in a part, a multiple of the block."""
        blocks = -(-classes // self.block)
        return -(-blocks // self.parts) * self.block

    def grid(self, n_rows: int) -> tuple[int, int]:
        """Return the grid of programs: (tiles of rows, parts of a row)."""
        return -(-n_rows // self.rows), self.parts


@lru_cache(maxsize=256)
def tile_of(n_rows: int, classes: int, itemsize: int, doubled: bool = False) -> Tile:
    """Return the tile for a shape and type; ``doubled``: each entry needs the registers of two."""
    block = max(16, triton.next_power_of_2(classes))
    if block <= ON_CHIP[itemsize] >> doubled:
        rows = max(1, SHORT[itemsize] // block)
        return Tile(rows, block, min(WARPS, max(4, rows * block // WARP_ENTRIES)), 1)
    block = BLOCK[itemsize]
    blocks = -(-classes // block)
    parts = 1
    if n_rows < PROGRAMS:
        parts = min(PARTS, blocks, -(-PROGRAMS // max(1, n_rows)))
        parts = -(-blocks // -(-blocks // parts))  # no part is empty
    return Tile(1, block, 8, parts)


def _compute_type(problem: Problem) -> Any:
    """Return the type of the computation.

    It is float64 also for a soft cap of logits with more digits than bfloat16, and for options near float32's limits.
    """
    dtype, objective = problem.x.dtype, problem.objective
    if dtype == torch.float64 or (objective.softcap is not None and dtype != torch.bfloat16):
        return tl.float64
    sizes = (objective.temperature, 1.0 if objective.softcap is None else objective.softcap)
    return tl.float32 if all(1e-30 < size < 1e30 for size in sizes) else tl.float64


def _bits(value: float) -> int:
    """Return a float64's bits as an integer."""
    bits: int = struct.unpack("<q", struct.pack("<d", value))[0]
    return bits


def _temperature(problem: Problem) -> Launch:
    """Return the arguments of every kernel of a Problem."""
    tau = problem.objective.temperature
    bits = None if problem.tau is not None or tau == 1 else _bits(tau)
    return {"N": problem.x.shape[0], "tau_ptr": problem.tau, "tau_bits": bits, "enable_fp_fusion": False}


def _logits(problem: Problem, tile: Tile) -> Launch:
    """Return the arguments of every kernel that reads logits."""
    x = problem.x
    return {
        "x_ptr": x,
        "C": x.shape[1],
        "R": tile.rows,
        "B": tile.block,
        "COMPUTE": _compute_type(problem),
        "GROUP": 8 if x.dtype.itemsize == 2 else 4,
        "num_warps": tile.warps,
        **_rows(x),
        **_temperature(problem),
    }


def _targets(problem: Problem) -> Launch:
    """Return the kernel arguments that describe the targets and the options of a loss."""
    objective, q = problem.objective, problem.q
    return {
        "y_ptr": problem.y,
        "q_ptr": q,
        "w_ptr": problem.w,
        "s_ptr": problem.s,
        **_rows(q, "q_"),
        "ignore_index": objective.ignore_index,
        "cap_bits": None if objective.softcap is None else _bits(objective.softcap),
        "smoothing_bits": _bits(objective.label_smoothing) if objective.label_smoothing > 0 else None,
        "zeta_bits": _bits(objective.z_loss) if objective.z_loss > 0 else None,
    }


def _rows(x: Tensor | None, prefix: str = "") -> Launch:
    """Return the strides of rows as kernel arguments; 0 without rows."""
    row, column = (0, 0) if x is None else (x.stride(0), x.stride(1))
    return {f"{prefix}stride_row": row, f"{prefix}stride_col": column}


def _tile(problem: Problem, *, log: bool = False) -> Tile:
    """Return the tile of a Problem; ``log``: the output is computed as a sum of two numbers."""
    itemsize = 8 if _compute_type(problem) == tl.float64 else problem.x.dtype.itemsize
    tile = tile_of(*problem.x.shape, itemsize, log and itemsize == 4)
    dense = problem.q is not None or problem.objective.label_smoothing > 0  # the mass is a sum over the whole row
    return tile._replace(parts=1) if dense else tile


def _float64(x: Tensor, *shape: int) -> Tensor:
    """Return an uninitialised float64 tensor on the device of x."""
    return torch.empty(shape, dtype=torch.float64, device=x.device)


def _pair(x: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Return uninitialised tensors for m and r, with separate memory, as torch requires of an operator's outputs."""
    return _float64(x, *shape), _float64(x, *shape)


def _scale(problem: Problem, upstream: Tensor | None) -> Tensor | None:
    """Return the upstream gradient divided by D, on the device: one number, or one a row; None for 1."""
    divisor: Any = problem.divisor
    if isinstance(divisor, Tensor):
        mean: Tensor | None = torch.where(divisor > 0, 1.0 / divisor, 0.0)
    elif divisor == 1:
        mean = None
    else:
        of_rows = 1.0 / divisor if divisor > 0 else 0.0  # 0 for a mean of no rows
        mean = torch.full((), of_rows, dtype=torch.float64, device=problem.x.device)
    if upstream is None:
        return mean
    upstream = upstream.to(torch.float64)
    return upstream if mean is None else mean * upstream


def _rests(problem: Problem, tile: Tile, cap_bits: int | None) -> tuple[Tensor, Tensor]:
    """Return (m, r) of each part of the rows."""
    N, C = problem.x.shape
    m, r = _pair(problem.x, N, tile.parts)
    cuda_rows.rest_kernel[tile.grid(N)](
        m_ptr=m, r_ptr=r, cap_bits=cap_bits, span=tile.span(C), PARTS=tile.parts, **_logits(problem, tile)
    )
    return m, r


def _merge(problem: Problem, parts: int, given: tuple[Tensor, Tensor], *, lse: bool) -> tuple[Tensor, Tensor]:
    """Return (m, r) of rows from those of their parts or, with ``lse``, (logsumexp, logsumexp)."""
    N = problem.x.shape[0]
    m, r = _pair(problem.x, N)
    outputs = (None, None, m) if lse else (m, r, None)
    cuda_rows.merge_kernel[(-(-N // 128),)](*given, *outputs, R=128, PARTS=parts, num_warps=4, **_temperature(problem))
    return (m, m) if lse else (m, r)


def _normalise(problem: Problem, out: Tensor, *, log: bool) -> None:
    """Write softmax or log_softmax."""
    N, C = problem.x.shape
    if N == 0:
        return
    tile = _tile(problem, log=log)
    m = r = None
    if tile.parts > 1:
        m, r = _merge(problem, tile.parts, _rests(problem, tile, None), lse=False)
    cuda_rows.normalise_kernel[tile.grid(N)](
        out_ptr=out, m_ptr=m, r_ptr=r, **_rows(out, "out_"), span=tile.span(C), LOG=log, ONE_BLOCK=tile.block >= C,
        **_logits(problem, tile),
    )  # fmt: skip


def _on_device(function: Launching) -> Launching:
    """Return a function that sets the current device, on which Triton launches, to that of its first argument."""

    @wraps(function)
    def call(given: Any, *args: Any, **options: Any) -> Any:
        x = given if isinstance(given, Tensor) else given.x
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            return function(given, *args, **options)

    return cast("Launching", call)


@_on_device
def softmax(problem: Problem, out: Tensor) -> None:
    """Write the probabilities to ``out``."""
    _normalise(problem, out, log=False)


@_on_device
def log_softmax(problem: Problem, out: Tensor) -> None:
    """Write the log-probabilities to ``out``."""
    _normalise(problem, out, log=True)


@_on_device
def logsumexp(problem: Problem) -> Tensor:
    """Return logsumexp of each row, in float64."""
    N, C = problem.x.shape
    if N == 0 or C == 0:
        return torch.full((N,), -torch.inf, dtype=torch.float64, device=problem.x.device)
    tile = _tile(problem)
    return _merge(problem, tile.parts, _rests(problem, tile, None), lse=True)[0]


def _losses(
    problem: Problem,
    out: Tensor | None = None,
    m: Tensor | None = None,
    r: Tensor | None = None,
    upstream: Tensor | None = None,
) -> Tensor:
    """Return each row's loss; write m, r and, to ``out``, the gradient, unless they are None."""
    x = problem.x
    N, C = x.shape
    loss = _float64(x, N)
    if N == 0:
        return loss
    tile, targets = _tile(problem), _targets(problem)
    parts_m = parts_r = scale = None
    together = out if tile.parts == 1 else None
    if tile.parts > 1:
        parts_m, parts_r = _rests(problem, tile, targets["cap_bits"])
        if out is not None and m is None:
            m, r = _pair(x, N)
    if together is not None:
        scale = _scale(problem, upstream)
    cuda_rows.loss_kernel[(-(-N // tile.rows),)](
        dx_ptr=together, scale_ptr=scale, parts_m_ptr=parts_m, parts_r_ptr=parts_r, loss_ptr=loss, m_ptr=m, r_ptr=r,
        **_rows(x if together is None else together, "dx_"), PARTS=tile.parts if tile.parts > 1 else 0,
        ONE_BLOCK=tile.block >= C, SCALE_PER_ROW=scale is not None and scale.dim() == 1, **targets,
        **_logits(problem, tile),
    )  # fmt: skip
    if out is not None and together is None:
        assert m is not None and r is not None  # noqa: S101, PT018 - set above
        backward(problem, m, r, out, upstream)
    return loss


@_on_device
def forward(problem: Problem, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's loss (times its row weight, not divided by the mean's denominator), m and r.

    With ``out``, also write the gradient there, in the same pass.
    """
    m, r = _pair(problem.x, problem.x.shape[0])
    return _losses(problem, out, m, r), m, r


@_on_device
def losses(problem: Problem) -> Tensor:
    """Return each row's loss."""
    return _losses(problem)


@_on_device
def forward_backward(problem: Problem, out: Tensor, upstream: Tensor | None = None) -> Tensor:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits.

    The gradient is multiplied by ``upstream``, on the device: one float64, or one a row.
    """
    return _losses(problem, out, upstream=upstream)


@_on_device
def backward(
    problem: Problem, m: Tensor, r: Tensor, out: Tensor, upstream: Tensor | None = None, *, filled: bool = False
) -> None:
    """Write the gradient, times ``upstream``, from the forward's m and r, as ``forward_backward`` does.

    If ``out`` is ``filled`` with that for an upstream gradient of 1, the kernel returns where ``upstream`` is 1.
    """
    N, C = problem.x.shape
    if N == 0:
        return
    tile, scale = _tile(problem), _scale(problem, upstream)
    cuda_rows.gradient_kernel[tile.grid(N)](
        dx_ptr=out, scale_ptr=scale, skip_ptr=upstream if filled else None, m_ptr=m, r_ptr=r, **_rows(out, "dx_"),
        span=tile.span(C), SCALE_PER_ROW=scale is not None and scale.dim() == 1, **_targets(problem),
        **_logits(problem, tile),
    )  # fmt: skip


def pick(problem: Problem) -> Tensor:
    """Return each row's loss of log-probabilities: −s·w_y·x_y."""
    x, y = problem.x, problem.y
    good = (y >= 0) & (y < x.shape[1])
    at = torch.where(good, y, 0)
    value = -x.gather(1, at[:, None])[:, 0].double()
    if problem.w is not None:
        w = problem.w.double()[at]
        value = torch.where(w == 0, 0.0, w * value)
    if problem.s is not None:
        value = torch.where(problem.s == 0, 0.0, problem.s * value)
    value = torch.where(good, value, torch.nan)
    ignored = y == problem.objective.ignore_index
    return torch.where(ignored if problem.s is None else ignored | (problem.s == 0), 0.0, value)


def total(values: Tensor) -> Tensor:
    """Return the sum of values on the device; torch sums in the same order each time."""
    return values.sum(dtype=torch.float64)


@_on_device
def lift(values: Tensor, factor: Tensor) -> None:
    """Multiply contiguous values in place by a number on the device; a factor of 1 reads and writes none of them."""
    n = values.numel()
    if n:
        cuda_rows.lift_kernel[(-(-n // 4096),)](values, factor, n, B=4096, num_warps=8, enable_fp_fusion=False)
