"""Matrix products of arrays into memory that is already there, by torch's BLAS: the one whose threads are awake."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray

__all__ = ["multiply"]


def multiply(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], *, add: bool = False) -> None:
    """Write a @ b into ``out`` or, with ``add``, add it there, as ``softnll.gemm.multiply`` does."""
    left, right, result = (torch.from_numpy(each) for each in (a, b, out))
    if add:
        result.addmm_(left, right)
    else:
        torch.mm(left, right, out=result)
