"""Match labels with the classes that columns are named for, or with columns by their sorted values."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from softnll.data.column_names import without_family

__all__ = [
    "IGNORED",
    "as_int64",
    "by_name",
    "by_sorted_value",
    "informative",
    "numbers_by_name",
    "truth_columns",
    "whole_numbers",
]

IGNORED = -100  # the default ignore_index of the loss

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?|[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]{1,3}|[+-]?[0-9]{1,18},0+", re.ASCII)
_NUMBERED = re.compile(r"[A-Za-z_.\- ]{0,12}?([0-9]{1,9})", re.ASCII)
_TRUE = frozenset({"true", "yes", "1", "positive", "pos", "t", "y"})
_FALSE = frozenset({"false", "no", "0", "negative", "neg", "f", "n"})


def as_int64(array: NDArray[np.integer], C: int) -> NDArray[np.int64]:
    """Return integers of any type as int64; −100 that an unsigned type holds as 2ᵏ − 100 is −100 again.

    Examples
    --------
    >>> as_int64(np.array([3, 156], np.uint8), 10).tolist()
    [3, -100]
    """
    bits = 8 * array.dtype.itemsize
    if array.dtype.kind == "i":
        return array.astype(np.int64)
    wrapped = array == array.dtype.type(2**bits + IGNORED) if 2**bits + IGNORED >= C else np.zeros(len(array), bool)
    if bits == 64:
        array = np.minimum(array, np.uint64(np.iinfo(np.int64).max))
    return np.where(wrapped, IGNORED, array.astype(np.int64))


def whole_numbers(words: Sequence[str]) -> list[int] | None:
    """Return text as whole numbers, in any spelling of them (1, +1, 1.0, 1e0, 1,0); None where one is none.

    Examples
    --------
    >>> whole_numbers(["1.0", " 2", "3e0"])
    [1, 2, 3]
    """
    numbers = {}
    for word in set(words):
        plain = word.strip()
        if not _WHOLE.fullmatch(plain):
            return None
        value = float(plain.replace(",", "."))
        if value != np.rint(value) or abs(value) >= 2.0**63:
            return None
        numbers[word] = int(plain) if plain.lstrip("+-").isdigit() else int(value)
    return [numbers[word] for word in words]


def informative(names: Sequence[str]) -> bool:
    """Whether columns' names say more than the columns' numbers: 0, 1, 2 and V1, V2, V3 do not."""
    matches = [_NUMBERED.fullmatch(name.strip()) for name in without_family(names)]
    numbers = [int(match[1]) for match in matches if match]
    return len(numbers) < len(names) or any(b - a != 1 for a, b in pairwise(numbers))


def by_name(labels: Sequence[str], names: Sequence[str]) -> NDArray[np.int64] | None:
    """Return labels that are names of columns as the columns' numbers; None where one is no name.

    Names are compared as they are, then without what all columns begin or end with (``P(cat)``, ``prob_cat``), then
    without regard to capitals and blanks.

    Examples
    --------
    >>> by_name(["dog", "cat"], ["P(cat)", "P(dog)"]).tolist()
    [1, 0]
    """
    short = without_family(names)
    readings: tuple[tuple[Sequence[str], Callable[[str], str]], ...] = (
        (names, str),
        (short, str),
        (names, _folded),
        (short, _folded),
    )
    wanted = set(labels)
    for read, change in readings:
        index = {change(name): c for c, name in enumerate(read)}
        changed = {label: change(label) for label in wanted}
        one_to_one = len(index) == len(names) and len(set(changed.values())) == len(wanted)
        if one_to_one and set(changed.values()) <= set(index):
            return np.array([index[changed[label]] for label in labels], np.int64)
    return None


def numbers_by_name(numbers: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.int64] | None:
    """Return whole numbers that are names of columns as the columns' numbers; None where they are not the names."""
    named = whole_numbers(without_family(names))
    if named is None or len(set(named)) < len(named) or named == list(range(len(named))):
        return None
    order = np.argsort(named)
    ordered = np.asarray(named, np.int64)[order]
    kept = numbers != IGNORED
    place = np.minimum(np.searchsorted(ordered, numbers), len(named) - 1)
    if not (ordered[place] == numbers)[kept].all():
        return None
    return np.where(kept, order[place], IGNORED)


def by_sorted_value(numbers: NDArray[np.int64], C: int, *, shifted: bool = False) -> NDArray[np.int64] | None:
    """Return the ranks of label values, where there are as many values as columns; None where they do not fit.

    Labels in [0, C) are not changed; neither are values all but one of which are in [0, C) (a typing error, or a mark
    for rows to leave out), nor, without ``shifted``, values that are one too high or too low.

    Examples
    --------
    >>> by_sorted_value(np.array([-1, 1, 1]), 2).tolist(), by_sorted_value(np.array([3, 8, 5]), 3).tolist()
    ([0, 1, 1], [0, 2, 1])
    """
    kept = numbers[numbers != IGNORED]
    values = np.unique(kept)
    if not len(kept) or (values[0] >= 0 and values[-1] < C):
        return None
    beside_one = values[0] in (-1, 1) and values[-1] - values[0] == C - 1
    if beside_one and values[0] == 1 and values[-1] == C and shifted:
        return np.where(numbers == IGNORED, IGNORED, numbers - 1)
    if len(values) != C or (beside_one and (values[0] == -1 or not shifted)):
        return None
    if C > 2 and ((values >= 0) & (values < C)).sum() == C - 1 and not beside_one:
        return None
    return np.where(numbers == IGNORED, IGNORED, np.searchsorted(values, numbers))


def truth_columns(names: Sequence[str] | None) -> tuple[int, int]:
    """Return the columns of False and True: 0 and 1, unless two names say that it is the other way round."""
    folded = [] if names is None else [_folded(name) for name in without_family(names)]
    return (1, 0) if len(folded) == 2 and folded[0] in _TRUE and folded[1] in _FALSE else (0, 1)


def _folded(name: str) -> str:
    """Return a name without capitals, blanks and underscores around and within it."""
    return re.sub(r"[\s_\-]+", "_", name.strip()).strip("_").casefold()
