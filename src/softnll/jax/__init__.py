"""The last layer of a classifier on JAX arrays: the NumPy functions' names and options, through every transformation.

``jit``, ``grad``, ``jvp``, ``vmap``, ``hessian``, ``checkpoint``, ``shard_map`` and ``export`` apply, and derivatives
have any order in both modes. docs/jax.md says what differs from optax.
"""

from __future__ import annotations

try:
    import jax as _jax  # noqa: F401 - for the message about what to install
except ImportError as error:
    raise ImportError("softnll.jax needs JAX: pip install 'softnll[jax]'") from error

from softnll.jax.functional import cross_entropy, log_softmax, logsumexp, nll_loss, softmax
from softnll.jax.linear import TokenStatistics, linear_cross_entropy, token_stats

__all__ = [
    "TokenStatistics",
    "cross_entropy",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "softmax",
    "token_stats",
]
