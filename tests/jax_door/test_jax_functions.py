"""The JAX functions: values beside NumPy's, transformations, derivatives, optax's documented examples, bad inputs."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import softnll as sn
import softnll.jax as snj

X = np.float32([[0.3, -1.2, 2.0, 0.7], [4.0, 1.5, -2.5, 0.0], [-0.6, 0.9, 1.1, -3.0]])
Y = np.array([2, 1, -100])
Q = np.float32([[0.1, 0.2, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.5, 0.0]])
MASK = np.array([[True, True, True, False], [True, True, True, True], [True, False, True, True]])
OPTIONS = [
    {"class_weight": np.array([1.0, 0.5, 2.0, 0.25])},
    {"label_smoothing": 0.1, "z_loss": 0.02, "softcap": 3.0, "temperature": 2.5, "reduction": "sum"},
    {"where": MASK, "temperature": np.array([0.5, 1.0, 3.0]), "sample_weight": [0.5, 2.0, 0.0], "reduction": "none"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=["weights", "scalars", "arrays"])
@pytest.mark.parametrize("jit", [False, True])
def test_values_and_gradients_are_numpys(options, jit):
    want, grad = sn.cross_entropy_and_grad(X, Y, **options)

    def loss(x):
        value = snj.cross_entropy(x, Y, **options)
        return value.sum(), value

    function = jax.value_and_grad(loss, has_aux=True)
    (_, got), dx = (jax.jit(function) if jit else function)(jnp.asarray(X))
    assert np.allclose(got, want, rtol=1e-6, atol=1e-7)
    assert np.allclose(dx, grad, rtol=1e-5, atol=1e-7)


def test_confident_rows_keep_their_loss_and_gradient():
    """Float32, 17 to 80 ahead: optax's loss and gradient are 0 there."""
    gaps = np.float32([17, 20, 40, 80])
    x = jnp.asarray(np.stack([gaps, 0 * gaps, 0 * gaps], axis=1))
    for jit in (jax.jit, lambda f: f):
        loss, back = jit(lambda z: jax.vjp(lambda z: snj.cross_entropy(z, [0] * 4, reduction="none"), z))(x)
        exact = 2 * np.exp(-gaps.astype(float))
        assert np.allclose(loss, exact, rtol=1e-6, atol=0)
        assert np.allclose(back(jnp.ones(4))[0][:, 0], -exact, rtol=1e-6, atol=0)


def test_common_offsets():
    x = np.float32([[1e6, 1e6 - 0.5, 1e6 - 2]])
    assert np.allclose(snj.cross_entropy(x, [1]), sn.cross_entropy(x, [1]), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype):
    x = jnp.asarray(X, dtype)
    assert snj.softmax(x).dtype == snj.log_softmax(x).dtype == x.dtype
    loss, grad = jax.value_and_grad(snj.cross_entropy)(x, Y)
    assert loss.dtype == jnp.float32
    want, dx = sn.cross_entropy_and_grad(np.asarray(x), Y)
    assert np.allclose(loss, want, rtol=1e-6)
    assert (np.asarray(grad) == dx).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "hard", "soft", "options", "linear", "stats"])
def test_derivatives_to_order_three(name):
    with jax.enable_x64(True):
        x, tau, w = jnp.asarray(X, float), jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 1.0, 0.5])
        W = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
        many = {"label_smoothing": 0.1, "z_loss": 0.1, "softcap": 4.0, "reduction": "sum"}
        function, given = {
            "softmax": (lambda x, t: snj.softmax(x, temperature=t), (x, tau)),
            "log_softmax": (lambda x, t: snj.log_softmax(x, temperature=t), (x, tau)),
            "logsumexp": (snj.logsumexp, (x,)),
            "hard": (lambda x: snj.cross_entropy(x, Y), (x,)),
            "soft": (lambda x, q: snj.cross_entropy(x, q, check=False), (x, jnp.asarray(Q, float))),
            "options": (lambda x, t, w: snj.cross_entropy(x, Y, temperature=t, class_weight=w, **many), (x, tau, w)),
            "linear": (lambda f, W: snj.linear_cross_entropy(f, W, Y, softcap=3.0, max_bytes=250), (x, W)),
            "stats": (lambda f, W: snj.token_stats(f, W, Y)[:2], (x, W)),
        }[name]
        check_grads(jax.jit(function), given, order=3, atol=3e-5, rtol=3e-5)  # of differences in float64


def test_transformations():
    x = jnp.asarray(X)
    hessian = jax.hessian(snj.cross_entropy)(x, Y)
    assert np.allclose(np.einsum("abcd,cd->ab", hessian, X), sn.cross_entropy_hvp(X, Y, X), rtol=1e-5, atol=1e-7)
    each = jax.vmap(lambda x, y: snj.cross_entropy(x, y, reduction="sum"))(x[:2], jnp.asarray(Y[:2]))
    assert np.allclose(each, sn.cross_entropy(X[:2], Y[:2], reduction="none"), rtol=1e-6)
    again = jax.grad(jax.checkpoint(lambda z: snj.cross_entropy(z, Y)))(x)
    assert np.allclose(again, jax.grad(snj.cross_entropy)(x, Y))
    exported = jax.export.export(jax.jit(jax.grad(snj.cross_entropy)))(x, jnp.asarray(Y))
    assert np.allclose(jax.export.deserialize(exported.serialize()).call(x, jnp.asarray(Y)), again)


def test_optax_examples():
    """Each of optax's functions that corresponds, on small arrays as in its documentation."""
    optax = pytest.importorskip("optax")
    logits, y = jnp.array([[1.0, 0.2, -0.5], [0.1, 1.2, -0.3]]), jnp.array([0, 1])
    want = optax.softmax_cross_entropy_with_integer_labels(logits, y)
    assert np.allclose(snj.cross_entropy(logits, y, reduction="none"), want, rtol=1e-6)
    logits, labels = jnp.array([[3.0, 1.0, 0.2], [0.5, 0.5, 0.5]]), jnp.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
    want = optax.softmax_cross_entropy(logits, labels)
    assert np.allclose(snj.cross_entropy(logits, labels, reduction="none"), want, rtol=1e-6)
    masked = jnp.array([[1.0, -jnp.inf, 0.0]])
    want = optax.safe_softmax_cross_entropy(masked, jnp.array([[1.0, 0.0, 0.0]]))
    assert np.allclose(snj.cross_entropy(masked, jnp.array([[1.0, 0.0, 0.0]]), reduction="none"), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: snj.cross_entropy(x, jnp.zeros(2, int)), ValueError, r"targets has shape \(2,\)"),
        (lambda x: snj.cross_entropy(x, jnp.zeros(3)), TypeError, "hard targets have dtype float32"),
        (lambda x: snj.cross_entropy(x, jnp.zeros(3, int), class_weight=jnp.ones(3)), ValueError, "class_weight"),
        (lambda x: snj.cross_entropy(x, np.array([0, 4, 0])), ValueError, r"targets\[1\] is 4"),
        (lambda x: snj.cross_entropy(x, Y, z_loss=-1.0), ValueError, "z_loss is -1.0"),
        (lambda x: snj.softmax(x, where=jnp.ones(4)), TypeError, "where has dtype float32"),
        (lambda x: snj.softmax(x, temperature=jnp.ones(4)), ValueError, "temperature has shape"),
        (lambda x: snj.softmax(x > 0), TypeError, "logits has dtype bool"),
        (lambda x: snj.linear_cross_entropy(x, jnp.ones((5, 3)), Y), ValueError, "features"),
        (lambda x: snj.linear_cross_entropy(x, jnp.ones((5, 4)), Y, max_bytes=4), ValueError, "max_bytes is 4"),
    ],
)
@pytest.mark.parametrize("jit", [False, True])
def test_bad_inputs(call, error, message, jit):
    with pytest.raises(error, match=message):
        (jax.jit(call) if jit else call)(jnp.asarray(X))


def test_traced_values_that_are_out_of_range_are_nan():
    loss = jax.jit(lambda x, y: snj.cross_entropy(x, y, reduction="none"))(X, np.array([4, 0, -1]))
    assert np.isnan(loss).tolist() == [True, False, True]
    narrow = jax.jit(lambda x, y: snj.cross_entropy(x, y, reduction="none"))(X, np.uint8([156, 0, 1]))
    assert np.isnan(narrow).tolist() == [True, False, False]


def test_a_mean_of_no_rows():
    loss, grad = jax.value_and_grad(snj.cross_entropy)(jnp.asarray(X), jnp.full(3, -100))
    assert np.isnan(loss)
    assert (grad == 0).all()


def test_importing_the_package_does_not_import_jax():
    code = "import sys, softnll; assert 'jax' not in sys.modules; sys.modules['jax'] = None\nimport softnll.jax"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: softnll.jax needs JAX: pip install 'softnll[jax]'" in done.stderr
