"""What torch's functions do with lazy logits: which ones read no values, write, ask for gradients, or are a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

METADATA = {
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "itemsize")
    ),
    *(
        getattr(Tensor, name).__get__
        for name in ("is_cpu", "is_cuda", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_mps", "is_xpu")
    ),
    *(getattr(Tensor, name) for name in ("size", "dim", "ndimension", "numel", "nelement", "element_size", "__len__")),
    *(getattr(Tensor, name) for name in ("is_floating_point", "is_complex", "is_inference", "get_device", "__hash__")),
    torch.is_floating_point,
    torch.is_complex,
    torch.numel,
}  # attributes and functions that do not read the values
NODE = getattr(Tensor, "grad_fn").__get__  # noqa: B009 - not in its type hints; hooks may be put on what it returns
GRADIENT_USERS = (
    Tensor.retain_grad,
    Tensor.register_hook,
    Tensor.register_post_accumulate_grad_hook,
    torch.autograd.grad,
)
TYPED = (Tensor.to, Tensor.type)  # of a tensor argument they take the type alone
WRITERS = {"__setitem__", "__set__", "__delete__"}  # beside names such as add_ and __iadd__


def loss_options(
    target: Any,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **further: Any,
) -> dict[str, Any]:
    """Return the arguments of a cross-entropy as arguments of linear_cross_entropy, by name."""
    if size_average is not None or reduce is not None:
        reduction = torch.nn._reduction.legacy_get_string(size_average, reduce)  # noqa: SLF001 - torch's own rule
    ignored = None if isinstance(target, Tensor) and target.is_floating_point() else ignore_index
    options = {"target": target, "weight": weight, "ignore_index": ignored, "reduction": reduction}
    return options | {"label_smoothing": label_smoothing} | further


def writes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Return whether a function writes to its arguments."""
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name in WRITERS or (name.startswith("__i") and hasattr(Tensor, f"__{name[3:]}"))
    return name.endswith("_") or kwargs.get("out") is not None
