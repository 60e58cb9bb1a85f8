"""Decorators that copy a signature from another function, so that each parameter is declared once."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def signature_of(function: Callable[..., Any]) -> Callable[[Decorated], Decorated]:
    """Return a decorator that sets a function's signature to the parameters of another function."""

    def decorate(decorated: Decorated) -> Decorated:
        returns = inspect.signature(decorated).return_annotation
        signature = inspect.signature(function).replace(return_annotation=returns)
        decorated.__signature__ = signature  # type: ignore[attr-defined]
        return decorated

    return decorate


def options_of(function: Callable[..., Any], *names: str) -> Callable[[Decorated], Decorated]:
    """Return a decorator that replaces ``**options`` in a signature by some keyword parameters of another function."""

    def decorate(decorated: Decorated) -> Decorated:
        signature = inspect.signature(decorated)
        kept = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        further = [inspect.signature(function).parameters[name] for name in names]
        decorated.__signature__ = signature.replace(parameters=[*kept, *further])  # type: ignore[attr-defined]
        return decorated

    return decorate
