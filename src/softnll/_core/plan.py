"""How linear_cross_entropy stays within its budget: how many rows of logits are made at a time."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import NamedTuple

__all__ = ["ALL_GRADIENTS", "NO_GRADIENTS", "Plan", "Sizes", "Wanted", "default_max_bytes", "make_plan"]

_MIB = 1 << 20
_ROW_BYTES = 64  # losses, m, r, converted target and weight of a row, and what checking them takes


class Wanted(NamedTuple):
    """Which gradients are made."""

    features: bool
    weight: bool
    bias: bool


NO_GRADIENTS = Wanted(False, False, False)
ALL_GRADIENTS = Wanted(True, True, True)


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
    wanted
        Which gradients are made.
    target_row
        Bytes of a row of soft targets that is made for its chunk.
    """

    rows: int
    classes: int
    width: int
    itemsize: int
    gather: bool = False
    convert: bool = False
    widens: bool = False
    soft: bool = False
    wanted: Wanted = NO_GRADIENTS
    target_row: int = 0


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
    gemms
        Matrix products of the layer's size: the logits, and one for each gradient but the bias's.
    gradient_bytes
        What the gradients themselves take.

    Examples
    --------
    >>> print(Plan(682, 6, 32_000, 90_000_000, 0, 3, 148_000_000))
    rows a chunk          682
    chunks                  6
    GEMMs                   3
    working memory   85.8 MiB
    accumulator         0 MiB
    gradients       141.1 MiB
    peak            227.0 MiB
    """

    rows: int
    chunks: int
    classes: int
    working_bytes: int
    accumulator_bytes: int
    gemms: int = 1
    gradient_bytes: int = 0

    @property
    def peak_bytes(self) -> int:
        """The most that is held beyond the inputs."""
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
        return "\n".join(f"{name:<14}{value:>11}" for name, value in lines.items())


def default_max_bytes(inputs_and_gradients: int, rows: int, classes: int, itemsize: int) -> int:
    """Return the working memory allowed by default: max(32 MiB, min(¼·(inputs + gradients), ⅛·N·C·itemsize))."""
    return max(32 * _MIB, min(inputs_and_gradients // 4, rows * classes * itemsize // 8))


def make_plan(sizes: Sizes, max_bytes: int, at_most: int | None = None) -> Plan:
    """Return the plan with the most rows at a time that ``max_bytes`` and ``at_most`` allow.

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
    gradients = any(sizes.wanted)
    # Of the whole call: what there is of each row; the kernel's row of float64; the bias's gradient and its summand.
    fixed = sizes.rows * _ROW_BYTES + 8 * C * (3 if gradients else 1) + (1 << 16)
    if sizes.soft:
        fixed += max(1 << 19, 32 * C)
    per_row = C * item + sizes.target_row
    if sizes.gather:
        per_row += 3 * H * item + 16  # the copy, the one before it that is still held, indices
    if gradients and (sizes.gather or sizes.convert):
        per_row += 2 * H * item
    # A converted block of weight rows, and of their gradient: a quarter of what is left, at least one row.
    per_class = H * item * (5 if gradients else 2)  # copies now and before; product and the one before
    spare = max(0, max_bytes - fixed)
    least = fixed + (per_class if sizes.convert else 0) + per_row
    spare = min(spare // 4, max(0, max_bytes - fixed - per_row))
    classes = min(C, max(1, spare // max(1, per_class))) if sizes.convert else C
    block = classes * per_class if sizes.convert else 0
    rows = min(max(1, sizes.rows), (max_bytes - fixed - block) // per_row)
    if rows < 1:
        raise ValueError(f"max_bytes is {max_bytes}; allowed: at least {least}, what one row of {C} classes takes here")
    if at_most is not None:
        rows = min(rows, at_most)
    chunks = -(-sizes.rows // rows)
    rows = -(-sizes.rows // chunks) if chunks else rows  # chunks of equal size
    accumulator = C * H * item if sizes.widens and sizes.wanted.weight and chunks > 1 else 0
    gemms = 1 + sizes.wanted.features + sizes.wanted.weight
    return Plan(rows, chunks, classes, fixed + block + rows * per_row, accumulator, gemms)
