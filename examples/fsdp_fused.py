"""A fused head under FSDP2: fuse the model, then shard it; the model's own forward and loss stay as they are.

torchrun --nproc-per-node 2 examples/fsdp_fused.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from softnll.torch import fuse

VOCABULARY, WIDTH, TOKENS, STEPS = 1000, 32, 256, 10


class Model(torch.nn.Module):
    """A language model without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Linear(WIDTH, WIDTH))
        self.lm_head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss: inside the forward, while FSDP has the whole weight."""
        return torch.nn.functional.cross_entropy(self.lm_head(self.body(tokens)), targets)


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank = dist.get_rank()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    mesh = dist.init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(0)
    model = fuse(Model().to(device))
    fully_shard(model, mesh=mesh)  # the head belongs to the root: its weight is whole during the forward
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    torch.manual_seed(rank)  # each rank has tokens of its own
    tokens = torch.randint(VOCABULARY, (TOKENS,)).to(device)
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = model(tokens, (tokens + 1) % VOCABULARY)
        loss.backward()
        optimiser.step()
        if rank == 0:
            print(f"step {step}  loss {loss.item():.6f}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
