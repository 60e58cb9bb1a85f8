"""Train a head whose vocabulary is divided among processes: no process has all logits, or the whole weight.

torchrun --nproc-per-node 2 examples/tensor_parallel_head.py
"""

from __future__ import annotations

import torch
import torch.distributed as dist

from softnll.torch import parallel

VOCABULARY, WIDTH, TOKENS, STEPS = 1000, 32, 256, 10


def main() -> None:
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    torch.manual_seed(0)  # the same model and data on every rank
    body = torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, WIDTH), torch.nn.Linear(WIDTH, WIDTH)).to(device)
    whole = torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5
    head = torch.nn.Parameter(whole.tensor_split(ranks)[rank].clone().to(device))  # this rank's rows; uneven is fine
    optimiser = torch.optim.SGD([*body.parameters(), head], lr=1.0)
    tokens = torch.randint(VOCABULARY, (TOKENS,)).to(device)
    targets = (tokens + 1) % VOCABULARY
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = parallel.linear_cross_entropy(body(tokens), head, targets, label_smoothing=0.01, z_loss=1e-4)
        loss.backward()  # the features' gradient is summed over the ranks, so that all bodies stay equal
        optimiser.step()
        if rank == 0:
            print(f"step {step}  loss {loss.item():.6f}")
    stats = parallel.token_stats(body(tokens), head.detach(), targets)
    if rank == 0:
        print(f"accuracy {(stats.argmax == targets).float().mean().item():.3f}, {len(head)} of {VOCABULARY} rows here")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
