"""Tensors of every kind: served, or refused in one line that names the argument and what is allowed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.testing._internal.two_tensor import TwoTensor

import softnll.torch as snt

X, Y = torch.tensor([[5.0, 4.0, 2.0], [4.0, 2.0, 8.0]]), torch.tensor([0, 2])
CALLS = {
    "softmax": lambda x: snt.softmax(x, 1),
    "log_softmax": lambda x: snt.log_softmax(x, 1),
    "logsumexp": lambda x: snt.logsumexp(x, 1),
    "cross_entropy": lambda x: snt.cross_entropy(x, Y),
    "nll_loss": lambda x: snt.nll_loss(x, Y),
    "linear_cross_entropy": lambda x: snt.linear_cross_entropy(x, torch.eye(3), Y),
    "token_stats": lambda x: snt.token_stats(x, torch.eye(3), Y).entropy,
}


def _nested(layout):
    return torch.nested.nested_tensor([X, X[:1]], layout=layout)


REFUSED = {
    "sparse": (X.to_sparse, r"input has the layout torch\.sparse_coo; allowed: .* input\.to_dense\(\)"),
    "csr": (X.to_sparse_csr, r"input has the layout torch\.sparse_csr; allowed: .* input\.to_dense\(\)"),
    "nested": (lambda: _nested(torch.strided), r"input is a nested tensor; allowed: .*input\.to_padded_tensor\(0\.0\)"),
    "jagged": (lambda: _nested(torch.jagged), r"input is a nested tensor; allowed: .*input\.to_padded_tensor\(0\.0\)"),
    "wrapper": (lambda: TwoTensor(X, X), "input is a TwoTensor; allowed: a plain tensor"),
    "quantised": (
        lambda: torch.quantize_per_tensor(X, 0.1, 0, torch.quint8),
        r"input is quantised; allowed: .* input\.dequantize\(\)",
    ),
}
SERVED = {
    "parameter": lambda: torch.nn.Parameter(X),
    "negative view": lambda: torch._neg_view(-X),
    "negative view of bfloat16": lambda: torch._neg_view(-X.bfloat16()),
    "transposed": lambda: X.t().contiguous().t(),
    "expanded": lambda: X[:1].expand(2, 3),
    "strided": lambda: torch.zeros(4, 6)[::2, ::2].copy_(X),
    "of an imaginary part": lambda: torch.complex(torch.zeros(2, 3), X).imag,
    "of a conjugate": lambda: torch.complex(torch.zeros(2, 3), -X).conj().imag,
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_one_line(kind, call):
    make, message = REFUSED[kind]
    with pytest.raises(NotImplementedError, match=message):
        CALLS[call](make())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", SERVED)
def test_served(kind, call):
    x = SERVED[kind]()
    torch.testing.assert_close(CALLS[call](x), CALLS[call](x.detach().resolve_neg().contiguous()), rtol=1e-6, atol=1e-8)


def test_a_sharded_tensor_beside_plain_ones_is_refused_by_name():
    script = """
import os, torch, torch.distributed as dist, softnll.torch as snt
os.environ.setdefault("MASTER_ADDR", "127.0.0.1"); os.environ["MASTER_PORT"] = "0"
dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
from torch.distributed.tensor import Replicate, Shard, distribute_tensor, init_device_mesh
x = distribute_tensor(torch.eye(3), init_device_mesh("cpu", (1,)), [Shard(0)])
y = torch.tensor([0, 1, 2])
weights = distribute_tensor(torch.ones(3), x.device_mesh, [Replicate()])
for call in (lambda: snt.nll_loss(torch.eye(3), y, weights), lambda: snt.linear_cross_entropy(x, torch.eye(3), y)):
    try:
        call()
    except NotImplementedError as error:
        print(error)
"""

    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    allowed = "allowed: a plain tensor, or Replicate(), beside a plain linear_weight"
    assert run.stdout.splitlines() == [
        "weight is a DTensor; allowed: a plain tensor, such as weight.full_tensor()",
        f"input is a DTensor with placements (Shard(dim=0),); {allowed}",
    ]
