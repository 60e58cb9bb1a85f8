"""Let TorchScript call a public function: as an operator of torch's library with the function's own signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

# The annotations of public functions, and their types in an operator's schema. An argument of another type is left out.
_TYPES = {
    "Tensor": "Tensor",
    "Tensor | SparseTargets": "Tensor",
    "Tensor | None": "Tensor?",
    "bool": "bool",
    "bool | None": "bool?",
    "int": "int",
    "int | None": "int?",
    "int | Sequence[int]": "int[1]",
    "float": "float",
    "float | None": "float?",
    "float | Tensor": "float",
    "str": "str",
    "torch.dtype | None": "ScalarType?",
}
_library = torch.library.Library("softnll", "FRAGMENT")


def scriptable(function: Decorated) -> Decorated:
    """Register an operator that calls a function, and let torch.jit.script compile calls of the function to it.

    A scripted model that is saved needs softnll.torch imported where it is loaded.
    """
    name = f"scripted_{function.__name__}"
    returns = {"Tensor": "Tensor", "TokenStats": "(Tensor, Tensor, Tensor, Tensor)"}
    signature = inspect.signature(function)
    schema = f"{name}({', '.join(_parameters(signature))}) -> {returns[str(signature.return_annotation)]}"
    _library.define(schema)
    _library.impl(name, function, "CompositeImplicitAutograd")
    torch.jit._builtins._register_builtin(function, f"softnll::{name}")  # noqa: SLF001 - TorchScript has no public way
    return function


def _parameters(signature: inspect.Signature) -> list[str]:
    """Return the parameters of an operator's schema."""
    found, named = [], False
    for each in signature.parameters.values():
        if each.annotation not in _TYPES:
            continue
        if each.kind is inspect.Parameter.KEYWORD_ONLY and not named:
            found.append("*")
            named = True
        default = "" if each.default is inspect.Parameter.empty else f"={_literal(each.default)}"
        found.append(f"{_TYPES[each.annotation]} {each.name}{default}")
    return found


def _literal(value: Any) -> str:
    """Return a default value as a schema spells it."""
    return f'"{value}"' if isinstance(value, str) else str(value)
