"""How linear_cross_entropy stays within its budget: how many rows of logits are made at a time."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral

__all__ = ["Plan", "Sizes", "default_max_bytes", "make_plan"]

_MIB = 1 << 20
_ROW_BYTES = 64  # losses, m, r, converted target and weight of a row, and what checking them takes


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a plan depends on.

    Attributes
    ----------
    rows, classes, width
        N rows that take part, C classes, H features.
    itemsize
        Bytes of an element of the logits that are computed.
    gather
        Whether feature rows are copied (another type, scattered rows, rows that take no part).
    convert
        Whether weight rows are copied (another type, or strides that BLAS does not take).
    widens
        Whether the weight's gradient is summed in a wider type than its own.
    soft
        Whether targets are soft: they are checked, and half types widened, in blocks.
    gradients
        Whether gradients are made.
    """

    rows: int
    classes: int
    width: int
    itemsize: int
    gather: bool = False
    convert: bool = False
    widens: bool = False
    soft: bool = False
    gradients: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done.

    Attributes
    ----------
    rows
        Rows of logits made at a time.
    chunks
        How many times.
    classes
        Weight rows converted at a time; all of them where none is converted.
    working_bytes
        The most that is held beyond inputs and gradients.
    accumulator_bytes
        A wider accumulator of the weight's gradient, besides: half types, when there are several chunks.
    """

    rows: int
    chunks: int
    classes: int
    working_bytes: int
    accumulator_bytes: int


def default_max_bytes(inputs_and_gradients: int, rows: int, classes: int, itemsize: int) -> int:
    """Return the working memory allowed by default: max(32 MiB, min(¼·(inputs + gradients), ⅛·N·C·itemsize))."""
    return max(32 * _MIB, min(inputs_and_gradients // 4, rows * classes * itemsize // 8))


def make_plan(sizes: Sizes, max_bytes: int) -> Plan:
    """Return the plan with the most rows at a time that ``max_bytes`` allows.

    Raises
    ------
    ValueError
        If not even one row fits.
    TypeError
        If ``max_bytes`` is no integer.
    """
    given: object = max_bytes  # what comes may be of any type
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise TypeError(f"max_bytes is {given!r}; allowed: an integer, or None")
    C, H, item = sizes.classes, sizes.width, sizes.itemsize
    # Of the whole call: what there is of each row; the kernel's row of float64; the bias's gradient and its summand.
    fixed = sizes.rows * _ROW_BYTES + 8 * C * (3 if sizes.gradients else 1) + (1 << 16)
    if sizes.soft:
        fixed += max(1 << 19, 32 * C)
    per_row = C * item
    if sizes.gather:
        per_row += 3 * H * item + 16  # the copy, the one before it that is still held, indices
    if sizes.gradients and (sizes.gather or sizes.convert):
        per_row += 2 * H * item
    # A converted block of weight rows, and of their gradient: a quarter of what is left, at least one row.
    per_class = H * item * (5 if sizes.gradients else 2)  # copies now and before; product and its sum
    spare = max(0, max_bytes - fixed)
    least = fixed + (per_class if sizes.convert else 0) + per_row
    spare = min(spare // 4, max(0, max_bytes - fixed - per_row))
    classes = min(C, max(1, spare // max(1, per_class))) if sizes.convert else C
    block = classes * per_class if sizes.convert else 0
    rows = min(max(1, sizes.rows), (max_bytes - fixed - block) // per_row)
    if rows < 1:
        raise ValueError(f"max_bytes is {max_bytes}; allowed: at least {least}, what one row of {C} classes takes here")
    chunks = -(-sizes.rows // rows)
    rows = -(-sizes.rows // chunks) if chunks else rows  # chunks of equal size
    accumulator = C * H * item if sizes.widens and sizes.gradients and chunks > 1 else 0
    return Plan(rows, chunks, classes, fixed + block + rows * per_row, accumulator)
