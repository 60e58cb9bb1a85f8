"""Matrix products on devices: inputs of one type, sums in float32 or wider, a result of any type.

Each product is written to an ``out`` tensor: autocast, which would round the inputs, does not apply to those.
"""

from __future__ import annotations

import torch
from torch import Tensor

# torch multiplies half types into float32 without rounding to a half type between: since 2.8, on NVIDIA's devices.
# It adds such products to ``out`` since 2.10 (pytorch/pytorch#167931).
_WIDENS = torch.__version__ >= "2.8" and not torch.version.hip
_ADDS = torch.__version__ >= "2.10" and not torch.version.hip


def multiply(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> None:
    """Write a @ b into ``out`` or, with ``add``, add it there."""
    widens = _WIDENS and a.is_cuda
    if out.dtype == a.dtype:
        if add:
            out.addmm_(a, b)
        else:
            torch.mm(a, b, out=out)
    elif out.dtype.itemsize < a.dtype.itemsize or (add and widens and not _ADDS):
        result = torch.empty_like(out, dtype=torch.promote_types(a.dtype, out.dtype))
        multiply(a, b, result)
        if add:
            out += result
        else:
            out.copy_(result)
    elif not widens:
        multiply(a.to(out.dtype), b.to(out.dtype), out, add=add)
    elif add:
        torch.ops.aten.addmm.dtype_out(out, a, b, out.dtype, out=out)
    else:
        torch.ops.aten.mm.dtype_out(a, b, out.dtype, out=out)
