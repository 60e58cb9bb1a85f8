"""Matrix products by cuBLAS of matrices of one type, with sums in float32 or wider and a result of any type.

Each goes into memory that is there: so autocast, which would round what goes in, leaves them alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["multiply", "product"]

# Half types into float32 without a rounding between: since 2.8, on NVIDIA's devices; added to what is there: since 2.10
# (pytorch/pytorch#167931).
_WIDENS = torch.__version__ >= "2.8" and not torch.version.hip
_ADDS = torch.__version__ >= "2.10" and not torch.version.hip


def product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a @ b in a type."""
    out = torch.empty(a.shape[0], b.shape[1], dtype=dtype, device=a.device)
    multiply(a, b, out)
    return out


def multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Write a @ b into ``out`` or, with ``add``, add it there."""
    if out.dtype == a.dtype:
        if add:
            out.addmm_(a, b)
        else:
            torch.mm(a, b, out=out)
    elif out.dtype.itemsize < a.dtype.itemsize or (add and a.is_cuda and _WIDENS and not _ADDS):
        made = product(a, b, torch.promote_types(a.dtype, out.dtype))
        if add:
            out += made
        else:
            out.copy_(made)
    elif not (_WIDENS and a.is_cuda):
        multiply(a.to(out.dtype), b.to(out.dtype), out, add=add)
    elif add:
        torch.ops.aten.addmm.dtype_out(out, a, b, out.dtype, out=out)
    else:
        torch.ops.aten.mm.dtype_out(a, b, out.dtype, out=out)
