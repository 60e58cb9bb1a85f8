"""A decorator for functions that torch.compile must not trace."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

Returned = TypeVar("Returned")
Parameters = ParamSpec("Parameters")


def uncompiled(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Return a function that torch.compile does not trace; it would replace NumPy's functions by its own.

    torch.compiler.disable takes two seconds to import and some microseconds a call, so that it is applied only after
    torch.compile has been imported.
    """
    disabled: Callable[Parameters, Returned] | None = None

    @wraps(function)
    def call(*args: Parameters.args, **options: Parameters.kwargs) -> Returned:
        nonlocal disabled
        if "torch._dynamo" not in sys.modules:
            return function(*args, **options)
        if disabled is None:
            disabled = torch.compiler.disable(function)
        return disabled(*args, **options)

    return call
