"""The last layer of a classifier on PyTorch tensors: the names and signatures of torch.nn.functional and torch.nn.

Change one import: values and gradients come from softnll's kernels, under autograd to any order, forward mode,
torch.func and torch.compile. What is the same as torch and what differs on purpose: docs/torch.md.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - to say what to install
except ImportError as error:
    raise ImportError("softnll.torch needs PyTorch: pip install 'softnll[torch]'") from error

from softnll.torch.functional import cross_entropy, log_softmax, logsumexp, nll_loss, softmax
from softnll.torch.fuse import fuse, unfuse
from softnll.torch.linear import linear_cross_entropy, plan
from softnll.torch.modules import CrossEntropyLoss, LinearCrossEntropyLoss, NLLLoss
from softnll.torch.sparse import SparseTargets
from softnll.torch.tokens import TokenStats, token_stats

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "NLLLoss",
    "SparseTargets",
    "TokenStats",
    "cross_entropy",
    "fuse",
    "linear_cross_entropy",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "plan",
    "softmax",
    "token_stats",
    "unfuse",
]
