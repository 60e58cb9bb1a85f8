"""Functions of rows as one operation: the compiled kernels in a program for one CPU, the equation in any other program.

Which of the two is decided where a program is lowered. Programs for several devices, for other platforms and for
export have the equation, whose operations XLA divides among devices.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import lru_cache, partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from softnll._core.arithmetic import arithmetic_of
from softnll._core.options import CrossEntropy
from softnll._core.problem import Problem
from softnll._kernels.select import compiled_kernels, kernels
from softnll.jax import _direct
from softnll.jax._handler import register

# Arguments after the objective: x, y, q, class weights, s, temperatures, mask, as in a Problem, and D or None.
_TARGET = "softnll_rows"
_LEAST = 1 << 14  # entries of logits: a call through Python takes as long as XLA's operations on these
_LEAST_DIRECT = 1  # of a call without Python
_Q_TYPES = ("float16", "bfloat16", "float32", "float64")
_primitive: Any = Primitive(_TARGET)
_primitive.multiple_results = True
EQUATIONS: dict[str, Callable[..., Any]] = {}
TANGENTS: dict[str, Callable[..., Any]] = {}  # the same functions with exact tangents, for problems without D


def of_rows(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator: the function of an objective and arrays by the equation may be the kernel of this name."""

    def decorated(equation: Callable[..., Any]) -> Callable[..., Any]:
        EQUATIONS[name] = equation

        @wraps(equation)
        def call(objective: CrossEntropy, *arrays: Any) -> Any:
            if not _served(name, objective, arrays):
                return equation(objective, *arrays)
            x, y, q, *others = arrays
            q = q if q is None or q.dtype.name in _Q_TYPES else q.astype(float)
            given = (arithmetic_of(x).wide(x), y, q, *others)
            present = tuple(at for at, each in enumerate(given) if each is not None)
            bound = replace(objective, reduction="sum", ignore_index=-100)  # both are in the arrays
            found = _primitive.bind(*(given[at] for at in present), name=name, objective=bound, present=present)
            return tuple(found) if len(found) > 1 else found[0]

        return call

    return decorated


def _served(name: str, objective: CrossEntropy, arrays: Any) -> bool:
    """Return whether there is a kernel. There is none where there is a mesh: in shard_map, with explicit sharding."""
    if name == "logsumexp" and (objective.temperature != 1 or arrays[5] is not None):
        return False
    present = tuple(at for at, each in enumerate(arrays) if each is not None)
    least = min(_LEAST, _LEAST_DIRECT) if _direct.serves(objective, present, arrays[0].shape) else _LEAST
    return bool(arrays[0].size >= max(least, 1)) and jax.sharding.get_abstract_mesh().empty


def _by_equation(*given: Any, name: str, objective: CrossEntropy, present: tuple[int, ...]) -> list[Any]:
    arrays: list[Any] = [None] * 8
    for at, each in zip(present, given, strict=True):
        arrays[at] = each
    found = EQUATIONS[name](objective, *arrays)
    return list(found) if isinstance(found, tuple) else [found]


def _shapes(x: Any, *_: Any, name: str, **__: Any) -> list[Any]:
    N, C = x.shape
    shapes: dict[str, list[tuple[int, ...]]] = {
        "logsumexp": [(N, 1)],
        "losses": [(N,)],
        "forward_backward": [(N,), (N, C)],
    }
    return [ShapedArray(shape, x.dtype) for shape in shapes.get(name, [(N, C)])]


def _eager(*given: Any, **parameters: Any) -> Any:
    with jax.disable_jit(False):  # where it is disabled, the compiled function would call this one
        return _jitted(**parameters)(*given)


@lru_cache(maxsize=256)
def _jitted(**parameters: Any) -> Any:
    return jax.jit(partial(_primitive.bind, **parameters))


_lower_equation = mlir.lower_fun(_by_equation, multiple_results=True)


def _lower_on_cpu(context: Any, *given: Any, name: str, objective: CrossEntropy, present: tuple[int, ...]) -> Any:
    if not _for_this_cpu(context.module_context) or not _registered():
        return _lower_equation(context, *given, name=name, objective=objective, present=present)
    options = {each.name: getattr(objective, each.name) for each in fields(objective) if each.init}
    key = json.dumps([name, present, options])
    target = _registered_kernel(name, objective, present, context.avals_in) or _TARGET
    return jax.ffi.ffi_lowering(target)(context, *given, key=key)


_primitive.def_impl(_eager)
_primitive.def_abstract_eval(_shapes)
mlir.register_lowering(_primitive, _lower_equation)
mlir.register_lowering(_primitive, _lower_on_cpu, platform="cpu")


def _for_this_cpu(module: Any) -> bool:
    """Return whether a program is for one device of this process; what JAX does not say counts as no."""
    exported = getattr(getattr(module, "lowering_parameters", None), "for_export", True)
    return not exported and getattr(getattr(module, "axis_context", None), "num_devices", 0) == 1


def _registered() -> bool:
    """Return whether compiled programs can call the kernels."""
    return compiled_kernels() and register(_TARGET, _compute)


def _registered_kernel(name: str, objective: CrossEntropy, present: tuple[int, ...], given: Any) -> str | None:
    """Return under which name compiled programs call a kernel without Python; None if there is none."""
    x, *_ = given
    if x.size < _LEAST_DIRECT or not _direct.serves(objective, present, x.shape):
        return None
    of = _direct.signature(name, x.shape[1], {at: each.dtype.name for at, each in zip(present, given, strict=True)})
    target = "_".join((_TARGET, of.function, *(each.scalar for each in of.types.values())))
    return target if register(target, _compute, partial(_direct.address, of)) else None


@lru_cache(maxsize=256)
def _parsed(key: str) -> tuple[str, tuple[int, ...], CrossEntropy]:
    name, present, options = json.loads(key)
    return name, tuple(present), CrossEntropy(**options)


@np.errstate(all="ignore")  # infinities and NaN are regular results
def _compute(key: str, given: list[Any], out: list[Any]) -> None:
    """Compute a kernel's outputs: what the compiled program calls."""
    name, present, objective = _parsed(key)
    x, y, q, w, s, tau, where, D = (given[present.index(at)] if at in present else None for at in range(8))
    w, s, tau = (None if each is None else each.astype(np.float64) for each in (w, s, tau))
    y = None if y is None else y.astype(np.int64)
    problem = Problem(x, objective, y, q, w, s, where, tau, 1.0 if D is None else float(D))
    backend = kernels()
    if name == "logsumexp":
        out[0][:, 0] = backend.logsumexp(problem)
    elif name == "losses":
        out[0][...] = backend.losses(problem)
    elif name == "forward_backward":
        out[0][...] = backend.forward_backward(problem, out[1])
    elif name == "gradients":
        backend.forward_backward(problem, out[0])
    else:
        getattr(backend, name)(problem, out[0])


def _with_tangents(given: Any, tangents: Any, *, name: str, objective: CrossEntropy, present: tuple[int, ...]) -> Any:
    """Return values and tangents: where JAX differentiates what it has rematerialised, it has lost the outer rules."""
    moving = [at for at, each in enumerate(tangents) if not isinstance(each, ad.Zero)]

    def of_moving(*values: Any) -> Any:
        arrays: list[Any] = [None] * 8
        for at, each in zip(present, given, strict=True):
            arrays[at] = each
        for at, value in zip(moving, values, strict=True):
            arrays[present[at]] = value
        found = (EQUATIONS if 7 in present else TANGENTS)[name](objective, *arrays)
        return list(found) if isinstance(found, tuple) else [found]

    return jax.jvp(of_moving, [given[at] for at in moving], [tangents[at] for at in moving])


def _batched(given: Any, axes: Any, *, present: tuple[int, ...], **parameters: Any) -> Any:
    """Return the rule of ``vmap``: the rows of all elements are rows of one call.

    Where class weights differ, or there is no element, it is the equation's.
    """
    size = next(each.shape[axis] for each, axis in zip(given, axes, strict=True) if axis is not None)
    placed = dict(zip(present, zip(given, axes, strict=True), strict=True))
    if size == 0 or placed.get(3, (None, None))[1] is not None:
        found = jax.vmap(partial(_by_equation, present=present, **parameters), in_axes=axes)(*given)
        return found, [0] * len(found)
    D, axis = placed.get(7, (None, None))
    if axis is not None:  # one D of each element: the gradient is divided afterwards
        del placed[7]
    rows = []
    for at, (each, along) in placed.items():
        if at in (3, 7):
            rows.append(each)
            continue
        moved = jnp.broadcast_to(each, (size, *each.shape)) if along is None else jnp.moveaxis(each, along, 0)
        rows.append(moved.reshape(-1, *moved.shape[2:]))
    found = _primitive.bind(*rows, present=tuple(placed), **parameters)
    found = [each.reshape(size, -1, *each.shape[1:]) for each in found]
    if axis is not None:
        D = D.astype(found[-1].dtype)[:, None, None]
        found[-1] = jnp.where(D > 0, found[-1] / jnp.where(D > 0, D, 1), 0)
    return found, [0] * len(found)


ad.primitive_jvps[_primitive] = _with_tangents
batching.primitive_batchers[_primitive] = _batched
