"""Matrix products into existing arrays, by SciPy's BLAS."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def multiply(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any], *, add: bool = False) -> None:
    """Write a @ b into ``out`` or, with ``add``, add it there: one call with beta = 0 or 1, no copies.

    All arrays have one type, float32 or float64. NumPy cannot add a product in place. If NumPy's BLAS and SciPy's
    alternate, the idle threads of one spin while the other computes (two cores, 60 000 × 784 by 10: 77 ms instead of
    31), so that all products of one computation use this function. NumPy multiplies only arrays that are contiguous in
    neither order (blocks of columns), with a copy of the product if it is to be added.
    """
    from scipy.linalg import blas  # noqa: PLC0415 - importing softnll imports only NumPy

    if a.shape[1] == 0 or out.size == 0:
        if not add:
            out[...] = 0
        return
    if not (out.flags.c_contiguous and all(each.flags.forc for each in (a, b))):
        if add:
            out += a @ b
        else:
            np.matmul(a, b, out=out)
        return
    gemm = blas.dgemm if out.dtype == np.float64 else blas.sgemm
    # In Fortran order these arrays are their transposes: outᵀ = bᵀ @ aᵀ.
    right, right_flipped = _fortran(b.T)
    left, left_flipped = _fortran(a.T)
    gemm(1.0, right, left, beta=float(add), c=out.T, trans_a=right_flipped, trans_b=left_flipped, overwrite_c=True)


def _fortran(matrix: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Return a matrix, or its transpose and True, whichever is Fortran-contiguous."""
    return (matrix, False) if matrix.flags.f_contiguous else (matrix.T, True)
