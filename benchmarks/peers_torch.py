"""PyTorch at its best: as it stands, by hand into given buffers, and compiled."""

from __future__ import annotations

from importlib import import_module

import numpy as np

from library import Library
from ways import Unavailable, Way

FEW_ROWS = 4096  # their float16 losses sum to less than the largest float16, 65504


class Torch(Library):
    """PyTorch as it stands: F.cross_entropy, and autograd for its gradient."""

    name = "torch"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        self.torch = import_module("torch")
        self.functional = import_module("torch.nn.functional")
        self.torch.set_num_threads(threads)
        if x.dtype.name == "bfloat16":  # NumPy's own types are all that from_numpy knows
            self.z = self.torch.from_numpy(x.view(np.int16)).view(self.torch.bfloat16)
        else:
            self.z = self.torch.from_numpy(x)
        self.t = self.torch.from_numpy(y)
        self.leaf = self.z.detach().requires_grad_()
        self.mean = self.functional.cross_entropy
        if x.dtype == np.float16 and len(y) > FEW_ROWS:
            self.loss_note = "mean taken in float32: its own float16 sum overflows"
            self.mean = self._wide_mean

    def _wide_mean(self, z, t):
        return self.functional.cross_entropy(z, t, reduction="none").float().mean()

    def wide(self, values):
        return values.detach().double().numpy()

    def empty(self):
        return self.torch.zeros_like(self.z).fill_(1)

    def loss(self):
        return lambda: self.mean(self.z, self.t)

    def loss_grad_fresh(self):
        def run():
            loss = self.mean(self.leaf, self.t)
            return loss, *self.torch.autograd.grad(loss, self.leaf)

        return run

    def softmax_fresh(self):
        return lambda: self.torch.softmax(self.z, -1)

    def softmax_out(self):
        out = self.empty()
        return lambda: self.torch.softmax(self.z, -1, out=out)

    def log_softmax_fresh(self):
        return lambda: self.torch.log_softmax(self.z, -1)

    def log_softmax_out(self):
        out = self.empty()
        return lambda: self.torch.log_softmax(self.z, -1, out=out)

    def logsumexp(self):
        return lambda: self.torch.logsumexp(self.z, -1)


class TorchByHand(Torch):
    """The formula in PyTorch's operations with out=, which autograd does not offer."""

    name = "torch by hand"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        self.index = self.torch.arange(len(y))

    def loss(self):
        raise Unavailable("the same as torch")

    loss_grad_fresh = softmax_fresh = softmax_out = log_softmax_fresh = log_softmax_out = logsumexp = loss

    def _run(self, z, out):
        self.torch.log_softmax(z, -1, out=out)
        loss = -out[self.index, self.t].float().mean()
        out.exp_()
        out[self.index, self.t] -= 1
        out /= len(z)
        return loss, out

    def loss_grad_out(self):
        out = self.empty()
        return lambda: self._run(self.z, out)

    def loss_grad_in_place(self):
        own = self.z.clone()
        return Way(lambda: self._run(own, own), lambda: own.copy_(self.z))


class TorchCompile(Torch):
    """torch.compile of the forward; of forward and gradient as one graph that writes where it is told to."""

    name = "torch.compile"

    def __init__(self, x, y, threads):
        super().__init__(x, y, threads)
        self.torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - one process, many outputs
        self.both = self.torch.func.grad_and_value(self.mean)

    def compiled(self, function):
        return self.torch.compile(function, dynamic=False)

    def loss(self):
        function = self.compiled(self.mean)
        return lambda: function(self.z, self.t)

    def loss_grad_fresh(self):
        def both(z, t):
            grad, loss = self.both(z, t)
            return loss, grad

        function = self.compiled(both)
        return lambda: function(self.z, self.t)

    def _writing(self):
        def both(z, t, out):
            grad, loss = self.both(z, t)
            out.copy_(grad)
            return loss

        return self.compiled(both)

    def loss_grad_out(self):
        out, function = self.empty(), self._writing()
        return lambda: (function(self.z, self.t, out), out)

    def loss_grad_in_place(self):
        def both(z, t):
            grad, loss = self.both(z, t)
            z.copy_(grad)
            return loss

        own, function = self.z.clone(), self.compiled(both)
        return Way(lambda: (function(own, self.t), own), lambda: own.copy_(self.z))

    def softmax_fresh(self):
        function = self.compiled(lambda z: self.torch.softmax(z, -1))
        return lambda: function(self.z)

    def softmax_out(self):
        out, function = self.empty(), self.compiled(lambda z, out: out.copy_(self.torch.softmax(z, -1)))
        return lambda: function(self.z, out)

    def log_softmax_fresh(self):
        function = self.compiled(lambda z: self.torch.log_softmax(z, -1))
        return lambda: function(self.z)

    def log_softmax_out(self):
        out, function = self.empty(), self.compiled(lambda z, out: out.copy_(self.torch.log_softmax(z, -1)))
        return lambda: function(self.z, out)

    def logsumexp(self):
        function = self.compiled(lambda z: self.torch.logsumexp(z, -1))
        return lambda: function(self.z)


class TorchCompileAutograd(TorchCompile):
    """A compiled loss differentiated by autograd, as in a training loop: two graphs."""

    name = "torch.compile autograd"

    def loss(self):
        raise Unavailable("the same as torch.compile")

    softmax_fresh = softmax_out = log_softmax_fresh = log_softmax_out = logsumexp = loss
    loss_grad_out = loss_grad_in_place = loss

    def loss_grad_fresh(self):
        function = self.compiled(self.mean)

        def run():
            loss = function(self.leaf, self.t)
            return loss, *self.torch.autograd.grad(loss, self.leaf)

        return run
