"""The grid's libraries: each returns the call that computes one cell, forward or forward and backward, its best way.

Gradients are of the logits, or of features and weight; those of `reduction="none"` are of the losses' sum. What a call
returns is a loss or an array first, then gradients: the caller compares libraries before it times them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np
import torch

import softnll as sn
import softnll.torch as snt
from grid_problems import Problem
from ways import Unavailable

Call = Callable[[], Any]
F = torch.nn.functional


def _through(function: Callable, problem: Problem, backward: bool) -> Call:
    """Return a call of a function of (input, head), with gradients by autograd where asked."""
    if not backward:

        def forward():
            with torch.no_grad():
                return (function(problem.x, problem.head),)

        return forward
    leaves = [
        problem.x.detach().requires_grad_(),
        None if problem.head is None else problem.head.detach().requires_grad_(),
    ]
    value = function(*leaves).detach()
    if value.shape == problem.x.shape:  # a softmax
        # Random: of equal numbers a row, as of any that hardly differ in it, a product in one precision has no digits.
        upstream = 2 * torch.rand(value.shape, generator=torch.Generator().manual_seed(0)) - 1
        upstream = torch.empty_like(value).copy_(upstream)
    else:
        upstream = torch.ones_like(value)
    differentiated = [leaf for leaf in leaves if leaf is not None]

    def both():
        for leaf in differentiated:
            leaf.grad = None
        value = function(*leaves)
        value.backward(upstream)
        return (value.detach(), *(leaf.grad for leaf in differentiated))

    return both


def _ours(function: str, problem: Problem) -> Callable:
    p = problem
    if "softmax" in function:
        return lambda x, _: getattr(snt, function)(x, p.dim)
    options = dict(p.numbers, reduction=p.reduction)
    if p.class_weight is not None:
        options["weight"] = p.class_weight
    if function == "cross_entropy":
        return lambda x, _: snt.cross_entropy(x, p.y, **options)
    return lambda x, head: snt.linear_cross_entropy(x, head, p.y, **options)


def _theirs(function: str, problem: Problem) -> Callable:
    """Return PyTorch's own functions, options that it lacks written as one writes them."""
    p = problem
    if "softmax" in function:
        return lambda x, _: getattr(torch, function)(x, p.dim)
    temperature, cap, z_loss = (p.numbers.get(name) for name in ("temperature", "softcap", "z_loss"))
    smoothing = p.numbers.get("label_smoothing", 0.0)

    def loss(x, head):
        z = x if head is None else F.linear(x, head)
        if temperature:
            z = z / temperature
        if cap:
            z = cap * torch.tanh(z / cap)
        value = F.cross_entropy(z, p.y, p.class_weight, reduction=p.reduction, label_smoothing=smoothing)
        return value + z_loss * torch.logsumexp(z, 1).square().mean() if z_loss else value

    return loss


def softnll_torch(function: str, problem: Problem, backward: bool) -> Call:
    return _through(_ours(function, problem), problem, backward)


def torch_eager(function: str, problem: Problem, backward: bool) -> Call:
    return _through(_theirs(function, problem), problem, backward)


def torch_compile(function: str, problem: Problem, backward: bool) -> Call:
    torch.compiler.reset()  # it compiles a function for eight shapes, and then no more
    return _through(torch.compile(_theirs(function, problem), dynamic=False), problem, backward)


def _array(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's memory as an array."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def softnll_numpy(function: str, problem: Problem, backward: bool) -> Call:
    p = problem
    x = _array(p.x)
    if "softmax" in function:
        if backward:
            raise Unavailable("the products have functions of their own")
        return lambda: (getattr(sn, function)(x, axis=p.dim),)
    y = _array(p.y)
    options: dict[str, Any] = dict(p.numbers, reduction=p.reduction)
    if p.class_weight is not None:
        options["class_weight"] = _array(p.class_weight)
    if function == "cross_entropy":
        given: tuple = (x, y)
        options["axis"] = p.dim
    else:
        given = (x, _array(p.head), y)
    if backward:
        both = getattr(sn, f"{function}_and_grad")
        return lambda: _flat(both(*given, **options))
    loss = getattr(sn, function)
    return lambda: (loss(*given, **options),)


def _flat(result: tuple) -> tuple:
    """Return a loss and its gradients, of features and weight for linear losses."""
    loss, gradient = result
    return (loss, gradient) if isinstance(gradient, np.ndarray) else (loss, gradient.features, gradient.weight)


def scipy(function: str, problem: Problem, backward: bool) -> Call:
    if backward or "softmax" not in function or problem.x.dtype != torch.float32:
        raise Unavailable("softmax and log_softmax of float32 only")
    x, of = problem.x.numpy(), getattr(import_module("scipy.special"), function)
    return lambda: (of(x, axis=problem.dim),)


def jax_jit(function: str, problem: Problem, backward: bool) -> Call:
    jax = import_module("jax")
    jnp, p = jax.numpy, problem
    if "softmax" in function:
        if backward:
            raise Unavailable("measured with the losses")
        x, of = jnp.asarray(_array(p.x)), jax.jit(lambda x: getattr(jax.nn, function)(x, axis=p.dim))
        return lambda: (jax.block_until_ready(of(x)),)
    if p.y.is_floating_point() or p.class_weight is not None or p.y.min() < 0 or p.x.dim() > 2:
        raise Unavailable("integer targets of rows only")
    y = jnp.asarray(p.y.numpy().astype(np.int32))

    def loss(x, head):
        z = x if head is None else x @ head.T
        z = z / p.numbers.get("temperature", 1.0)
        if "softcap" in p.numbers:
            z = p.numbers["softcap"] * jnp.tanh(z / p.numbers["softcap"])
        lse = jax.nn.logsumexp(z, axis=-1)
        smoothing = p.numbers.get("label_smoothing", 0.0)
        picked = jnp.take_along_axis(z, y[:, None], axis=-1)[:, 0]
        target = (1 - smoothing) * picked + smoothing * z.mean(axis=-1) if smoothing else picked
        losses = lse - target + p.numbers.get("z_loss", 0.0) * lse**2
        return losses if p.reduction == "none" else losses.mean()

    given = (jnp.asarray(_array(p.x)), None if p.head is None else jnp.asarray(_array(p.head)))
    if not backward:
        run = jax.jit(loss)
        return lambda: (jax.block_until_ready(run(*given)),)
    wrt = 0 if p.head is None else (0, 1)

    def both(x, head):
        value, back = jax.vjp(loss, x, head)
        return value, back(jnp.ones_like(value))[: 1 if wrt == 0 else 2]

    run = jax.jit(both)

    def call():
        value, gradients = jax.block_until_ready(run(*given))
        return (value, *gradients)

    return call


LIBRARIES = {
    "softnll.torch": softnll_torch,
    "softnll": softnll_numpy,
    "torch": torch_eager,
    "torch.compile": torch_compile,
    "jax": jax_jit,
    "SciPy": scipy,
}
