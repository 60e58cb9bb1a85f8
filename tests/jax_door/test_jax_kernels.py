"""Where compiled programs call the kernels, and where they have the equation's operations."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import softnll as sn
import softnll.jax as snj
from softnll.jax import _kernels

CALL = 'custom_call_target="softnll_rows'
PYTHON = CALL + '"'
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(6, 5)).astype(np.float32), np.array([0, 4, 2, -100, 1, 3])


def program(function, *given):
    return jax.jit(function).lower(*given).compile().as_text()


def test_a_loss_and_its_gradient_are_one_call():
    assert program(jax.value_and_grad(snj.cross_entropy), X, Y).count(CALL) == 1
    assert program(snj.softmax, X).count(CALL) == 1


def test_the_linear_loss_calls_the_kernels_too():
    step = jax.value_and_grad(snj.linear_cross_entropy, (0, 1))
    assert program(step, X, RNG.normal(size=(7, 5)).astype(np.float32), Y).count(CALL) == 1


@pytest.mark.slow
def test_an_exported_program_has_no_call():
    exported = jax.export.export(jax.jit(jax.grad(snj.cross_entropy)))(X, Y)
    assert "custom_call @softnll" not in str(exported.mlir_module())
    assert np.allclose(exported.call(X, Y), jax.grad(snj.cross_entropy)(X, Y), rtol=1e-5, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0},
        {"class_weight": RNG.random(5), "sample_weight": RNG.random(6)},
        {"temperature": RNG.random(6) + 0.5},
        {"where": RNG.random((6, 5)) > 0.2, "check": False},
    ],
)
def test_values_are_the_numpy_functions(options, monkeypatch):
    loss, grad = sn.cross_entropy_and_grad(X, Y, **options)

    def same():
        found, gradient = jax.jit(jax.value_and_grad(lambda x: snj.cross_entropy(x, Y, **options)))(X)
        return np.allclose(found, loss, rtol=1e-6) and np.allclose(gradient, grad, rtol=1e-5, atol=1e-8)

    assert same()
    monkeypatch.setattr(_kernels, "_LEAST_DIRECT", 1 << 62)
    assert same()
    monkeypatch.setattr(_kernels, "_LEAST", 1 << 62)
    assert same()


def test_few_entries_are_computed_by_the_equation(monkeypatch):
    monkeypatch.setattr(_kernels, "_LEAST", X.size + 1)
    softened = lambda x: snj.softmax(x, temperature=2.0)  # noqa: E731
    assert CALL not in program(softened, X[:2])
    assert CALL in program(snj.softmax, X[:2])
    assert CALL in program(softened, np.concatenate([X, X]))


OPERATIONS = {
    "softmax": (snj.softmax, sn.softmax),
    "log_softmax": (snj.log_softmax, sn.log_softmax),
    "logsumexp": (snj.logsumexp, sn.logsumexp),
    "losses": (lambda x: snj.cross_entropy(x, Y, reduction="none"), lambda x: sn.cross_entropy(x, Y, reduction="none")),
    "gradient": (jax.grad(lambda x: snj.cross_entropy(x, Y)), lambda x: sn.cross_entropy_and_grad(x, Y)[1]),
}


@pytest.mark.parametrize("columns", [5, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_usual_problems_need_no_python(name, columns, monkeypatch):
    """The values are the NumPy functions', to the bit."""
    monkeypatch.setattr(_kernels, "kernels", lambda: None)  # what Python would call
    ours, numpys = OPERATIONS[name]
    x = RNG.normal(size=(6, columns)).astype(np.float32)
    text = program(ours, x)
    assert (CALL in text, PYTHON in text) == (True, False)
    assert np.array_equal(jax.jit(ours)(x), numpys(x).astype(np.float32))


def test_rows_that_a_kernel_leaves_are_computed_through_python(monkeypatch):
    calls, kernels = [], _kernels.kernels
    monkeypatch.setattr(_kernels, "kernels", lambda: calls.append(1) or kernels())
    x = X.copy()
    x[0, :2] = np.inf
    got = jax.jit(snj.softmax)(x)
    assert np.array_equal(got, sn.softmax(x), equal_nan=True)
    assert len(calls) == 1


@pytest.mark.parametrize("columns", [5, 200])
def test_targets_that_are_none(columns):
    """Rows out of range are NaN, ignored ones 0; neither reads outside the logits."""
    x, y = RNG.normal(size=(4, columns)).astype(np.float32), jnp.asarray([1, columns, -1, -100])
    losses, back = jax.vjp(jax.jit(lambda x: snj.cross_entropy(x, y, reduction="none", check=False)), x)
    assert np.array_equal(np.isnan(losses), [False, True, True, False])
    (grad,) = back(jnp.ones(4))
    assert np.array_equal(np.isnan(grad).all(axis=1), [False, True, True, False])
    assert losses[3] == 0
    assert not grad[3].any()


def test_large_problems_are_computed_in_threads():
    x = np.zeros((1 << 9, 1 << 11), np.float32)
    assert PYTHON in program(snj.softmax, x)
    assert PYTHON not in program(snj.softmax, x[:100])


@pytest.mark.slow
def test_elements_of_a_batch_are_rows_of_one_call():
    batch, targets = jnp.stack([X, 2 * X]), jnp.asarray([Y, Y])
    each = jax.vmap(jax.grad(snj.cross_entropy))
    assert program(each, batch, targets).count(CALL) + program(jax.vmap(snj.softmax), batch).count(CALL) == 2
    want = [sn.cross_entropy_and_grad(np.asarray(z), Y)[1] for z in batch]
    assert np.allclose(each(batch, targets), want, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_class_weights_of_each_element():
    weights = RNG.random((2, 5)).astype(np.float32)
    got = jax.vmap(lambda w: snj.cross_entropy(X, Y, class_weight=w))(weights)
    assert np.allclose(got, [sn.cross_entropy(X, Y, class_weight=w) for w in weights], rtol=1e-6)


def test_an_error_in_a_kernel_is_the_programs(monkeypatch):
    monkeypatch.setattr(_kernels, "kernels", lambda: None)
    monkeypatch.setattr(_kernels, "_LEAST_DIRECT", 1 << 62)
    with pytest.raises(jax.errors.JaxRuntimeError, match="softnll: AttributeError"):
        snj.softmax(X[:, :3]).block_until_ready()


CODE = f"""
import jax, jax.numpy as jnp, numpy as np, softnll.jax as snj
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
mesh = Mesh(np.array(jax.devices()), ("rows",))
__import__("softnll.jax._kernels", fromlist=["_"])._LEAST = 0
x = jax.device_put(jnp.ones((8, 5)), NamedSharding(mesh, P("rows")))
step = jax.jit(jax.value_and_grad(lambda x: snj.cross_entropy(x, np.arange(8) % 5)))
assert {CALL!r} not in step.lower(x).compile().as_text()
assert abs(step(x)[0] - np.log(5)) < 1e-6
"""


@pytest.mark.slow
def test_a_program_for_two_devices_has_no_call():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


EXIT = """
import jax, jax.numpy as jnp, numpy as np, softnll.jax as snj
step = jax.jit(jax.value_and_grad(lambda x: snj.cross_entropy(x, np.arange(2048) % 1000)))
x = jnp.ones((2048, 1000))
for _ in range(20):
    found = step(x)
del found
"""


@pytest.mark.slow
def test_a_process_ends_while_programs_run():
    subprocess.run([sys.executable, "-c", EXIT], check=True, timeout=120, env={**os.environ, "JAX_PLATFORMS": "cpu"})
