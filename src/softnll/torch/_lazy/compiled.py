"""Where torch.compile may end its graph at a fused head, so that lazy logits are made outside of it."""

from __future__ import annotations

from typing import Any

import torch

from softnll._core.warn import warn

_warned: set[int] = set()  # numbers of classes of heads in a whole graph


def _ends_graph(classes: int) -> bool:
    """Return whether the graph that torch.compile traces may end at a head; warn, once, if the graph is a whole one."""
    from torch._dynamo.symbolic_convert import InstructionTranslator  # noqa: PLC0415 - there is a graph: it is loaded

    tracer: Any = InstructionTranslator.current_tx()
    if getattr(tracer, "export", False):
        return False
    if not (getattr(tracer, "one_graph", True) or getattr(tracer, "error_on_graph_break", False)):
        return True
    if classes not in _warned:
        _warned.add(classes)
        warn(
            f"softnll.torch.fuse: with fullgraph=True the head computes ordinary logits: N \N{MULTIPLICATION SIGN} "
            f"{classes} of them, and of their gradient; use fullgraph=False, or compile the layers below the head"
        )
    return False


_ends_graph._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001 - torch._dynamo.assume_constant_result, which would load it


def ends_graph(classes: int) -> bool:
    """Return whether a head of so many classes, while torch.compile traces it, may end the graph.

    It may where gradients are recorded. In generation and evaluation the head stays in the graph.
    """
    return torch.is_grad_enabled() and torch.compiler.is_dynamo_compiling() and _ends_graph(classes)
