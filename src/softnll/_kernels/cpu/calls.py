"""Which functions of ``one_call`` serve plain rows, by their type: each takes addresses, and is compiled at first use.

``x``, ``out``, ``grad``, ``saved`` and ``upstream`` are ``(N, C)`` in one piece; an address of 0 with length 0 is an
empty array. Of ``planes`` they are ``(A, C, B)``, N is A·B, and those three numbers come first. None stands for a
function that does not serve such rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from softnll._core.options import CrossEntropy
from softnll._kernels.cpu.execute import options_served
from softnll._kernels.cpu.load import compiled
from softnll._kernels.cpu.memory import FEW, TURNED
from softnll._kernels.cpu.parameters import element_types
from softnll._kernels.cpu.products import turns
from softnll._kernels.cpu.signature import BOOLEAN, FLOAT64, INTP, NONE, Type, array, output
from softnll._kernels.cpu.threads import in_one_go, threads_of

Call = Callable[..., int]
_TEAM = {"step": INTP, "parallel": INTP, "number": INTP, "threads": INTP}

_MOST_ROWS = 1 << 21  # more take memory of their own
_MOST_WRITTEN = 1 << 23  # bytes of an output: larger ones take less time in NumPy's memory, of large pages
_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # bytes of an entry
_MOST_SPREAD = 256  # rows of few classes with spread targets or a temperature: more take less time turned into planes


def _serves(name: str, n_rows: int, n_classes: int, written: bool, threaded: bool) -> bool:
    """Return whether one call takes less time than ranges of rows in threads that Python starts."""
    if in_one_go(n_rows, n_classes):
        return True
    if n_rows > _MOST_ROWS or not (threaded or threads_of(n_rows, n_classes) == 1):
        return False
    return not written or n_rows * n_classes * _SIZES[name] < _MOST_WRITTEN


def loss_call(
    name: str,
    n_rows: int,
    n_classes: int,
    objective: CrossEntropy,
    *,
    soft: bool,
    weighted: bool,
    written: bool,
    threaded: bool = False,
    planes: bool = False,
) -> Call | None:
    """Return the loss of logits of a type; None where another way takes less time. ``threaded``: in a team's threads.

    ``loss(N, C, x, q, y, N, w, C, upstream, N, ignored, reduction, smoothing, zeta, temperature, softcap, value,
    length, grad, *team)``: without soft targets, q is None; so are a temperature of 1 and, without one, the soft cap.
    The team is step, parallel, number and threads of ``in_team``.
    """
    spread, tempered = soft or objective.label_smoothing > 0, objective.temperature != 1
    capped, few = objective.softcap is not None, n_classes <= FEW
    turns_many = (spread or tempered) and not capped and n_classes <= TURNED and not planes
    if (
        not _serves(name, n_rows, n_classes, written, threaded)
        or (spread and weighted)
        or (turns_many and n_rows > _MOST_SPREAD)
    ):
        return None
    if ((soft or planes) and capped) or not options_served(objective, n_classes):
        return None
    if (tempered or capped) and name == "float64":  # rare: not worth their compilation
        return None
    function = "spread_loss" if spread else "loss_by_tile" if few and not tempered else "loss_by_row"
    return _loss(name, "loss_by_plane" if planes else function, soft, spread, tempered, capped, written)


@lru_cache(maxsize=256)
def normalise_call(
    name: str, n_rows: int, n_classes: int, log: bool, threaded: bool = False, planes: bool = False
) -> Call | None:
    """Return ``softmax(N, C, x, out, 0, 0, *team)`` or, with ``log``, log_softmax for logits of a type."""
    if not _serves(name, n_rows, n_classes, True, threaded):
        return None
    return _normalise(name, "plane" if planes else "tile" if n_classes <= FEW else "row", log)


@lru_cache(maxsize=256)
def product_call(
    name: str, n_rows: int, n_classes: int, log: bool, logits: bool, threaded: bool = False, planes: bool = False
) -> Call | None:
    """Return ``product(N, C, saved, logits, log, upstream, out, 0, 0, *team)``, of results or ``logits``."""
    turned = not planes and turns(n_rows, n_classes, 2 if logits else 4)
    if turned or not _serves(name, n_rows, n_classes, True, threaded):
        return None
    return _product(name, log, logits, planes)


@cache
def _loss(name: str, function: str, soft: bool, spread: bool, tempered: bool, capped: bool, written: bool) -> Call:
    element, computed = element_types(name)
    axes = 3 if function == "loss_by_plane" else 2
    return compiled(
        f"one_call.{function}",
        INTP,
        x=array(element, axes),
        q=array(element, axes) if soft else NONE,
        y=array("int64", 1),
        w=array(computed, 1),
        upstream=array(computed, 1),
        ignored=INTP,
        reduction=INTP,
        smoothing=FLOAT64 if axes == 2 or spread else NONE,
        zeta=FLOAT64,
        temperature=FLOAT64 if tempered else NONE,
        softcap=FLOAT64 if capped else NONE,
        value=output(computed, 1),
        grad=output(element, axes) if written else NONE,
        **_TEAM,
    )


@cache
def _normalise(name: str, by: str, log: bool) -> Call:
    element, computed = element_types(name)
    axes = 3 if by == "plane" else 2
    function = f"one_call.{'log_softmax' if log else 'softmax'}_by_{by}"
    return compiled(
        function, INTP, x=array(element, axes), out=output(element, axes), work=output(computed, 1), **_TEAM
    )


@cache
def _product(name: str, log: bool, logits: bool, planes: bool) -> Call:
    element, computed = element_types(name)
    flag: dict[bool, Type] = {True: BOOLEAN, False: NONE}
    axes = 3 if planes else 2
    rows = array(element, axes)
    return compiled(
        f"one_call.products_of_{'planes' if planes else 'rows'}",
        INTP,
        saved=rows,
        logits=flag[logits],
        log=flag[log],
        upstream=rows,
        out=output(element, axes),
        work=output(computed, 1),
        **_TEAM,
    )
