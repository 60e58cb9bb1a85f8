"""The library and its peers."""

from __future__ import annotations

import warnings
from importlib import import_module

import numpy as np

import softnll as sn
from library import Library, touched
from peers_torch import Torch, TorchByHand, TorchCompile, TorchCompileAutograd
from ways import Unavailable, Way


class Softnll(Library):
    """Ours; where the compiled kernels cannot be used it fails rather than time what stands in for them."""

    name = "softnll"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        warnings.filterwarnings("error", message="Numba cannot be used")

    def loss(self):
        return lambda: sn.cross_entropy(self.x, self.y)

    def loss_grad_fresh(self):
        return lambda: sn.cross_entropy_and_grad(self.x, self.y)

    def loss_grad_out(self):
        out = touched(self.x)
        return lambda: sn.cross_entropy_and_grad(self.x, self.y, out=out)

    def loss_grad_in_place(self):
        own = touched(self.x)
        return Way(lambda: sn.cross_entropy_and_grad(own, self.y, out=own), lambda: np.copyto(own, self.x))

    def softmax_fresh(self):
        return lambda: sn.softmax(self.x)

    def softmax_out(self):
        out = touched(self.x)
        return lambda: sn.softmax(self.x, out=out)

    def log_softmax_fresh(self):
        return lambda: sn.log_softmax(self.x)

    def log_softmax_out(self):
        out = touched(self.x)
        return lambda: sn.log_softmax(self.x, out=out)

    def logsumexp(self):
        return lambda: sn.logsumexp(self.x)


class Jax(Library):
    """jax.jit; the loss as optax writes it: logsumexp less the entry at the target."""

    name = "jax"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        self.jax = import_module("jax")
        self.jax.config.update("jax_enable_x64", x.dtype == np.float64)
        jnp = import_module("jax.numpy")
        self.z, self.t = jnp.asarray(x), jnp.asarray(y.astype(np.int32))

        def loss(z, t):
            picked = jnp.take_along_axis(z, t[:, None], axis=-1)[:, 0]
            return (self.jax.nn.logsumexp(z, axis=-1) - picked).mean()

        self.mean = loss

    def _jitted(self, function, *arguments):
        function = self.jax.jit(function)
        return lambda: self.jax.block_until_ready(function(*arguments))

    def loss(self):
        return self._jitted(self.mean, self.z, self.t)

    def loss_grad_fresh(self):
        return self._jitted(self.jax.value_and_grad(self.mean), self.z, self.t)

    def softmax_fresh(self):
        return self._jitted(self.jax.nn.softmax, self.z)

    def log_softmax_fresh(self):
        return self._jitted(self.jax.nn.log_softmax, self.z)

    def logsumexp(self):
        return self._jitted(lambda z: self.jax.nn.logsumexp(z, axis=-1), self.z)


class ScikitLearn(Library):
    """scikit-learn's private HalfMultinomialLoss: one loss a row, and the gradient of their sum."""

    name = "scikit-learn"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        if x.dtype.name not in ("float32", "float64"):
            raise Unavailable("float32 and float64 only")
        self.divisor = len(y)
        self.target = y.astype(x.dtype)
        self.half = import_module("sklearn._loss.loss").HalfMultinomialLoss(n_classes=x.shape[1])

    def loss(self):
        losses = np.empty_like(self.target)
        return lambda: self.half.loss(self.target, self.x, loss_out=losses, n_threads=self.threads).mean()

    def _both(self, **buffers):
        losses, grad = self.half.loss_gradient(self.target, self.x, n_threads=self.threads, **buffers)
        return losses.mean(), grad

    def loss_grad_fresh(self):
        return self._both

    def loss_grad_out(self):
        losses, grad = np.empty_like(self.target), touched(self.x)
        return lambda: self._both(loss_out=losses, gradient_out=grad)


class SciPy(Library):
    name = "SciPy"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        self.special = import_module("scipy.special")

    def loss(self):
        def run():
            losses = self.special.logsumexp(self.x, axis=1) - self.x[self.rows, self.y]
            return losses.mean()

        return run

    def softmax_fresh(self):
        return lambda: self.special.softmax(self.x, axis=1)

    def log_softmax_fresh(self):
        return lambda: self.special.log_softmax(self.x, axis=1)

    def logsumexp(self):
        return lambda: self.special.logsumexp(self.x, axis=1)


class NumPy(Library):
    """The formulas as one writes them, with out= where that saves an array."""

    name = "NumPy"

    def _exp(self, out=None):
        """Return the largest entry of each row, the exponentials below it and their sum."""
        m = self.x.max(axis=1, keepdims=True)
        e = np.subtract(self.x, m, out=out)
        np.exp(e, out=e)
        return m, e, e.sum(axis=1, keepdims=True)

    def _both(self, out=None):
        m, e, s = self._exp(out)
        loss = (np.log(s[:, 0]) + m[:, 0] - self.x[self.rows, self.y]).mean()
        e /= s
        e[self.rows, self.y] -= 1
        e /= len(e)
        return loss, e

    def _softmax(self, out=None):
        _, e, s = self._exp(out)
        e /= s
        return e

    def _log_softmax(self, out=None):
        z = np.subtract(self.x, self.x.max(axis=1, keepdims=True), out=out)
        z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
        return z

    def loss(self):
        return lambda: self.logsumexp()().mean() - self.x[self.rows, self.y].mean()

    def logsumexp(self):
        def run():
            m, _, s = self._exp()
            return np.log(s[:, 0]) + m[:, 0]

        return run

    def loss_grad_fresh(self):
        return self._both

    def loss_grad_out(self):
        out = touched(self.x)
        return lambda: self._both(out)

    def softmax_fresh(self):
        return self._softmax

    def softmax_out(self):
        out = touched(self.x)
        return lambda: self._softmax(out)

    def log_softmax_fresh(self):
        return self._log_softmax

    def log_softmax_out(self):
        out = touched(self.x)
        return lambda: self._log_softmax(out)


LIBRARIES = (Softnll, Torch, TorchByHand, TorchCompile, TorchCompileAutograd, Jax, ScikitLearn, SciPy, NumPy)
NAMES = tuple(library.name for library in LIBRARIES)
# Types other than float32 are measured beside these only, unless all are asked for.
ALWAYS = ("softnll", "torch", "torch by hand", "torch.compile", "torch.compile autograd")
