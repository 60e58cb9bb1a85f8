"""The plan of a linear loss: how many rows of logits are computed at a time, for a limit of its memory."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

from softnll._core.words import counted

_MIB = 1 << 20
_ROWS = 4096  # an eighth of which is enough for a chunk
_ROW_BYTES = 64  # losses, m, r, converted target and weight of a row, and temporaries of their checks


class Wanted(NamedTuple):
    """Which gradients are computed."""

    features: bool
    weight: bool
    bias: bool


NO_GRADIENTS = Wanted(False, False, False)
ALL_GRADIENTS = Wanted(True, True, True)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that a plan depends on.

    Attributes
    ----------
    rows, classes, width
        N rows that are multiplied, C classes, H features.
    itemsize, sum_itemsize
        Bytes of an element of the logits that are computed, and of a sum of products.
    gather
        Whether feature rows are copied (another type, scattered rows, rows that take no part).
    convert
        Whether weight rows are copied (another type, or strides that BLAS does not accept).
    widens
        Whether the weight's gradient is summed over the chunks in a wider type than its own.
    always_widens
        Whether it is summed in that type also with a single chunk.
    soft
        Whether targets are soft: they are checked, and half types converted, in blocks.
    wanted
        Which gradients are computed.
    target_row
        Bytes of a row of soft targets that are computed or copied for each chunk.
    scratch
        The function of a number of rows that returns what the kernels take for a chunk of them; None: a row of float64.
    multiple
        Chunks of more rows than this have a multiple of it.
    further
        Further bytes, which do not depend on the rows of a chunk.
    """

    rows: int
    classes: int
    width: int
    itemsize: int
    sum_itemsize: int
    gather: bool = False
    convert: bool = False
    widens: bool = False
    always_widens: bool = False
    soft: bool = False
    wanted: Wanted = NO_GRADIENTS
    target_row: int = 0
    scratch: Callable[[int], int] | None = None
    multiple: int = 1
    further: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a linear loss is computed, and the memory of that.

    Attributes
    ----------
    rows
        Rows of logits that are computed at a time.
    chunks
        The number of chunks.
    classes
        Weight rows converted at a time; all of them if none is converted.
    working_bytes
        The most memory beyond inputs and gradients.
    accumulator_bytes
        The memory of a wider accumulator of the weight's gradient, which half types need with several chunks.
    gemms
        Matrix products of the layer's size: the logits, and one for each gradient but the bias's.
    gradient_bytes
        The memory of the gradients.
    others
        Other values of ``max_bytes``, each with its plan.

    Examples
    --------
    >>> whole = Plan(4096, 1, 32_000, 530_000_000, 0, 3, 148_000_000)
    >>> print(Plan(682, 6, 32_000, 90_000_000, 0, 3, 148_000_000, ((530_000_000, whole),)))
    rows a chunk          682
    chunks                  6
    GEMMs                   3
    working memory   85.8 MiB
    accumulator         0 MiB
    gradients       141.1 MiB
    peak            227.0 MiB
    max_bytes=505 << 20: 4096 rows a chunk, 1 chunk, 3 GEMMs
    """

    rows: int
    chunks: int
    classes: int
    working_bytes: int
    accumulator_bytes: int
    gemms: int = 1
    gradient_bytes: int = 0
    others: tuple[tuple[int, Plan], ...] = field(default=(), compare=False)

    @property
    def peak_bytes(self) -> int:
        """The most memory beyond the inputs."""
        return self.working_bytes + self.accumulator_bytes + self.gradient_bytes

    def __str__(self) -> str:
        """Return the plan as a table."""
        counts = {"rows a chunk": self.rows, "chunks": self.chunks, "GEMMs": self.gemms}
        sizes = {
            "working memory": self.working_bytes,
            "accumulator": self.accumulator_bytes,
            "gradients": self.gradient_bytes,
            "peak": self.peak_bytes,
        }
        lines = {name: str(value) for name, value in counts.items()}
        lines |= {name: f"{value / _MIB:.1f} MiB" if value else "0 MiB" for name, value in sizes.items()}
        table = [f"{name:<14}{value:>11}" for name, value in lines.items()]
        for max_bytes, plan in self.others:
            cut = f"{counted(plan.rows, 'row')} a chunk, {counted(plan.chunks, 'chunk')}, {counted(plan.gemms, 'GEMM')}"
            table.append(f"max_bytes={max_bytes / _MIB:.0f} << 20: {cut}")
        return "\n".join(table)


def default_max_bytes(inputs_and_gradients: int, rows: int, classes: int, itemsize: int) -> int:
    """Return the default working memory: max(32 MiB, min(¼·(inputs + gradients), ⅛·max(N, 4096)·C·itemsize)).

    Each chunk of rows reads the weight twice and its gradient once: of fewer than 512 rows, that takes as long as the
    arithmetic.
    """
    return max(32 * _MIB, min(inputs_and_gradients // 4, max(rows, _ROWS) * classes * itemsize // 8))


class _Parts(NamedTuple):
    """Bytes of the whole call, of a row of a chunk, of a converted weight row, and of the kernels for some rows."""

    fixed: int
    per_row: int
    per_class: int
    scratch: Callable[[int], int]

    def of(self, rows: int) -> int:
        """Return the bytes of a call with chunks of so many rows, converted weight rows aside."""
        return self.fixed + rows * self.per_row + self.scratch(rows)


def _parts(sizes: Sizes) -> _Parts:
    """Return the bytes that a plan is made of."""
    C, H, item = sizes.classes, sizes.width, sizes.itemsize
    gradients = any(sizes.wanted)
    # For the whole call: arrays by row; the bias's gradient and its summand.
    fixed = sizes.rows * _ROW_BYTES + 8 * C * (2 if gradients else 0) + 40_000 + sizes.further
    if sizes.soft:
        fixed += max(1 << 19, 32 * C)
    per_row = C * item + sizes.target_row
    if sizes.gather:
        per_row += 3 * H * item + 16  # the copy, that of the previous chunk, indices
    if gradients and (sizes.gather or sizes.convert):
        per_row += 2 * H * item
    per_class = H * item * (5 if gradients else 2)  # this copy and the previous one; the same of the product
    return _Parts(fixed, per_row, per_class, sizes.scratch or (lambda _: 8 * C))


def least_bytes(sizes: Sizes) -> int:
    """Return the least ``max_bytes`` for which there is a plan: what one row takes."""
    parts = _parts(sizes)
    return parts.of(1) + (parts.per_class if sizes.convert else 0)


def make_plan(sizes: Sizes, max_bytes: int, at_most: int | None = None) -> Plan:
    """Return the plan with the most rows at a time that ``max_bytes`` and ``at_most`` allow.

    Raises
    ------
    ValueError
        If not even one row fits.
    TypeError
        If ``max_bytes`` is not an integer.
    """
    given: object = max_bytes  # a caller may pass any type
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"max_bytes is {given!r}; allowed: an integer, or None")
    parts = _parts(sizes)
    # A converted block of weight rows, and of their gradient: a quarter of the rest, at least one row.
    spare = max(0, max_bytes - parts.of(1)) // 4
    classes = min(sizes.classes, max(1, spare // max(1, parts.per_class))) if sizes.convert else sizes.classes
    block = classes * parts.per_class if sizes.convert else 0
    most, room = max(1, sizes.rows), max_bytes - block
    rows = most if parts.of(most) <= room else bisect_right(range(1, most + 1), room, key=parts.of)
    if rows < 1:
        least = least_bytes(sizes)
        raise ValueError(
            f"max_bytes is {max_bytes}; allowed: at least {least}, what one row of {counted(sizes.classes, 'class')} "
            "takes here"
        )
    if at_most is not None:
        rows = min(rows, at_most)
    chunks = -(-sizes.rows // rows)
    rows = -(-sizes.rows // chunks) if chunks else rows  # chunks of equal size
    if at_most is None and chunks > 1 and rows > sizes.multiple > 1:
        rows -= rows % sizes.multiple
        chunks = -(-sizes.rows // rows)
    sums = sizes.widens and sizes.wanted.weight and (chunks > 1 or sizes.always_widens)
    accumulator = sizes.classes * sizes.width * sizes.sum_itemsize if sums else 0
    gemms = 1 + sizes.wanted.features + sizes.wanted.weight
    return Plan(rows, chunks, classes, block + parts.of(rows), accumulator, gemms)
