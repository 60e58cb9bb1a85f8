"""The last layer of a classifier on PyTorch tensors: the names and signatures of torch.nn.functional and torch.nn.

After a change of one import, softnll's kernels compute values and gradients. The functions support autograd to any
order, forward mode, torch.func and torch.compile. docs/torch.md lists the differences from torch.
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401 - for the message about what to install
except ImportError as error:
    raise ImportError("softnll.torch needs PyTorch: pip install 'softnll[torch]'") from error


from softnll.torch._base.errors import InputIndexError, InputTypeError, InputValueError  # noqa: F401 - the module of their names
from softnll.torch._base.sparse import SparseTargets
from softnll.torch._linear.api import linear_cross_entropy, plan
from softnll.torch._linear.stats import LossStats, linear_cross_entropy_and_stats
from softnll.torch._parallel import door as _door  # noqa: F401 - serves sharded tensors
from softnll.torch._parallel import door_scores as _door_scores  # noqa: F401 - serves sharded tensors
from softnll.torch._tokens.api import TokenStats, token_stats
from softnll.torch.functional import cross_entropy, log_softmax, logsumexp, nll_loss, softmax
from softnll.torch.fuse import fuse, unfuse
from softnll.torch.modules import CrossEntropyLoss, LinearCrossEntropyLoss, NLLLoss

__all__ = [
    "CrossEntropyLoss",
    "LinearCrossEntropyLoss",
    "LossStats",
    "NLLLoss",
    "SparseTargets",
    "TokenStats",
    "cross_entropy",
    "fuse",
    "linear_cross_entropy",
    "linear_cross_entropy_and_stats",
    "log_softmax",
    "logsumexp",
    "nll_loss",
    "plan",
    "softmax",
    "token_stats",
    "unfuse",
]
