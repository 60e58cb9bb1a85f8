"""The linear functions of JAX: values, memory of the compiled program, statistics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softnll as sn
import softnll.jax as snj

RNG = np.random.default_rng(0)
F, W, B = (RNG.normal(size=shape).astype(np.float32) for shape in ((7, 3), (5, 3), (5,)))
Y = np.array([0, 4, 2, -100, 1, 3, 3])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_values_and_gradients_are_numpys(reduction):
    options = {"class_weight": [1.0, 2.0, 0.5, 1.0, 1.0], "label_smoothing": 0.1, "z_loss": 0.01}
    want, grads = sn.linear_cross_entropy_and_grad(F, W, Y, bias=B, reduction=reduction, **options)

    def loss(F, W, B):  # three rows at a time
        return snj.linear_cross_entropy(F, W, Y, bias=B, max_bytes=180, reduction=reduction, **options).sum()

    got, found = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))(F, W, B)
    assert np.allclose(got, want.sum(), rtol=1e-6)
    for each, exact in zip(found, grads, strict=True):
        assert np.allclose(each, exact, rtol=1e-5, atol=1e-6)


def test_smoothed_rows_of_class_weight_0_take_part():
    options = {"class_weight": [0.0, 2.0, 0.5, 1.0, 1.0], "label_smoothing": 0.1, "reduction": "none"}
    want = sn.linear_cross_entropy(F, W, Y, **options)
    assert np.allclose(snj.linear_cross_entropy(F, W, Y, max_bytes=180, **options), want, rtol=1e-6)


def test_an_unchecked_target_is_nan_whatever_the_class_weights():
    options = {"class_weight": [0.0, 1.0, 1.0, 1.0, 0.0], "reduction": "none", "check": False}
    y = np.array([-1, 5, 0, 1, 2, 3, 4])
    loss, back = jax.vjp(lambda z: snj.cross_entropy(z, y, **options), F @ W.T)
    assert np.isnan(loss).tolist() == np.isnan(sn.cross_entropy(F @ W.T, y, **options)).tolist()
    assert np.isnan(back(jnp.ones(7))[0]).all(axis=1).tolist() == np.isnan(loss).tolist()


def test_rows_without_part_hold_anything():
    features = F.copy()
    features[3] = np.nan
    for given in ({}, {"sample_weight": np.where(Y == -100, 0, 1.0)}):
        grads = jax.grad(lambda F, W: snj.linear_cross_entropy(F, W, Y, max_bytes=120, **given), (0, 1))  # noqa: B023
        df, dW = grads(jnp.asarray(features), jnp.asarray(W))
        assert (df[3] == 0).all()
        assert np.isfinite(dW).all()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_compiled_program_has_no_array_of_all_logits(reduction):
    N, H, C = 2048, 8, 4096
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((N, H), (C, H))]

    def loss(F, W, y):
        return snj.linear_cross_entropy(F, W, y, max_bytes=1 << 22, reduction=reduction).sum()

    y = jax.ShapeDtypeStruct((N,), jnp.int32)
    compiled = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*shapes, y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= N * C * 4 / 4
    assert f"[{N},{C}]" not in compiled.as_text()


@pytest.mark.slow
def test_statistics():
    stats = jax.jit(lambda F, W: snj.token_stats(F, W, Y, bias=B, max_bytes=180))(F, W)
    z = F.astype(float) @ W.T + B
    log_p, taken = sn.log_softmax(z), Y != -100
    assert np.allclose(stats.log_prob[taken], log_p[taken, Y[taken]], rtol=1e-5)
    assert np.allclose(stats.entropy[taken], -(np.exp(log_p) * log_p).sum(axis=1)[taken], rtol=1e-5)
    assert np.allclose(stats.lse[taken], sn.logsumexp(z)[taken], rtol=1e-5)
    assert (stats.argmax == np.where(taken, z.argmax(axis=1), -1)).all()
    assert stats.log_prob[3] == stats.entropy[3] == stats.lse[3] == 0
