"""The errors for targets whose shape or type does not fit the logits, with the change that makes the usual ones fit."""

from __future__ import annotations

import math
from typing import Any

from softnll._core.layout import Layout

Shape = tuple[int, ...]


class AdvisedError(Exception):
    """An error with advice that differs for tensors, as torch's functions have no ``axis``.

    Parameters
    ----------
    fact
        What is wrong, and what is allowed.
    advice, for_tensors
        What to write instead, with NumPy's methods and with torch's; "" if nothing is likely.
    """

    def __init__(self, fact: str, advice: str, for_tensors: str) -> None:
        super().__init__(f"{fact}; {advice}" if advice else fact)
        self.for_tensors = f"{fact}; {for_tensors}" if for_tensors else fact


class TargetShapeError(AdvisedError, ValueError):
    """Targets of another shape than the logits ask for."""


class TargetTypeError(AdvisedError, TypeError):
    """Class indices that are floats."""


def float_error(dtype: Any) -> TargetTypeError:
    """Return the error for hard targets that are floats."""
    fact = f"hard targets have dtype {dtype}; allowed: integers"
    return TargetTypeError(fact, "such as targets.astype(int)", "such as targets.long()")


def shape_error(shape: Shape, dtype: Any, layout: Layout, *, hard: bool) -> TargetShapeError:
    """Return the error for targets that are ``hard``, integers, or floats."""
    fact = (
        f"targets has shape {shape} and dtype {dtype}, for logits of shape {layout.shape} with the classes on "
        f"{layout.axes_named}; allowed: integers of shape {layout.row_shape} or floats of shape {layout.shape}"
    )
    return TargetShapeError(fact, *_advice(shape, layout, hard=hard))


def _advice(shape: Shape, layout: Layout, *, hard: bool) -> tuple[str, str]:
    """Return what would make the targets fit, for arrays and for tensors."""
    if hard and shape == layout.shape:
        axis = layout.axes[0]
        soft = "of one-hot rows pass"
        return (
            f"{soft} targets.argmax({axis}) or targets.astype(float)",
            f"{soft} targets.argmax({axis}) or targets.float()",
        )
    if hard:
        others = [k for k in range(len(layout.shape)) if k not in layout.axes and shape == _without(layout.shape, k)]
        if others and len(layout.axes) == 1:
            found = f"the classes seem to be on axis {others[-1]}"
            at = others[-1] - len(layout.shape)  # from the end, as (B, T, V) is read
            return f"{found}: pass axis={at}", f"{found}: pass logits.movedim({at}, 1)"
    if hard and math.prod(shape) == layout.n_rows and layout.n_rows:
        return (f"pass targets.reshape({layout.row_shape})",) * 2
    if not hard and any(layout.shape == _without(shape, k) for k in range(len(shape))):
        return ("the arguments seem to be swapped: logits come first, then targets",) * 2
    return "", ""


def _without(shape: Shape, axis: int) -> Shape:
    """Return a shape without one axis."""
    return (*shape[:axis], *shape[axis + 1 :])
