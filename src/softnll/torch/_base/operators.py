"""Operators of torch's library whose schemas follow from named tuples and settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from softnll.torch._base.arguments import schema_of, take
from softnll.torch._base.autograd_base import refuse_constants, refuse_tangents
from softnll.torch._base.errors import raise_as_torch
from softnll.torch._base.inputs import tracing

Function = Callable[..., Any]


_expressions: dict[Any, Function] = {}  # of the operators that torch's table of decompositions does not have yet


def decompose(library: Any, expression: Function) -> None:
    """Let torch.export's decompositions and the ONNX exporters replace an operator by torch's own operations."""
    _expressions[library] = expression


def _exports() -> bool:
    """Whether torch.export is at work; True before torch 2.7, which does not tell."""
    told = getattr(torch.compiler, "is_exporting", None)
    return told is None or bool(told())


def fake(library: Any, function: Function) -> None:
    """Register a function that returns empty tensors with the shapes and the types of an operator's results.

    The function is called before a graph is decomposed. Only when one is exported are the expressions put into torch's
    table: its import takes half a second, and where the variable CI is set, Inductor refuses what is in it.
    """

    def empty(*arguments: Any) -> Any:
        while _expressions and _exports():
            from torch._decomp import register_decomposition  # noqa: PLC0415 - see above

            of, expression = _expressions.popitem()
            register_decomposition(of._opoverload)(expression)  # noqa: SLF001 - has no public name
        return function(*arguments)

    library.register_fake(empty)


class Operator:
    """An operator ``softnll::name`` whose arguments are groups: named tuples of tensors or flags, and settings.

    A caller passes the groups, settings as values in the order of their schema. The operator of torch receives them as
    flat arguments, and its implementation receives groups again.

    Parameters
    ----------
    name
        The name of the operator in the library ``softnll``.
    groups
        The classes of the groups.
    returns
        The schema of the result.
    compute
        The implementation, a function of the groups.
    names
        For an operator that a public function calls: torch's names of parameters, for the messages of errors. Such an
        operator also raises for tensors with a tangent in its first group.
    """

    def __init__(
        self, name: str, groups: tuple[Any, ...], returns: str, compute: Function, names: dict[str, str] | None
    ) -> None:
        self.groups = groups
        self.sizes = tuple(len(schema_of(group)) for group in groups)
        parameters = [each for group in groups for each in schema_of(group)]
        self.names = tuple(each.split(" ")[1] for each in parameters)
        schema = f"({', '.join(parameters)}) -> {returns}"

        def implementation(*flat: Any) -> Any:
            if names is None:
                return compute(*self.grouped(flat))
            refuse_tangents(*self.split(flat)[0])
            try:
                return compute(*self.grouped(flat))
            except (TypeError, ValueError) as error:
                raise_as_torch(error, names)

        self.library = torch.library.custom_op(f"softnll::{name}", implementation, mutates_args=(), schema=schema)
        self.expression: Function | None = None

    def __call__(self, *groups: Any) -> Any:
        """Return the result of the operator for these groups; under torch.jit.trace, that of its expression."""
        flat = [each for group in groups for each in group]
        if self.expression is not None and tracing():
            return self.expression(*self.grouped(flat))
        return self.library(*flat)

    def split(self, flat: Any) -> list[Any]:
        """Return flat values as groups; the values of settings are a tuple."""
        parts, start = [], 0
        for group, size in zip(self.groups, self.sizes, strict=True):
            values = tuple(flat[start : start + size])
            parts.append(values if hasattr(group, "SCHEMA") else group(*values))
            start += size
        return parts

    def grouped(self, flat: Any) -> list[Any]:
        """Return flat arguments as groups, with checked settings."""
        return [
            group.of(*values) if hasattr(group, "SCHEMA") else values
            for group, values in zip(self.groups, self.split(flat), strict=True)
        ]

    def fake(self, function: Function) -> Function:
        """Register a function that returns empty tensors with the shapes and the types of the results."""
        fake(self.library, lambda *flat: function(*self.grouped(flat)))
        return function

    def decompose(self, expression: Function) -> None:
        """Register a function of the groups that returns the same result by torch's own operations."""
        self.expression = expression
        decompose(self.library, lambda *flat: expression(*self.grouped(flat)))

    def differentiate(self, backward: Function, *, results: int = 0) -> None:
        """Register the derivative with respect to the first group.

        ``backward(ctx, *upstream)`` returns gradients by the names of the parameters; an upstream gradient of 0 is
        None. Saved tensors are the first group and the last ``results`` results; ``ctx.groups`` are the other groups.
        """

        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            tensors, *ctx.groups = self.split(inputs)
            refuse_constants(take(type(tensors), ctx.needs_input_grad))
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*tensors, *(output[-results:] if results else ()))

        def gradients(ctx: Any, *upstream: Any) -> tuple[Any, ...]:
            named = {} if all(each is None for each in upstream) else backward(ctx, *upstream)
            return tuple(named.get(name) for name in self.names)

        self.library.register_autograd(gradients, setup_context=setup_context)


def operator(
    name: str, *groups: Any, returns: str = "Tensor", names: dict[str, str] | None = None
) -> Callable[[Function], Operator]:
    """Return a decorator that turns an implementation into an operator."""
    return lambda compute: Operator(name, groups, returns, compute, names)
