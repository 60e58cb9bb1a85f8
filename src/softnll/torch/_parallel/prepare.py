"""Check the arguments of a vocabulary-parallel call, first on each rank, then against those of the other ranks."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from softnll._core.layout import Layout
from softnll._core.options import NAMES
from softnll._core.slices import columns_of
from softnll.torch._base.arguments import LinearInputs, LinearSettings
from softnll.torch._base.checks import wide_type
from softnll.torch._base.errors import InputValueError
from softnll.torch._parallel.exchange import Exchange
from softnll.torch._parallel.sliced import Sliced

Given = Callable[[], tuple[LinearInputs, LinearSettings, Layout]]
_CAUGHT = (TypeError, ValueError, RuntimeError, NotImplementedError)  # what the checks of arguments raise


def exchange_for(group: Any, tensor: Any) -> tuple[Exchange, Exception | None]:
    """Return the collectives for a tensor, and the error of a tensor that the group cannot exchange."""
    if not dist.is_available() or not dist.is_initialized():
        raise RuntimeError("softnll.torch.parallel needs torch.distributed.init_process_group() first")
    if dist.get_rank(group) < 0:
        raise InputValueError("this rank is not in the group; allowed: calls on the ranks of the group only")
    device = tensor.device if isinstance(tensor, Tensor) else torch.device("cpu")
    if dist.get_backend(group) == "nccl" and device.type != "cuda":
        error = InputValueError(f"input is on {device}, and the group's backend is nccl; allowed: CUDA tensors")
        return Exchange(group, torch.device("cuda", torch.cuda.current_device())), error
    return Exchange(group, device), None


def prepare(
    function: str, group: Any, start: int | None, tensor: Any, given: Given
) -> tuple[LinearInputs, LinearSettings, Sliced]:
    """Return the checked arguments and the slice of a call.

    If one rank's arguments are invalid, or ranks disagree, every rank raises an error.
    """
    exchange, error = exchange_for(group, tensor)
    facts: dict[str, Any] = {}
    if error is None:
        try:
            inputs, settings, layout = given()
            facts = _facts(function, inputs, settings, layout, start)
        except _CAUGHT as raised:
            error = raised
    every = exchange.agree(facts, error)
    n_classes, first = place(every, exchange.rank, start)
    objective = settings.loss.objective
    names = columns_of(
        soft=inputs.target.is_floating_point(),
        smoothed=objective.label_smoothing > 0,
        weighted=inputs.weight is not None,
        tokens=function == "token_stats",
    )
    try:
        return inputs, settings, Sliced.of(inputs, settings, layout, n_classes, first, exchange, names)
    except _CAUGHT as raised:
        numbers = torch.zeros(layout.n_rows, len(names), dtype=wide_type(inputs.input), device=exchange.device)
        exchange.gather(numbers, raised)
        raise  # not reached: gather raises it on every rank


def place(every: list[dict[str, Any]], rank: int, start: int | None) -> tuple[int, int]:
    """Return the number of classes of all slices, and this slice's first class; raise unless slices are adjacent."""
    sizes = [each["_classes"] for each in every]
    total = sum(sizes)
    if start is None:
        return _some(total), sum(sizes[:rank])
    starts = [each["_start"] for each in every]
    at = 0
    for first, size, each in sorted(zip(starts, sizes, range(len(sizes)), strict=True)):
        if first != at and size:
            raise InputValueError(
                f"start is {first} on rank {each}, whose slice has {size} classes; allowed: {at}, where the slice "
                "before ends"
            )
        at += size
    return _some(total), starts[rank]


def _some(n_classes: int) -> int:
    """Return a number of classes; raise if it is 0."""
    if n_classes == 0:
        raise InputValueError("the slices of all ranks have no classes; allowed: at least one")
    return n_classes


def _facts(
    function: str, inputs: LinearInputs, settings: LinearSettings, layout: Layout, start: int | None
) -> dict[str, Any]:
    """Return what the ranks compare; each may have a slice of its own of what begins with an underscore."""
    target, objective = inputs.target, settings.loss.objective
    kind = "sparse" if inputs.indices is not None else "soft" if target.is_floating_point() else "hard"
    facts = {
        "function": function,
        "the shape of the rows": list(layout.row_shape),
        "the class dimension": layout.axes[0],
        "the type of input": str(inputs.input.dtype),
        "the kind of targets": kind,
        **{name: getattr(objective, name) for name in NAMES},
        "check": settings.loss.check,
        "the presence of weight": inputs.weight is not None,
        "the presence of sample_weight": inputs.sample_weight is not None,
        "the presence of a temperature a row": inputs.temperatures is not None,
        "whether input requires a gradient": torch.is_grad_enabled() and inputs.input.requires_grad,
        "the presence of start": start is not None,
        "_classes": layout.n_classes,
        "_start": start,
    }
    if kind == "hard" and target.device.type == "cpu":
        facts["the checksum of target"] = zlib.crc32(target.detach().to(torch.int64).contiguous().numpy().data)
    return facts
