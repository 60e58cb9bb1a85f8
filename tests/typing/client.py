"""What type checkers read of the public functions: mypy and pyright check this file, which nothing runs."""

from __future__ import annotations

from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import softnll as sn
import softnll.jax as snj
import softnll.torch as snt
from softnll._core.options import Reduction
from softnll._core.plan import Plan

Array = NDArray[np.floating[Any]]


def on_numpy(x64: NDArray[np.float64], x32: NDArray[np.float32], y: NDArray[np.int64], reduction: Reduction) -> None:
    """A result has the type of the logits; a reduction decides between a number and an array."""
    assert_type(sn.softmax(x32), NDArray[np.float32])
    assert_type(sn.softmax(x64, axis=None, temperature=2.0, where=x64 > 0, out=x64), NDArray[np.float64])
    assert_type(sn.log_softmax(np.zeros((2, 3))), np.ndarray[tuple[int, int], np.dtype[np.float64]])
    assert_type(sn.softmax([5.0, 4.0, 2.0]), NDArray[Any])
    assert_type(sn.logsumexp(x32), NDArray[np.float32])
    assert_type(sn.logsumexp([[1.0]], keepdims=True), Array)
    assert_type(sn.logsumexp(x64, axis=None), np.floating[Any])
    assert_type(sn.logsumexp(x64, b=[1.0, -1.0], return_sign=True), tuple[Array, Array])

    assert_type(sn.cross_entropy(x64, y), np.float64)
    assert_type(sn.cross_entropy(x32, y, reduction="sum", label_smoothing=0.1), np.float32)
    assert_type(sn.cross_entropy([[5.0, 4.0]], [0], class_weight=[1.0, 2.0]), np.floating[Any])
    assert_type(sn.cross_entropy(x32, y, reduction="none"), NDArray[np.float32])
    assert_type(sn.cross_entropy([[5.0, 4.0]], [0], reduction="none"), Array)
    assert_type(sn.cross_entropy(x64, y, reduction=reduction), np.float64 | NDArray[np.float64])
    assert_type(sn.nll_loss(x64, y), np.float64)
    assert_type(sn.nll_loss(x32, y, reduction="none", sample_weight=[1.0]), NDArray[np.float32])
    assert_type(sn.cross_entropy_and_grad(x32, y), tuple[np.float32, NDArray[np.float32]])
    assert_type(
        sn.cross_entropy_and_grad(x64, y, out=x64, reduction="none"), tuple[NDArray[np.float64], NDArray[np.float64]]
    )
    assert_type(sn.cross_entropy_hvp(x64, y, x64, z_loss=1e-4), NDArray[Any])

    assert_type(sn.linear_cross_entropy(x64, x64, y), np.floating[Any])
    assert_type(sn.linear_cross_entropy(x64, x64, y, reduction="none"), Array)
    loss, gradients = sn.linear_cross_entropy_and_grad(x64, x64, y, bias=[0.0])
    assert_type(loss, np.floating[Any])
    assert_type(gradients, sn.LinearGradients)
    assert_type(gradients.bias, NDArray[Any] | None)
    assert_type(sn.fit_temperature(x64, y), float)
    assert_type(sn.diagnose(x64, y), list[sn.Finding])
    explained = sn.explain(x64, y)
    assert_type(explained, sn.Explanation)
    assert_type(explained.derivation(0), sn.Derivation)
    assert_type(sn.LossDisplay.from_scores(x64, y).plot(), sn.LossDisplay)


def mistakes_on_numpy(x: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    """Each of these lines is an error for both type checkers; an unused ignore is one too."""
    sn.cross_entropy(x, y, reduction="avg")  # type: ignore[call-overload]
    sn.cross_entropy(x, y, label_smooth=0.1)  # type: ignore[call-overload]
    sn.cross_entropy(x, y, -1)  # type: ignore[call-overload]
    sn.nll_loss(x, y, z_loss=0.1)  # type: ignore[call-overload]
    sn.crossentropy(x, y)  # type: ignore[attr-defined]


def on_tensors(x: Tensor, W: Tensor, y: Tensor, model: torch.nn.Sequential) -> None:
    """As torch's functions; the modules, whose calls torch declares as Any, return tensors."""
    assert_type(snt.softmax(x, dim=1), Tensor)
    assert_type(snt.cross_entropy(x, y, reduction="none", z_loss=1e-4), Tensor)
    assert_type(snt.linear_cross_entropy(x, W, snt.SparseTargets(y, x)), Tensor)
    assert_type(snt.plan(x, W, y), Plan)
    assert_type(snt.linear_cross_entropy_and_stats(x, W, y), snt.LossStats)
    assert_type(snt.token_stats(x, W, y), snt.TokenStats)
    assert_type(snt.token_stats(x, W, y).log_prob, Tensor)
    assert_type(snt.CrossEntropyLoss(label_smoothing=0.1, softcap=30.0)(x, y), Tensor)
    assert_type(snt.NLLLoss()(x, y), Tensor)
    layer = snt.LinearCrossEntropyLoss(8, 3, max_bytes=1 << 20)
    assert_type(layer(x, y, sample_weight=x), Tensor)
    assert_type(layer.linear, torch.nn.Linear)
    assert_type(snt.fuse(model, head="2"), torch.nn.Sequential)
    assert_type(snt.unfuse(model), torch.nn.Sequential)
    snt.CrossEntropyLoss(z_los=0.1)  # type: ignore[call-arg]
    snt.cross_entropy(x, y, zloss=0.1)  # type: ignore[call-arg]


def on_jax(x: jax.Array, y: jax.Array) -> None:
    """Every result is an Array: a reduced loss is one without dimensions."""
    assert_type(snj.softmax(x, axis=0), jax.Array)
    assert_type(snj.cross_entropy(x, y, reduction="none"), jax.Array)
    assert_type(snj.logsumexp(x), jax.Array)
    assert_type(snj.logsumexp(x, return_sign=True), tuple[jax.Array, jax.Array])
    assert_type(snj.linear_cross_entropy(x, x, y), jax.Array)
    assert_type(snj.token_stats(x, x, y), snj.TokenStatistics)
    assert_type(jax.grad(lambda z: snj.cross_entropy(z, y))(jnp.zeros((2, 3))), Any)
    snj.cross_entropy(x, y, reduction="avg")  # type: ignore[arg-type]


def with_estimator(X: NDArray[np.float64], y: NDArray[np.int64]) -> None:
    """Fitting returns the estimator."""
    model = sn.SoftmaxClassifier(C=10.0, class_weight="balanced")
    assert_type(model.fit(X, y), sn.SoftmaxClassifier)
    assert_type(model.partial_fit(X, y, classes=[0, 1]), sn.SoftmaxClassifier)
    assert_type(model.predict(X), NDArray[Any])
    assert_type(model.predict_proba(X), Array)
    assert_type(model.coef_, Array)
    assert_type(sn.SoftmaxClassifier.load("model.npz"), sn.SoftmaxClassifier)
    sn.SoftmaxClassifier(10.0, "balanced")  # type: ignore[call-arg]
