"""The kernels of CUDA devices, in Triton: the interface of ``kernels/cpu.py``, on Problems of torch tensors.

Nothing waits for the device: a Problem's ``divisor`` is a tensor of one float64 there (or a number), as is whatever
the gradient is multiplied by. What is launched, and with which tile, depends on shapes and types alone, so that all of
it can be captured in a graph and runs the same way each time.
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

from softnll.kernels import cuda_rows
from softnll.problem import Problem

__all__ = [
    "backward",
    "forward",
    "forward_backward",
    "lift",
    "log_softmax",
    "logsumexp",
    "losses",
    "pick",
    "softmax",
    "total",
]

Launch = dict[str, Any]
Launching = TypeVar("Launching", bound=Callable[..., Any])

ON_CHIP = {2: 16_384, 4: 16_384, 8: 8192}  # classes of a row, by bytes an entry, that one block takes
BLOCK = {2: 4096, 4: 4096, 8: 2048}  # classes at a time of longer rows
SHORT = {2: 512, 4: 512, 8: 256}  # entries of a tile of several short rows: with more, registers spill
A_WARP = 512  # entries that a warp takes
PROGRAMS = 264  # below that, rows are cut into parts: two for each multiprocessor of a large device
PARTS = 32  # at most
WARPS = 16 if torch.version.hip else 32  # at most: 1024 threads


class Tile(NamedTuple):
    """How rows are given to programs.

    Attributes
    ----------
    rows
        Rows a program.
    block
        Classes at a time, a power of two.
    warps
        Warps a program.
    parts
        Programs a row.
    """

    rows: int
    block: int
    warps: int
    parts: int

    def span(self, classes: int) -> int:
        """Return the classes of a part: whole blocks."""
        blocks = -(-classes // self.block)
        return -(-blocks // self.parts) * self.block

    def grid(self, n_rows: int) -> tuple[int, int]:
        """Return the grid of programs, of rows and parts."""
        return -(-n_rows // self.rows), self.parts


@lru_cache(maxsize=256)
def tile_of(n_rows: int, classes: int, itemsize: int, doubled: bool = False) -> Tile:
    """Return the tile of a shape and type; ``doubled``: each entry takes the registers of two."""
    block = max(16, triton.next_power_of_2(classes))
    if block <= ON_CHIP[itemsize] >> doubled:
        rows = max(1, SHORT[itemsize] // block)
        return Tile(rows, block, min(WARPS, max(4, rows * block // A_WARP)), 1)
    block = BLOCK[itemsize]
    blocks = -(-classes // block)
    parts = 1
    if n_rows < PROGRAMS:
        parts = min(PARTS, blocks, -(-PROGRAMS // max(1, n_rows)))
        parts = -(-blocks // -(-blocks // parts))  # none of them empty
    return Tile(1, block, 8, parts)


def _computed(problem: Problem) -> Any:
    """Return the type that is computed in.

    float64 also for a soft cap of more digits than bfloat16 has, and for options near the ends of float32's range.
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


def _options(problem: Problem) -> Launch:
    """Return what every kernel is told."""
    dtype = problem.x.dtype
    tau = problem.objective.temperature
    return {
        "tau_ptr": problem.tau,
        "tau_bits": None if problem.tau is not None or tau == 1 else _bits(tau),
        "COMPUTE": _computed(problem),
        "GROUP": 8 if dtype.itemsize == 2 else 4,
        "enable_fp_fusion": False,
    }


def _targets(problem: Problem) -> Launch:
    """Return what a loss is told besides."""
    objective, q = problem.objective, problem.q
    return {
        "y_ptr": problem.y,
        "q_ptr": q,
        "w_ptr": problem.w,
        "s_ptr": problem.s,
        "q_stride_row": 0 if q is None else q.stride(0),
        "q_stride_col": 0 if q is None else q.stride(1),
        "ignore_index": objective.ignore_index,
        "cap_bits": None if objective.softcap is None else _bits(objective.softcap),
        "smoothing_bits": _bits(objective.label_smoothing) if objective.label_smoothing > 0 else None,
        "zeta_bits": _bits(objective.z_loss) if objective.z_loss > 0 else None,
    }


def _rows(x: Tensor, prefix: str = "") -> Launch:
    """Return how rows lie."""
    return {f"{prefix}stride_row": x.stride(0), f"{prefix}stride_col": x.stride(1)}


def _dense(problem: Problem) -> bool:
    """Whether the targets are spread over the classes."""
    return problem.q is not None or problem.objective.label_smoothing > 0


def _tile(problem: Problem, *, log: bool = False) -> Tile:
    """Return the tile of a problem; ``log``: what is written has more digits than its type."""
    itemsize = 8 if _computed(problem) == tl.float64 else problem.x.dtype.itemsize
    tile = tile_of(*problem.x.shape, itemsize, log and itemsize == 4)
    return tile._replace(parts=1) if _dense(problem) else tile  # their mass is a sum over the whole row


def _float64(x: Tensor, *shape: int) -> Tensor:
    """Return memory for float64 where x lies."""
    return torch.empty(shape, dtype=torch.float64, device=x.device)


def _pair(x: Tensor, *shape: int) -> tuple[Tensor, Tensor]:
    """Return memory for m and r; each its own, as torch asks of what an operator returns."""
    return _float64(x, *shape), _float64(x, *shape)


def _scale(problem: Problem, upstream: Tensor | None) -> Tensor | None:
    """Return the upstream gradient over D, on the device: one, or one a row; None for 1."""
    scale = _mean(problem)
    if upstream is None:
        return scale
    upstream = upstream.to(torch.float64)
    return upstream if scale is None else scale * upstream


def _mean(problem: Problem) -> Tensor | None:
    """Return 1/D, on the device; 0 where there is nothing to average, None for 1."""
    divisor: Any = problem.divisor
    if not isinstance(divisor, Tensor):
        if divisor == 1:
            return None
        scale = 1.0 / divisor if divisor > 0 else 0.0
        return torch.full((), scale, dtype=torch.float64, device=problem.x.device)
    return torch.where(divisor > 0, 1.0 / divisor, 0.0)


def _rests(problem: Problem, tile: Tile, cap_bits: int | None) -> tuple[Tensor, Tensor]:
    """Return (m, r) of the parts of rows."""
    x = problem.x
    N, C = x.shape
    m, r = _pair(x, N, tile.parts)
    cuda_rows.rest_kernel[tile.grid(N)](
        x, m, r, N=N, C=C, **_rows(x), cap_bits=cap_bits, span=tile.span(C), R=tile.rows, B=tile.block,
        PARTS=tile.parts, num_warps=tile.warps, **_options(problem),
    )  # fmt: skip
    return m, r


def _merge(problem: Problem, parts: int, given: tuple[Tensor, Tensor], *, lse: bool) -> tuple[Tensor, Tensor]:
    """Return (m, r) of rows, or logsumexp twice."""
    N = problem.x.shape[0]
    m, r = _pair(problem.x, N)
    options = _options(problem)
    notes = (None, None, m) if lse else (m, r, None)
    cuda_rows.merge_kernel[(-(-N // 128),)](
        *given, *notes, options["tau_ptr"], N, options["tau_bits"], R=128, PARTS=parts, num_warps=4,
        enable_fp_fusion=False,
    )  # fmt: skip
    return (m, m) if lse else (m, r)


def _normalise(problem: Problem, out: Tensor, *, log: bool) -> None:
    """Write softmax or log_softmax."""
    x = problem.x
    N, C = x.shape
    if N == 0:
        return
    tile = _tile(problem, log=log)
    whole = tile.block >= C
    m = r = None
    if tile.parts > 1:
        m, r = _merge(problem, tile.parts, _rests(problem, tile, None), lse=False)
    cuda_rows.normalise_kernel[tile.grid(N)](
        x, out, m, r, N=N, C=C, **_rows(x), **_rows(out, "out_"), span=tile.span(C), R=tile.rows, B=tile.block,
        LOG=log, ONE_BLOCK=whole, num_warps=tile.warps, **_options(problem),
    )  # fmt: skip


def _there(function: Launching) -> Launching:
    """Launch where the first argument (a Problem or a tensor) lies: Triton takes the current device."""

    @wraps(function)
    def call(given: Any, *args: Any, **options: Any) -> Any:
        x = given if isinstance(given, Tensor) else given.x
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            return function(given, *args, **options)

    return cast("Launching", call)


@_there
def softmax(problem: Problem, out: Tensor) -> None:
    """Write p."""
    _normalise(problem, out, log=False)


@_there
def log_softmax(problem: Problem, out: Tensor) -> None:
    """Write log p."""
    _normalise(problem, out, log=True)


@_there
def logsumexp(problem: Problem) -> Tensor:
    """Return lse of each row, float64."""
    N, C = problem.x.shape
    if N == 0 or C == 0:
        return torch.full((N,), -torch.inf, dtype=torch.float64, device=problem.x.device)
    tile = _tile(problem)
    return _merge(problem, tile.parts, _rests(problem, tile, None), lse=True)[0]


def _losses(
    problem: Problem, out: Tensor | None, notes: tuple[Tensor, Tensor] | None, upstream: Tensor | None = None
) -> Tensor:
    """Return each row's loss; write m and r and, with ``out``, the gradient."""
    x = problem.x
    N, C = x.shape
    loss = _float64(x, N)
    if N == 0:
        return loss
    tile, targets = _tile(problem), _targets(problem)
    parts: Any = (None, None)
    wanted = notes
    if tile.parts > 1:
        parts = _rests(problem, tile, targets["cap_bits"])
        if out is not None:
            wanted = notes or _pair(x, N)
    together = out if tile.parts == 1 else None
    scale = None if out is None else _scale(problem, upstream)
    cuda_rows.loss_kernel[(-(-N // tile.rows),)](
        x, together, parts_m_ptr=parts[0], parts_r_ptr=parts[1], loss_ptr=loss,
        m_ptr=None if wanted is None else wanted[0], r_ptr=None if wanted is None else wanted[1],
        scale_ptr=None if together is None else scale, N=N, C=C, **_rows(x),
        **_rows(x if together is None else together, "dx_"),
        R=tile.rows, B=tile.block, PARTS=tile.parts if tile.parts > 1 else 0, ONE_BLOCK=tile.block >= C,
        SCALE_PER_ROW=scale is not None and scale.dim() == 1, num_warps=tile.warps, **targets, **_options(problem),
    )  # fmt: skip
    if out is not None and tile.parts > 1:
        assert wanted is not None  # noqa: S101 - made above
        backward(problem, *wanted, out, upstream)
    return loss


@_there
def forward(problem: Problem, out: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's loss (row weight applied, not yet divided by the mean's denominator), m and r.

    With ``out``, the gradient is written there in the same pass.
    """
    m, r = _pair(problem.x, problem.x.shape[0])
    return _losses(problem, out, (m, r)), m, r


@_there
def losses(problem: Problem) -> Tensor:
    """Return each row's loss alone."""
    return _losses(problem, None, None)


@_there
def forward_backward(problem: Problem, out: Tensor, upstream: Tensor | None = None) -> Tensor:
    """Return each row's loss and write the gradient of the reduced loss; ``out`` may be the logits.

    ``upstream`` is what the gradient is multiplied by, on the device: one float64, or one a row.
    """
    return _losses(problem, out, None, upstream)


@_there
def backward(
    problem: Problem, m: Tensor, r: Tensor, out: Tensor, upstream: Tensor | None = None, *, made: bool = False
) -> None:
    """Write the gradient of the reduced loss from the forward's m and r; ``out`` may be the logits.

    Parameters
    ----------
    upstream
        What it is multiplied by, on the device: one float64, or one a row.
    made
        ``out`` holds the gradient for an upstream gradient of 1 already: nothing is done if it is that.
    """
    x = problem.x
    N, C = x.shape
    if N == 0:
        return
    tile = _tile(problem)
    scale = _scale(problem, upstream)
    cuda_rows.gradient_kernel[tile.grid(N)](
        x, out, scale_ptr=scale, skip_ptr=upstream if made else None, m_ptr=m, r_ptr=r, N=N, C=C, **_rows(x),
        **_rows(out, "dx_"), span=tile.span(C), R=tile.rows, B=tile.block,
        SCALE_PER_ROW=scale is not None and scale.dim() == 1, num_warps=tile.warps, **_targets(problem),
        **_options(problem),
    )  # fmt: skip


def pick(problem: Problem) -> Tensor:
    """Return −s·w_y·x_y of each row: the loss of log-probabilities."""
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
    silent = y == problem.objective.ignore_index
    return torch.where(silent if problem.s is None else silent | (problem.s == 0), 0.0, value)


def total(values: Tensor) -> Tensor:
    """Return the sum, on the device; torch sums in the same order each time."""
    return values.sum(dtype=torch.float64)


@_there
def lift(values: Tensor, factor: Tensor) -> None:
    """Multiply contiguous values in place by a number on the device; if that is 1, nothing is read or written."""
    n = values.numel()
    if n:
        cuda_rows.lift_kernel[(-(-n // 4096),)](values, factor, n, B=4096, num_warps=8, enable_fp_fusion=False)
