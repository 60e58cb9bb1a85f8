"""Train a small network on scikit-learn's digits: optax's Adam, softnll's loss.

python examples/jax_digits.py
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import softnll.jax as snj


def network(parameters, x):
    """Return the logits of two layers."""
    (W1, b1), (W2, b2) = parameters
    return jax.nn.relu(x @ W1 + b1) @ W2 + b2


def loss(parameters, x, y):
    """Return the mean cross-entropy: the one line that is not optax's."""
    return snj.cross_entropy(network(parameters, x), y)


def main(epochs: int = 20) -> float:
    """Train, print the loss of each fifth epoch, and return the accuracy on held-out rows."""
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    X, y = jnp.asarray(X[order] / 16, jnp.float32), jnp.asarray(y[order])
    keys = jax.random.split(jax.random.key(0), 2)
    parameters = [
        (jax.random.normal(key, shape) * shape[0] ** -0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys, ((64, 64), (64, 10)), strict=True)
    ]
    optimiser = optax.adam(3e-3)
    state = optimiser.init(parameters)

    @jax.jit
    def step(parameters, state, x, y):
        value, grads = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = optimiser.update(grads, state)
        return optax.apply_updates(parameters, updates), state, value

    for epoch in range(epochs):
        for start in range(0, 1408, 64):
            rows = slice(start, start + 64)
            parameters, state, value = step(parameters, state, X[rows], y[rows])
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {value:.4f}")
    return float((network(parameters, X[1408:]).argmax(axis=1) == y[1408:]).mean())


if __name__ == "__main__":
    print(f"accuracy {main():.3f}")
