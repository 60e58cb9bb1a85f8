"""Train a small model under a wrapper of torch.distributed, fused and not: loss curves and warnings of one rank."""

from __future__ import annotations

import warnings

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import softnll.torch as snt

VOCABULARY, WIDTH, STEPS = 50, 8, 20


class Model(torch.nn.Module):
    """A language model without attention."""

    def __init__(self, tied=False, outside=False, checkpointed=False):
        super().__init__()
        self.outside, self.checkpointed = outside, checkpointed
        self.embedding = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.body = torch.nn.Linear(WIDTH, WIDTH)
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)
        if tied:
            self.lm_head.weight = self.embedding.weight

    def forward(self, tokens, targets):
        hidden = self.embedding(tokens)
        hidden = checkpoint(self.body, hidden, use_reentrant=False) if self.checkpointed else self.body(hidden)
        logits = self.lm_head(hidden)
        return logits if self.outside else torch.nn.functional.cross_entropy(logits, targets)


def _ddp(model, fuse):
    return DistributedDataParallel(fuse(model))


def _fsdp(model, fuse, *, before=True, head=False, body=True):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fuse(model) if before else model
    if body:
        fully_shard(model.body, mesh=mesh)
    if head:
        fully_shard(model.lm_head, mesh=mesh)
    model = fully_shard(model, mesh=mesh)
    return model if before else fuse(model)


def _colwise(model, fuse, *, before):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = fuse(model) if before else model
    plan = {"lm_head": ColwiseParallel(output_layouts=Replicate())}
    model = parallelize_module(model, mesh, plan)
    return model if before else fuse(model)


WRAPPERS = {
    "ddp": (_ddp, {}, {}),
    "ddp outside": (_ddp, {}, {"outside": True}),
    "ddp tied": (_ddp, {}, {"tied": True}),
    "ddp checkpoint": (_ddp, {}, {"checkpointed": True}),
    "fsdp": (_fsdp, {}, {}),
    "fsdp fused after": (_fsdp, {"before": False}, {}),
    "fsdp outside": (_fsdp, {}, {"outside": True}),
    "fsdp tied": (_fsdp, {}, {"tied": True}),
    "fsdp head": (_fsdp, {"head": True}, {}),
    "fsdp head outside": (_fsdp, {"head": True}, {"outside": True}),
    "colwise": (_colwise, {"before": True}, {}),
    "colwise fused after": (_colwise, {"before": False}, {}),
}


def _train(name, fuse, rank, accumulate=False):
    """Return the losses of the steps and the warnings."""
    wrap, options, shape = WRAPPERS[name]
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model = wrap(Model(**shape), fuse, **options)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
        generator = torch.Generator().manual_seed(0 if "colwise" in name else rank)
        losses = []
        for step in range(STEPS):
            tokens = torch.randint(VOCABULARY, (16,), generator=generator)
            targets = (tokens + 1) % VOCABULARY
            if accumulate and hasattr(model, "set_requires_gradient_sync"):
                model.set_requires_gradient_sync(step % 2 == 1)
            found = model(tokens, targets)
            loss = torch.nn.functional.cross_entropy(found, targets) if shape.get("outside") else found
            loss.backward()
            losses.append(loss.item())
            if not accumulate or step % 2 == 1:
                optimiser.step()
                optimiser.zero_grad()
    return losses, [str(each.message) for each in seen if "softnll" in str(each.message)]


def curves(rank, world):  # noqa: ARG001 - as the other programs
    """Return, of each wrapper, the losses of the ordinary model, those of the fused one, and its warnings."""
    found = {}
    for name in WRAPPERS:
        for accumulate in (False, True) if name == "fsdp" else (False,):
            shown = f"{name}{' accumulated' if accumulate else ''}"
            try:
                plain, _ = _train(name, lambda model: model, rank, accumulate)
                found[shown] = (plain, *_train(name, snt.fuse, rank, accumulate))
            except Exception as error:  # noqa: BLE001 - the test shows it
                found[shown] = repr(error)
    return found
